"""Writing files so that nobody ever sees half of one."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
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
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise OutputError(f"cannot write {target}: it is a folder. Name a file in it.")
        handle, name = tempfile.mkstemp(
            prefix=f".{target.stem[:32]}-", suffix=target.suffix, dir=target.parent
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # mkstemp makes files that only the owner may read; a result should be as readable as any other.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}. "
            "Choose a folder that can be written and a disk with room."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    # There is no call that only reads the mask.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
