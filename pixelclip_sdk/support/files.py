"""Writing files so that nobody ever sees half of one."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator, Set
from pathlib import Path

from pixelclip_sdk.errors import OutputError

_CHUNK = 1 << 20


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 lower-case hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether it is a file. What cannot be looked at is none: no permission, a name that is too long."""
    return os.path.isfile(path)  # noqa: PTH113 (Path.is_file raises there)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether it is a folder; see `is_file`."""
    return os.path.isdir(path)  # noqa: PTH112


def same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether both are there and the same file or folder."""
    try:
        return Path(one).samefile(other)
    except OSError:
        return False


def set_aside(folder: Path) -> Path:
    """Where a folder waits while another takes its place in two steps: beside it, hidden."""
    return folder.with_name(f".{folder.name}.old")


def restore(folder: Path, mark: str) -> None:
    """Bring a folder back that was set aside by a process that died before the new one was there.

    Args:
        folder: The folder; nothing happens while it exists.
        mark: A file that tells that what was set aside is whole.
    """
    with contextlib.suppress(OSError):  # Cannot be read or written, or another process was first.
        if folder.name and not folder.exists() and (set_aside(folder) / mark).is_file():
            set_aside(folder).rename(folder)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path` in one step.

    Every writer has a temporary file of its own, so two processes that write the same path cannot mix
    their bytes: the last to finish wins with a whole file. If the body raises, `path` stays as it was
    and nothing is left behind.

    Args:
        path: The file to write. Its folder is made when it does not exist.

    Yields:
        A new, empty file with the suffix of `path`.

    Raises:
        OutputError: The folder or the file cannot be written, or the disk is full.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem[:32]}-{secrets.token_hex(8)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise OutputError(f"cannot write {target}: it is a folder. Name a file in it.")
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(target)
    except BrokenPipeError:  # Of what was printed meanwhile: no file has that.
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}. "
            "Choose a folder that can be written and a disk with room."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def files_below(folder: Path, suffixes: Set[str]) -> Iterator[Path]:
    """Files in a folder, at any depth, without hidden ones. Links to folders are followed, each folder once.

    Args:
        folder: Where to look; a folder that does not exist has none.
        suffixes: Lower case, with the dot: ``{".npz"}``.
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
