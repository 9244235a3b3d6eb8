"""Behaviour after `os.fork()`: a child process cannot use the models of its parent, and must still end.

The threads of ONNX Runtime and the GPU contexts of CUDA exist only in the parent.
"""

import ctypes
import os
import weakref
from typing import Any

from pixelclip_sdk.errors import BackendError

_kept: weakref.WeakSet[Any] = weakref.WeakSet()


def check_process(process: int) -> None:
    """Raise BackendError unless `process`, the id of the process that loaded a model, is this process."""
    if os.getpid() != process:
        raise BackendError(
            "this model was loaded before os.fork() and cannot run in the child process. Load it in the "
            'child, or start workers with multiprocessing.get_context("spawn").'
        )


def keep_in_children(engine: object) -> None:
    """Never destroy this engine in forked children: its destructor would wait for threads of the parent."""
    _kept.add(engine)


def _keep_all() -> None:
    for engine in list(_kept):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_all)
