"""YAML from files that others made."""

from typing import Any

import yaml

from pixelclip_sdk.support.nesting import refuse_nested

__all__ = ["parse_yaml"]


def parse_yaml(text: str) -> Any:
    """Like ``yaml.safe_load``, with one kind of error.

    Raises:
        ValueError: The text is not YAML, is nested too deeply, or has a value that Python does not take: a
            date that does not exist, a number of more than 4300 digits.
    """
    refuse_nested(text)
    try:
        return yaml.safe_load(text)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error
    except ValueError:
        raise
    except Exception as error:  # Besides its own errors, PyYAML raises those of the types that it makes.
        raise ValueError(str(error) or type(error).__name__) from error
