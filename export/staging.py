"""Write a bundle's folder safely: one writer at a time, and the new folder replaces the old one in one step.

Beside a bundle ``NAME`` a writer may use ``.NAME.lock``, ``.NAME.new`` (the folder being written) and
``.NAME.old`` (the previous bundle). It removes them, or the next writer does.
"""

import contextlib
import ctypes
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pixelclip_sdk import OutputError, PixelClipError
from pixelclip_sdk.bundle import MANIFEST
from pixelclip_sdk.support.files import fsync_file, fsync_folder, set_aside

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["bundle_lock", "check_target", "staged_folder"]

# Arguments of Linux's renameat2: relative paths start at the working directory; swap the two names.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `target` when the block ends.

    If the block raises or is interrupted, `target` is unchanged and the new folder is removed. Linux swaps
    the folders in one step. Elsewhere the old one is renamed first; the next writer restores it if needed.
    """
    target = target.resolve()
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with bundle_lock(target):
        fresh = _beside(target, "new")
        try:
            fresh.mkdir()
            yield fresh
            _flush(fresh)
            if not target.exists():
                fresh.rename(target)
            elif not _exchange(fresh, target):
                _replace(fresh, target)
            fsync_folder(target.parent)
        finally:
            _remove(fresh)


@contextlib.contextmanager
def bundle_lock(folder: Path) -> Iterator[None]:
    """Lock a bundle's folder for writing, after other processes, and clean up after killed ones."""
    folder = folder.resolve()
    # Without write access to the parent nobody can replace the folder, only add files to it.
    file = _beside(folder, "lock") if os.access(folder.parent, os.W_OK) else folder / ".lock"
    try:
        handle = _lock(file, f"waiting for another process that writes to {folder}")
    except OSError as error:
        raise OutputError(
            f"cannot lock {folder}: {error.strerror or error}. Choose a folder that can be written."
        ) from error
    try:
        _clean_up(folder)
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows does not remove a file that another process has open.
            file.unlink()
        os.close(handle)  # The operating system also does it for a killed process.


def check_target(target: Path) -> None:
    """Raise PixelClipError if something other than a bundle or an empty folder is at this place."""
    is_bundle = (target / MANIFEST).is_file()
    is_empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and not is_bundle and not is_empty:
        raise PixelClipError(f"{target} exists and is not a bundle; choose another place, or remove it")


def _lock(file: Path, waiting: str) -> int:
    """Open and lock a file; returns its descriptor. Prints `waiting` if another process has the lock."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_lock(handle):
                print(waiting, file=sys.stderr, flush=True)
                while not _try_lock(handle):
                    time.sleep(0.1)
            # The last owner removed the file when it was done, so others may have locked a new one.
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


def _beside(folder: Path, role: str) -> Path:
    """The hidden path beside a bundle with this role: "lock" or "new"."""
    return folder.with_name(f".{folder.name}.{role}")


def _clean_up(target: Path) -> None:
    """Restore the old bundle if a killed process left none, and remove half-written folders."""
    old = set_aside(target)
    with contextlib.suppress(OSError):  # No permission: then nobody can write here.
        if target.name and not target.exists() and (old / MANIFEST).is_file():
            old.rename(target)
    _remove(old)
    _remove(_beside(target, "new"))


def _flush(folder: Path) -> None:
    """Flush a folder and everything in it to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            fsync_file(path)
        else:
            fsync_folder(path)
    fsync_folder(folder)


def _exchange(fresh: Path, target: Path) -> bool:
    """Swap two folders in one step; False if the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is None:
        return False
    paths = os.fsencode(fresh), os.fsencode(target)
    return bool(renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0)


def _replace(fresh: Path, target: Path) -> None:
    """Replace `target` with `fresh` in two renames; the old folder comes back if the second one fails."""
    old = set_aside(target)
    try:
        target.rename(old)
        fresh.rename(target)
    finally:
        if not target.exists():
            old.rename(target)
        _remove(old)


def _remove(folder: Path) -> None:
    """Remove a bundle, manifest first: a folder without one is never restored."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
