"""The kernels of `pixelclip_sdk/device/kernels.cu`, compiled for this machine's processor.

It is the same source that runs on a GPU. A C++ compiler must not fuse products and sums either.
"""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from pixelclip_sdk.device.compiler import SOURCES


def compiler() -> str | None:
    """The path of a C++ compiler, or None."""
    return shutil.which("g++") or shutil.which("clang++")


@functools.cache
def _library() -> ctypes.CDLL:
    command = compiler()
    assert command is not None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "kernels.so"
        subprocess.run(
            [
                *(command, "-x", "c++", "-std=c++17", "-O2", "-shared", "-fPIC", "-ffp-contract=off"),
                *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
                *(f"-include{one}" for one in [Path(__file__).with_name("host.h"), *SOURCES]),
                *(str(Path(__file__).with_name("launch.h")), "-o", str(library)),
            ],
            check=True,
        )
        return ctypes.CDLL(str(library))


def launch(name: str, grid: tuple[int, int], block: tuple[int, int], values: tuple, types: tuple) -> None:
    """Run a kernel as ``cuLaunchKernel`` does: the arguments with their ctypes types; None is a pointer."""
    kept = [(kind or ctypes.c_void_p)(value) for value, kind in zip(values, types, strict=True)]
    pointers = (ctypes.c_void_p * len(kept))(*(ctypes.addressof(value) for value in kept))
    assert _library().launch_by_name(name.encode(), *grid, *block, pointers) == 0, name
