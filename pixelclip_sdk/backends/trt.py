"""Both flavours of TensorRT behind one door: they have the same Python API under two names."""

import collections
import importlib
import logging
from typing import Any

from pixelclip_sdk.backends.engine import FLAVORS
from pixelclip_sdk.errors import BackendUnavailableError

__all__ = ["PACKAGES", "load_tensorrt", "make_logger", "one_line"]

_log = logging.getLogger(__name__)

PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx-cu12"}
"""Flavour → the package to install."""


def load_tensorrt(flavor: str) -> Any:
    """The Python module of a flavour.

    Args:
        flavor: ``"tensorrt"`` or ``"tensorrt-rtx"``.

    Raises:
        BackendUnavailableError: It is not installed or cannot be loaded.
    """
    if flavor not in FLAVORS:
        raise BackendUnavailableError(f"flavor is {flavor!r}; expected one of {', '.join(FLAVORS)}")
    try:
        module = importlib.import_module(FLAVORS[flavor])
    # A wheel whose libraries do not load raises OSError, RuntimeError or FileNotFoundError.
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailableError(
            f"{flavor} cannot be imported: {one_line(str(error))}. Install it: pip install {PACKAGES[flavor]}"
        ) from error
    if not hasattr(module, "Runtime"):
        # The name `tensorrt` also goes to empty folders and to placeholder packages.
        raise BackendUnavailableError(
            f"{flavor}: the module {FLAVORS[flavor]} is a placeholder without TensorRT in it. "
            f"Install it: pip install {PACKAGES[flavor]}"
        )
    return module


def make_logger(trt: Any) -> Any:
    """A logger for TensorRT's objects that passes on to `logging`.

    Its ``errors`` are the last errors TensorRT spoke of. TensorRT returns None or False where it fails, and
    says why only here.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: collections.deque[str] = collections.deque(maxlen=3)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(one_line(message))
            level = logging.WARNING if severity == trt.ILogger.WARNING else logging.DEBUG
            _log.log(level, "%s", message)

    return Logger()


def one_line(message: str) -> str:
    """The message with every run of white space a blank."""
    return " ".join(message.split())
