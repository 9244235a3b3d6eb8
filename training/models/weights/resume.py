"""Continues downloads of processes that were ended.

huggingface_hub continues after a broken connection, but each process writes to a file of a new name. Here a
large file is downloaded into a file that is named after its SHA-256, and moved to the place in the cache
where huggingface_hub looks for it.
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
    """Downloads a large file into the hub's cache if it is not there yet.

    Small files, and files for which the hub does not answer, are left to huggingface_hub, which then raises.
    The content is not compared with its hash here.

    Raises:
        OSError: The disk cannot be written or is full; if it is full, the partial file is removed.
        Exception: Any error of huggingface_hub if the connection fails. The partial file stays.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    url = hf_hub_url(repository, file, revision=revision)
    meta = None
    with contextlib.suppress(Exception):  # hf_hub_download asks again, and raises or uses the cache.
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
        headers.pop("authorization", None)  # The token is for the hub only.
    with WeakFileLock(lock):
        if blob.exists():  # Another process has downloaded it.
            return
        if part.exists() and part.stat().st_size > meta.size:
            part.unlink()  # Not written by this function.
        try:
            with part.open("ab") as stream:
                start = stream.tell()
                http_get(meta.location, stream, resume_size=start, headers=headers, expected_size=meta.size)
        except OSError as error:
            if error.errno in _FULL:
                part.unlink(missing_ok=True)  # Do not leave the disk full.
            raise
        part.replace(blob)
