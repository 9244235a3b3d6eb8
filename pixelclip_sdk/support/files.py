"""Write files so that readers see the old content or the new, and a power cut loses neither."""

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator, Set
from pathlib import Path

from pixelclip_sdk.errors import OutputError

# A file name has at most 255 bytes on common file systems; a character has up to 4 bytes.
_TEMPORARY_STEM, _TEMPORARY_SUFFIX = 32, 16


def sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 lower-case hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that a user gave, with ``~`` expanded if there is such a home folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path.expanduser raises there)


def cache_folder() -> Path | None:
    """The user's folder of bundles, absolute: ``$PIXELCLIP_HOME``, or ``~/.cache/pixelclip``.

    None if the variable is not set and the user has no home folder, as some services.
    """
    if chosen := os.environ.get("PIXELCLIP_HOME"):
        return Path(os.path.abspath(user_path(chosen)))  # noqa: PTH100 (Path.absolute keeps "..")
    home = user_path("~")
    return home / ".cache" / "pixelclip" if home.is_absolute() else None


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a file. False also if it cannot be read: no permission, or the name is too long."""
    return os.path.isfile(path)  # noqa: PTH113 (Path.is_file raises there)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a folder; see `is_file`."""
    return os.path.isdir(path)  # noqa: PTH112


def same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether both paths exist and lead to the same file or folder."""
    try:
        return Path(one).samefile(other)
    except OSError:
        return False


def set_aside(folder: Path) -> Path:
    """The hidden path beside `folder` that an export moves the old bundle to while it replaces it."""
    return folder.with_name(f".{folder.name}.old")


def fsync_file(path: Path) -> None:
    """Flush a file's content to the disk, so that it survives a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that new and renamed files in it survive a power cut.

    Does nothing where the system cannot do it, as on Windows and on some network file systems.
    """
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path` in one step.

    The content is on the disk before it replaces `path`, so a power cut leaves the old file or the new one.
    If `path` is a link, the file that it leads to is replaced and the link stays. The permissions of an
    existing file are kept. Missing folders are created. Two processes may write the same path: the last to
    finish wins with a whole file. If the body raises, `path` is unchanged and the temporary file is removed.

    Yields:
        A new, empty file with the suffix of `path`.

    Raises:
        OutputError: The folder or the file cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    suffix = Path(path).suffix[:_TEMPORARY_SUFFIX]
    temporary = target.with_name(f".{target.stem[:_TEMPORARY_STEM]}-{secrets.token_hex(8)}{suffix}")
    try:
        _make_folder(target.parent)
        mode = _mode_of(target)
        temporary.touch(exist_ok=False)
        if mode is not None:  # Before the content is there: it may be private.
            temporary.chmod(mode | stat.S_IWUSR)
        yield temporary
        fsync_file(temporary)
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(target)
        fsync_folder(target.parent)
    except BrokenPipeError:  # A closed stdout; writing a file never raises it.
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. "
            "Choose a folder that can be written and a disk with free space."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Create a folder with its parents, and flush the entry of each new one to the disk."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        fsync_folder(place.parent)


def _mode_of(file: Path) -> int | None:
    """The permission bits of an existing file, or None. Refuses anything else: it must not be replaced."""
    if not file.exists():
        return None
    if not file.is_file():
        kind = "folder" if file.is_dir() else "device or a pipe"
        raise OutputError(f"cannot write {file}: it is a {kind}. Name a regular file.")
    return stat.S_IMODE(file.stat().st_mode)


def files_below(folder: Path, suffixes: Set[str]) -> Iterator[Path]:
    """Yield the files in a folder and the folders below it, without hidden ones.

    Links to folders are followed; each folder is visited once. A folder that does not exist has no files.
    Suffixes are lower case, with the dot: ``{".npz"}``.
    """
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield Path(place, name)
