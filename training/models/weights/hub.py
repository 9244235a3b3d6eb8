"""Downloads files from a Hugging Face repository once, and checks their content at every use.

`huggingface_hub` downloads; it reads its variables (``HF_HOME``, ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``,
``HF_TOKEN``) when it is first imported. `resume.py` continues downloads of processes that were ended. This
module compares the content with the hash that the hub announces, which `huggingface_hub` does not. Where
neither the hash nor the commit is pinned, it records the hash of the first download in `FIRST_USE` beside the
cached files, and refuses another one later.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from pixelclip_sdk.errors import CheckpointError, OutputError
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.support.files import sha256 as sha256_of
from pixelclip_sdk.support.json_files import read_json
from training.models.weights.resume import download

__all__ = ["FIRST_USE", "HubFile", "fetch"]

FIRST_USE = "first-use.json"
"""File in a repository's cache folder: ``"REVISION FILE"`` → SHA-256 and commit of the first download."""

_log = logging.getLogger(__name__)
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_COMMIT, _SHA256 = "[0-9a-f]{40}", "[0-9a-f]{64}"
# Seconds to wait for the hub's first answer. huggingface_hub alone would retry for half a minute.
_TIMEOUT_S = 10


@dataclass(frozen=True)
class HubFile:
    """A downloaded file in the cache (do not write to it) and its origin."""

    path: Path
    repository: str  # OWNER/NAME on the hub
    revision: str  # commit, 40 hex digits
    file: str  # path in the repository
    sha256: str  # 64 hex digits


def fetch(
    repository: str,
    *files: str,
    revision: str | None = None,
    sha256: str | None = None,
    offline: bool = False,
) -> HubFile:
    """Returns a file of the hub from the cache; downloads it first if it is not there.

    Args:
        repository: `OWNER/NAME`.
        *files: Paths in the repository; the first that exists is used.
        revision: A branch, tag or commit; None for ``"main"``.
        sha256: Expected SHA-256 of the content, 64 hex digits, if it is known.
        offline: Use the cache only, as with ``HF_HUB_OFFLINE=1``.

    Raises:
        CheckpointError: The repository or file does not exist, needs a login, or cannot be downloaded and is
            not in the cache; the disk is full; or the content does not have the expected hash. A damaged
            copy is deleted.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    revision = revision or "main"
    offline = offline or constants.HF_HUB_OFFLINE
    problem = None if offline else _connection_error()
    local = offline or problem is not None
    missing: Exception | None = None
    for file in files:
        try:
            if not local:
                download(repository, file, revision)
            path = Path(hf_hub_download(repository, file, revision=revision, local_files_only=local))
            return _checked(path, repository, file, revision, sha256, offline=local)
        except EntryNotFoundError as error:
            missing = missing or error
            local = local or isinstance(error, LocalEntryNotFoundError)  # The connection was lost meanwhile.
        except CheckpointError:
            raise
        except HFValidationError as error:
            raise CheckpointError(
                f"{repository!r} is not a repository of the hub; expected OWNER/NAME"
            ) from error
        except Exception as error:  # Of the network, the disk or the server.
            raise CheckpointError(_explained(error, repository, file, revision)) from error
    if missing is None:
        raise CheckpointError(f"no file of {repository} was named; name at least one")
    names = " or ".join(files)
    if offline:
        raise CheckpointError(
            f"{names} of {repository} at revision {revision} is not in the cache {constants.HF_HUB_CACHE}, "
            "and offline mode is on. Run once with a connection, or copy the cache of another machine."
        ) from missing
    cause = problem or missing
    raise CheckpointError(_explained(cause, repository, names, revision)) from cause


def _connection_error() -> Exception | None:
    """Returns the reason why the hub cannot be reached, or None. Any answer counts as reached."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_TIMEOUT_S)
    except Exception as error:  # httpx has several kinds.
        return error
    return None


def _checked(
    path: Path, repository: str, file: str, revision: str, wanted: str | None, *, offline: bool
) -> HubFile:
    """Compares the content with the hash that the hub announced, the caller's, and that of the first use."""
    # At every use, not only after a download: disks fail too. It takes a second or two for 600 MB.
    found = sha256_of(path)
    commit = path.parents[file.count("/")].name  # …/snapshots/COMMIT/FILE
    wanted = wanted.lower() if wanted is not None else None
    announced = _announced(path, repository, file, commit, offline=offline) or wanted
    if announced is None:
        raise CheckpointError(
            f"the hash of {file} of {repository} is not known: the server sent no SHA-256, or this cache "
            f"does not keep it. The copy has {found}; pass that as sha256 if you trust it."
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
            f"{file} of {repository} at {commit} has the SHA-256 {found}, expected {wanted}. The file is not "
            "damaged, so it is another version: name the commit of the expected one as the revision."
        )
    result = HubFile(path=path, repository=repository, revision=commit, file=file, sha256=found)
    if wanted is None and not re.fullmatch(_COMMIT, revision):
        _check_first_use(result, revision)
    return result


