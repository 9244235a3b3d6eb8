"""Deep nesting in YAML, which costs time before it is an error."""

import re

__all__ = ["refuse_nested"]

_MAX_DEPTH = 100


def refuse_nested(text: str) -> None:
    """Raise ValueError if more than 100 brackets are open at the same time; those in texts count too.

    The time of PyYAML and ruamel.yaml grows with the square of that number: 5000 brackets take seconds.

    Examples:
        >>> refuse_nested("a: [[1, 2], {b: 3}]")
    """
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = max(depth + (1 if bracket in "[{" else -1), 0)
        if depth > _MAX_DEPTH:
            raise ValueError(f"its values are nested more than {_MAX_DEPTH} levels deep")
