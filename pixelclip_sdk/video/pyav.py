"""Access to the optional package PyAV, which wraps FFmpeg."""

import errno
import os
from typing import Any

from pixelclip_sdk.errors import BackendUnavailableError
from pixelclip_sdk.support.redact import redact

__all__ = ["explain", "file_url", "hide_credentials", "import_av"]

_FULL = (errno.ENOSPC, errno.EDQUOT)


def import_av() -> Any:
    """Return the module `av`; raises BackendUnavailableError if PyAV is not installed."""
    try:
        import av
    except ImportError as error:
        raise BackendUnavailableError(
            "video needs PyAV, which is not installed. Install it: "
            'pip install "pixelclip-sdk[video]". Folders and arrays work without it.'
        ) from error
    return av


def file_url(path: str | os.PathLike[str]) -> str:
    """Return FFmpeg's URL of a local file. Without the prefix, ``a:b.mp4`` would name a protocol ``a``."""
    return f"file:{os.fspath(path)}"


def explain(error: Exception) -> str:
    """Return FFmpeg's description of an error, with a hint if the disk is full."""
    text = str(getattr(error, "strerror", None) or error)
    return f"{text}. Free some space" if getattr(error, "errno", None) in _FULL else text


def hide_credentials(error: Exception) -> None:
    """Remove credentials from the address that FFmpeg puts into its errors; tracebacks print it."""
    error.args = tuple(redact(value) if isinstance(value, str) else value for value in error.args)
