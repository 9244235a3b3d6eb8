"""Load either flavour of TensorRT: both have the same Python API under two module names."""

import collections
import importlib
import logging
from typing import Any

from pixelclip_sdk.backends.engine import FLAVORS
from pixelclip_sdk.errors import BackendUnavailableError

_log = logging.getLogger(__name__)

# Flavour of TensorRT → the package to install.
_PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx-cu12"}


def load_tensorrt(flavor: str) -> Any:
    """Import the Python module of a flavour; raise BackendUnavailableError if it cannot be loaded."""
    try:
        module = importlib.import_module(FLAVORS[flavor])
        # An empty folder or a placeholder package may have the name `tensorrt`.
        if not hasattr(module, "Runtime"):
            raise ImportError(f"the module {FLAVORS[flavor]} is a placeholder without TensorRT")
    # A wheel with libraries that do not load raises OSError or RuntimeError.
    except (ImportError, OSError, RuntimeError) as error:
        reason = one_line(str(error))
        raise BackendUnavailableError(
            f"{flavor} cannot be imported: {reason}. Install it: pip install {_PACKAGES[flavor]}"
        ) from error
    return module


def make_logger(trt: Any) -> Any:
    """Make a logger for TensorRT that forwards to `logging` and keeps the last errors in ``errors``.

    TensorRT returns None or False on failure and reports the reason only to its logger.
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
    """Return the message with every run of whitespace replaced by one space."""
    return " ".join(message.split())
