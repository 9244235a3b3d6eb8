"""A folder that is there whole or not at all."""

import contextlib
import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pixelclip_sdk import PixelClipError
from pixelclip_sdk.bundle import MANIFEST
from pixelclip_sdk.support.files import restore, set_aside

__all__ = ["check_target", "staged_folder"]

# Of Linux' renameat2: paths are relative to the working directory; both names change places.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; on success it takes the place of `target`, whole.

    If the body raises or is interrupted, `target` stays as it was and nothing is left behind. On Linux the
    two folders change places in one step. Where that cannot be, the old one is set aside for a moment; if
    the process is killed in that moment, opening the bundle or exporting again brings it back.
    """
    target = target.resolve()
    restore(target, MANIFEST)
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        yield fresh
        if not target.exists():
            fresh.rename(target)
        elif not _exchange(fresh, target):
            _replace(fresh, target)


def check_target(target: Path) -> None:
    """Check that a bundle may be put there.

    Raises:
        PixelClipError: Something else is there.
    """
    bundle, empty = (target / MANIFEST).is_file(), target.is_dir() and not any(target.iterdir())
    if target.exists() and not bundle and not empty:
        raise PixelClipError(f"{target} exists and is no bundle; choose another place, or remove it")


def _exchange(fresh: Path, target: Path) -> bool:
    """Let two folders change places in one step; False if the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    paths = os.fsencode(fresh), os.fsencode(target)
    return renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0


def _replace(fresh: Path, target: Path) -> None:
    """Put `fresh` in the place of `target` in two steps, the old one set aside between them."""
    old = set_aside(target)
    _remove(old)
    try:
        target.rename(old)
        fresh.rename(target)
    finally:
        if target.exists():
            _remove(old)
        else:
            old.rename(target)


def _remove(folder: Path) -> None:
    """Remove a bundle, its manifest first: what is left if this is interrupted is none, and not restored."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
