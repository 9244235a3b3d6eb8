"""Downloads that go on where they stopped, also when the process was ended.

huggingface_hub goes on after a broken connection, but what an ended process had is of no use to the next: it
writes to a file of a new name each time. So a large file is fetched here, with its own function, into a file
that is named by the SHA-256 which the hub announces; whole, it takes the place in the cache where
huggingface_hub looks for it.
"""

from __future__ import annotations

import contextlib
import errno
import re
from pathlib import Path
from urllib.parse import urlparse

__all__ = ["download"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def download(repository: str, file: str, revision: str) -> None:
    """Bring a large file's content into the hub's cache; nothing happens if it is there.

    Small files, and what the hub does not tell about, are left to huggingface_hub, which then says what is
    wrong. The content is not compared with its hash here.

    Args:
        repository: `OWNER/NAME`.
        file: Path in the repository.
        revision: A branch, tag or commit.

    Raises:
        OSError: The disk cannot be written, or is full; then what arrived is removed.
        Exception: What huggingface_hub raises if the connection fails for good. What arrived stays.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    url = hf_hub_url(repository, file, revision=revision)
    meta = None
    with contextlib.suppress(Exception):  # hf_hub_download asks again, and explains or does without.
        meta = get_hf_file_metadata(url)
    if meta is None or meta.size is None or not re.fullmatch("[0-9a-f]{64}", meta.etag or ""):
        return
    cache, folder = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=repository, repo_type="model")
    blob = cache / folder / "blobs" / meta.etag
    part, lock = blob.with_name(f"{meta.etag}.part"), cache / ".locks" / folder / f"{meta.etag}.part.lock"
    if blob.exists():
        return
    for place in (part, lock):
        place.parent.mkdir(parents=True, exist_ok=True)
    headers = build_hf_headers()
    if urlparse(meta.location).netloc != urlparse(url).netloc:
        headers.pop("authorization", None)  # It is for the hub alone.
    with WeakFileLock(lock):
        if blob.exists():  # Another process was first.
            return
        if part.exists() and part.stat().st_size > meta.size:
            part.unlink()  # Nothing that we wrote.
        try:
            with part.open("ab") as stream:
                start = stream.tell()
                http_get(meta.location, stream, resume_size=start, headers=headers, expected_size=meta.size)
        except OSError as error:
            if error.errno in _FULL:
                part.unlink(missing_ok=True)  # The disk is not left full.
            raise
        part.replace(blob)
