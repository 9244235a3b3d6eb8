"""Memory that loading a model leaves behind."""

import ctypes
import sys

# Only glibc has it.
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def return_unused() -> None:
    """Give memory that was freed back to the system.

    ONNX Runtime and OpenVINO free some 80 MB of copies while they load pixelclip-lite. glibc would keep it
    for the process. It takes 5 ms.
    """
    if _trim is not None:
        _trim(0)
