"""The picture of a task. Only `data:` addresses, and files of the Label Studio that the operator named."""

import base64
import json
import re
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from pixelclip_sdk.serve.config import LabelStudio
from pixelclip_sdk.serve.errors import ServeError

__all__ = ["Files", "picture_of"]

# Where Label Studio serves uploaded and local files.
_FOLDER = "/data/"
_RENEW = "/api/token/refresh/"
_KEY = "LABEL_STUDIO_API_KEY"
# Bytes of an answer with a token.
_LONGEST = 1 << 16
_TIMEOUT_S = 5.0
_SHOWN = 100


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could lead to any address, with the key of Label Studio."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


# Without proxies: a proxy of the environment would get the key.
_OPENER = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


class Files:
    """The files of one Label Studio.

    Its "legacy token" is sent as it is. A "personal access token", a JWT, is first exchanged for one that is
    valid for some minutes.
    """

    def __init__(self, studio: LabelStudio) -> None:
        self.url = studio.url
        self._key = studio.key
        self._renewable = studio.key.count(".") == 2
        self._access = ""

    def fetch(self, path: str, most: int) -> bytes:
        """Return a file, at most one byte more than `most`. Raises ServeError 422."""
        try:
            if not self._renewable:
                return self._open(path, most, f"Token {self._key}" if self._key else "")
            if self._access:
                try:
                    return self._open(path, most, f"Bearer {self._access}")
                except urllib.error.HTTPError as error:
                    if error.code != 401:  # 401: its time is over.
                        raise
            self._access = self._renewed()
            return self._open(path, most, f"Bearer {self._access}")
        except urllib.error.HTTPError as error:
            hint = f"; check its token, {_KEY}" if error.code in (401, 403) else ""
            asked = error.url.removeprefix(self.url)[:_SHOWN]
            raise ServeError(422, f"Label Studio answered {error.code} for {asked!r}{hint}") from None
        except (OSError, HTTPException, ValueError):
            raise ServeError(422, f"Label Studio did not send {path[:_SHOWN]!r}") from None

    def _open(self, path: str, most: int, key: str, body: bytes | None = None) -> bytes:
        headers = {"Authorization": key} if key else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.url + path, body, headers)
        with _OPENER.open(request, timeout=_TIMEOUT_S) as answer:
            data: bytes = answer.read(most + 1)
        return data

    def _renewed(self) -> str:
        answer = json.loads(self._open(_RENEW, _LONGEST, "", json.dumps({"refresh": self._key}).encode()))
        access = answer.get("access") if isinstance(answer, dict) else None
        if not (isinstance(access, str) and re.fullmatch(r"[\x21-\x7e]+", access)):
            raise ValueError("no access token")
        return access


def picture_of(address: object, files: Files | None, most: int) -> bytes:
    """Return the image file that a task names. Runs in a worker thread.

    Args:
        address: What the client sent: ``data:image/png;base64,…``, ``/data/upload/1/cat.jpg``, or that path
            with the address of Label Studio before it.
        files: The files of the Label Studio from which may be fetched; None for none.
        most: Largest number of bytes.

    Raises:
        ServeError: 422 for another address, or because the file cannot be fetched; 413 for a larger file.
    """
    if not isinstance(address, str):
        raise ServeError(422, f"the picture of a task is {type(address).__name__}; expected its address")
    if address.startswith("data:"):
        return _decoded(address, most)
    path = None if files is None else _path_in(address, files.url)
    if files is None or path is None:
        hint = (
            "no files are fetched. Start it with --label-studio URL"
            if files is None
            else f"only {files.url}{_FOLDER}… is fetched. Upload the picture to Label Studio"
        )
        raise ServeError(
            422, f"the picture is at {address[:_SHOWN]!r}; on this server {hint}, or send a data: address"
        )
    return _within(files.fetch(path, most), most)


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
