"""A lock file: one process at a time. The operating system releases the lock of a killed process."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["locked"]


@contextlib.contextmanager
def locked(file: Path, waiting: str) -> Iterator[None]:
    """Hold a lock while the block runs; the file exists only as long as a process uses it.

    Args:
        file: The lock file.
        waiting: Printed to stderr if another process has the lock.

    Raises:
        OSError: The file cannot be written.
    """
    handle = _acquire(file, waiting)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows does not remove a file that another process has open.
            file.unlink()
        os.close(handle)


def _acquire(file: Path, waiting: str) -> int:
    """Open the file and lock it; returns the open file."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_lock(handle):
                print(waiting, file=sys.stderr, flush=True)
                while not _try_lock(handle):
                    time.sleep(0.1)
            # Its last owner removed the file when it was done, so others may have locked a new one.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), file.stat()):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # The latter on Windows.
        return False
    return True