def _check_first_use(file: HubFile, revision: str) -> None:
    """Records the hash of the first download of a file that nothing pins; refuses a different one later."""
    record = file.path.parents[file.file.count("/") + 2] / FIRST_USE  # …/snapshots/COMMIT/FILE
    key = f"{revision} {file.file}"
    try:
        known = read_json(record) if record.exists() else {}
        if not isinstance(known, dict) or not all(
            isinstance(first, dict) and {"sha256", "commit"} <= first.keys() for first in known.values()
        ):
            raise ValueError("it does not have a hash and a commit for each file")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{record} cannot be read: {error}. Remove it to trust new downloads."
        ) from error
    if key not in known:
        known[key] = {"sha256": file.sha256, "commit": file.revision}
        try:
            with atomic_write(record) as temporary:
                temporary.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        except OutputError as error:
            _log.warning("the hash of %s is not recorded: %s", file.file, error)
    elif known[key]["sha256"] != file.sha256:
        raise CheckpointError(
            f"{file.file} of {file.repository} is not the file of the first download: its SHA-256 was "
            f"{known[key]['sha256']} (commit {known[key]['commit']}), now it is {file.sha256} (commit "
            f"{file.revision}). Somebody replaced it. If you trust the new file, remove {record}."
        )


def _announced(path: Path, repository: str, file: str, commit: str, *, offline: bool) -> str | None:
    """Returns the hash that the hub gave for a file: SHA-256 of large files, git's SHA-1 of small ones."""
    if path.is_symlink():
        etag: str | None = path.readlink().name  # The cache names contents by it.
    elif offline:
        return None
    else:  # A file system without links.
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        etag = get_hf_file_metadata(hf_hub_url(repository, file, revision=commit)).etag
    return etag if etag and re.fullmatch(f"{_COMMIT}|{_SHA256}", etag) else None


def _git_sha1(path: Path) -> str:
    """Returns the hash by which git names a content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _remove(path: Path) -> None:
    """Deletes a cached file and the content that it links to, so that the next download does not find it."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _explained(error: Exception, repository: str, file: str, revision: str) -> str:
    """Returns the cause and the remedy of an error of `hf_hub_download` or the connection."""
    from huggingface_hub import constants, errors

    hub, name = constants.ENDPOINT, f"{file} of {repository}"
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # The reason why the hub could not be asked.
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    login = "log in with `hf auth login` or set HF_TOKEN"
    known = {
        errors.GatedRepoError: f"access to {name} must be requested: accept its terms on "
        f"{hub}/{repository}, then {login}",
        errors.RepositoryNotFoundError: f"{hub} has no repository {repository}, or it is private "
        f"(HTTP {status}). Check the name; if it is private, {login}.",
        errors.RevisionNotFoundError: f"{repository} has no revision {revision!r}; expected one of its "
        "branches, tags or commits",
        errors.RemoteEntryNotFoundError: f"{repository} has no file {file} at revision {revision}. See "
        f"{hub}/{repository}",
    }
    for kind, message in known.items():  # GatedRepoError first: it is a RepositoryNotFoundError
        if isinstance(error, kind):
            return message
    if status in (401, 403):
        return f"{hub} refuses {name} (HTTP {status}): {login}, with an account that may read it"
    if isinstance(error, OSError) and error.errno in _DISK:
        return (
            f"{name} cannot be kept in the cache {constants.HF_HUB_CACHE}: {error.strerror}. Free some "
            "space, or name another folder with HF_HOME."
        )
    reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    address = f"{hub}/{repository}/resolve/{revision}/{file.partition(' ')[0]}"
    return (
        f"cannot download {name} from {hub} ({reason}), and it is not in the cache. Check the connection and "
        f"run again; HF_ENDPOINT names a mirror. Or download {address} elsewhere and pass the file: "
        "--checkpoint FILE (train.py: checkpoint=FILE)."
    )
