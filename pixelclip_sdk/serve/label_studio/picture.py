"""The picture of a task. Only `data:` addresses, and files of the Label Studio that the operator named."""

import base64
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from pixelclip_sdk.serve.config import LabelStudio
from pixelclip_sdk.serve.errors import ServeError

__all__ = ["picture_of"]

# Where Label Studio serves uploaded and local files.
_FOLDER = "/data/"
_TIMEOUT_S = 5.0
_SHOWN = 100


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could lead to any address, with the key of Label Studio."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


# Without proxies: a proxy of the environment would get the key.
_OPENER = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


def picture_of(address: object, studio: LabelStudio | None, most: int) -> bytes:
    """Return the image file that a task names. Runs in a worker thread.

    Args:
        address: What the client sent: ``data:image/png;base64,…``, ``/data/upload/1/cat.jpg``, or that path
            with the address of Label Studio before it.
        studio: The Label Studio whose files may be fetched; None for none.
        most: Largest number of bytes.

    Raises:
        ServeError: 422 for another address, or because the file cannot be fetched; 413 for a larger file.
    """
    if not isinstance(address, str):
        raise ServeError(422, f"the picture of a task is {type(address).__name__}; expected its address")
    if address.startswith("data:"):
        return _decoded(address, most)
    path = None if studio is None else _path_in(address, studio.url)
    if studio is None or path is None:
        fetched = "no files are fetched" if studio is None else f"only {studio.url}{_FOLDER}… is fetched"
        raise ServeError(
            422,
            f"the picture is at {address[:_SHOWN]!r}; on this server {fetched}. Send a data: address, or "
            "start the server with --label-studio URL",
        )
    headers = {"Authorization": f"Token {studio.key}"} if studio.key else {}
    request = urllib.request.Request(studio.url + path, headers=headers)
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_S) as answer:
            data: bytes = answer.read(most + 1)
    except urllib.error.HTTPError as error:
        raise ServeError(422, f"Label Studio answered {error.code} for {path[:_SHOWN]!r}") from None
    except (OSError, HTTPException, ValueError):
        raise ServeError(422, f"Label Studio did not send {path[:_SHOWN]!r}") from None
    return _within(data, most)


def _path_in(address: str, url: str) -> str | None:
    """The path of an address in Label Studio; None if it is not one of its files."""
    rest = address.removeprefix(url)
    try:
        parts = urlsplit(rest)
    except ValueError:
        return None
    plain = unquote(parts.path)
    if not rest.startswith(_FOLDER) or parts.scheme or parts.netloc or ".." in plain.split("/"):
        return None
    return rest if rest.isascii() and rest.isprintable() and " " not in rest and "\\" not in plain else None


def _decoded(address: str, most: int) -> bytes:
    head, comma, content = address.partition(",")
    try:
        if not comma:
            raise ValueError
        data = (
            base64.b64decode(content, validate=True)
            if head.endswith(";base64")
            else unquote_to_bytes(content)
        )
    except ValueError:
        raise ServeError(422, "the data: address of a picture cannot be decoded") from None
    return _within(data, most)


def _within(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise ServeError(413, f"the picture has more than {most} bytes, the limit; use a smaller one")
    return data
