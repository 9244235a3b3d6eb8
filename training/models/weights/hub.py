"""Files of a hub repository, fetched once, and their content checked every time.

`huggingface_hub` does the work: progress bar, cache (``HF_HOME``), mirror (``HF_ENDPOINT``), offline mode
(``HF_HUB_OFFLINE``), access token (``HF_TOKEN``); it reads these variables when it is first imported. When
the connection breaks it goes on where it stopped, and `resume.py` does after a run that was ended; a file
appears in the cache whole or not at all. It does not compare the content with the hash that the hub
announces, so that is done here.
"""

from __future__ import annotations

import errno
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from pixelclip_sdk.errors import CheckpointError
from pixelclip_sdk.support.files import sha256 as sha256_of
from training.models.weights.resume import download

__all__ = ["HubFile", "fetch"]

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


@dataclass(frozen=True)
class HubFile:
    """A file on this machine, and where it came from.

    Attributes:
        path: The file in the cache. Read it, never write to it.
        repository: `OWNER/NAME` on the hub.
        revision: The commit that the file was read at, 40 hex digits.
        file: Its path in the repository.
        sha256: Of its content, 64 hex digits.
    """

    path: Path
    repository: str
    revision: str
    file: str
    sha256: str


def fetch(
    repository: str,
    *files: str,
    revision: str = "main",
    sha256: str | None = None,
    offline: bool = False,
) -> HubFile:
    """Gets a file from the hub, or from the cache when it is there already.

    Args:
        repository: `OWNER/NAME`.
        *files: Paths in the repository; the first that exists is taken.
        revision: A branch, tag or commit.
        sha256: What the content must hash to, 64 hex digits, where it is known.
        offline: Only look into the cache; the same as ``HF_HUB_OFFLINE=1``.

    Raises:
        CheckpointError: There is no such repository or file, it needs a login, the hub cannot be reached
            and the cache has no copy, the disk is full, or the content is not what was announced; in the
            last case the copy is deleted.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    offline = offline or constants.HF_HUB_OFFLINE
    missing: Exception | None = None
    for file in files:
        # Without a connection the hub is asked once, with all the retries that takes, not once a file.
        unreachable = isinstance(missing, LocalEntryNotFoundError)
        try:
            if not (offline or unreachable):
                download(repository, file, revision)
            path = hf_hub_download(
                repository, file, revision=revision, local_files_only=offline or unreachable
            )
            return _checked(Path(path), repository, file, sha256, offline)
        except EntryNotFoundError as error:
            missing = missing if unreachable else error  # the first says why it is
        except CheckpointError:
            raise
        except Exception as error:  # of the network, the disk, the server, …
            raise CheckpointError(_explained(error, repository, file, revision, offline)) from error
    if missing is None:
        raise CheckpointError(f"no file of {repository} was named; name at least one")
    names = " or ".join(files)
    raise CheckpointError(_explained(missing, repository, names, revision, offline)) from missing


def _checked(path: Path, repository: str, file: str, wanted: str | None, offline: bool) -> HubFile:
    """Compares the content with the hash that the hub announced, and with the caller's."""
    # Every time, not only after a download: it takes a second or two for 600 MB, and disks fail too.
    found = sha256_of(path)
    commit = path.parents[file.count("/")].name  # …/snapshots/COMMIT/FILE
    wanted = wanted.lower() if wanted is not None else None
    announced = _announced(path, repository, file, commit, offline) or wanted
    if announced is None:
        raise CheckpointError(
            f"nothing says what {file} of {repository} should hash to: the server gave no SHA-256 with it, "
            f"or this cache does not keep it. The copy has {found}; pass that as sha256 if you trust it."
        )
    if announced != (found if len(announced) == 64 else _git_sha1(path)):
        _remove(path)
        raise CheckpointError(
            f"{file} of {repository} is damaged: its hash should be {announced}, the content has another "
            f"(SHA-256 {found}). The copy was deleted; run again to download it anew. If that does not help, "
            "the mirror (HF_ENDPOINT) or a proxy changes the file."
        )
    if wanted not in (None, found):
        raise CheckpointError(
            f"{file} of {repository} at {commit} has the SHA-256 {found}, expected {wanted}. It is whole, so "
            "it is another version: name the commit that has yours as the revision."
        )
    return HubFile(path=path, repository=repository, revision=commit, file=file, sha256=found)


def _announced(path: Path, repository: str, file: str, commit: str, offline: bool) -> str | None:
    """The hash that the hub gave for a file: SHA-256 of large files, git's SHA-1 of small ones."""
    if path.is_symlink():
        etag: str | None = path.readlink().name  # the cache names contents by it
    elif offline:
        return None
    else:  # a file system without links
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        etag = get_hf_file_metadata(hf_hub_url(repository, file, revision=commit)).etag
    return etag if etag and re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", etag) else None


def _git_sha1(path: Path) -> str:
    """Git's name of a content."""
    content = path.read_bytes()
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def _remove(path: Path) -> None:
    """Deletes a cached file with all links that lead to it; else the next download would find it again."""
    chain = [path]
    while chain[-1].is_symlink():
        chain.append(chain[-1].parent / chain[-1].readlink())
    for entry in chain:
        entry.unlink(missing_ok=True)


def _explained(error: Exception, repository: str, file: str, revision: str, offline: bool) -> str:
    """What went wrong and what to do, for any error of `hf_hub_download`."""
    from huggingface_hub import constants, errors

    what = f"{file} of {repository}"
    if isinstance(error, errors.HFValidationError):
        return f"{repository!r} is no repository of the hub; expected OWNER/NAME"
    if isinstance(error, errors.LocalEntryNotFoundError) and offline:
        return (
            f"{what} at revision {revision} is not in the cache {constants.HF_HUB_CACHE}, and offline mode "
            "is on. Run once with a connection, or copy the cache from a machine that has it."
        )
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # why the hub could not be asked
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    login = "log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{what} is only given to those who asked for it: accept its terms on {constants.ENDPOINT}/"
            f"{repository}, then {login}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{constants.ENDPOINT} has no repository {repository}, or it is private (HTTP {status}). "
            f"Check the name; if it is private, {login}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision {revision!r}; expected a branch, a tag or a commit of it"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return (
            f"{repository} has no file {file} at revision {revision}. See {constants.ENDPOINT}/{repository}"
        )
    if status in (401, 403):
        return (
            f"{constants.ENDPOINT} refuses {what} (HTTP {status}): {login}, with an account that may read it"
        )
    if isinstance(error, OSError) and error.errno in _DISK:
        return (
            f"{what} cannot be kept in the cache {constants.HF_HUB_CACHE}: {error.strerror}. Make room, or "
            "name another folder with HF_HOME."
        )
    reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return (
        f"cannot fetch {what} from {constants.ENDPOINT} ({reason}), and the cache has no copy. Check the "
        "connection and run again; HF_ENDPOINT names a mirror. Or download the file by hand and pass it "
        "with --checkpoint."
    )
