"""Removal of credentials from addresses before they appear in messages and logs."""

import re

__all__ = ["redact"]

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(?P<port>:\d+)?", re.IGNORECASE)


def redact(address: str) -> str:
    """Remove credentials from an address.

    Removes the user and password, everything from the first ``?``, ``#`` or ``;`` on, the values of
    ``key=value`` pairs in the path, and the stream key of an RTMP address. Text without ``://`` is returned
    unchanged. A password may contain unescaped ``@``, ``/``, ``?`` or ``#``.

    Example:
        >>> redact("rtsp://me:secret@camera.local:554/live?token=abc")
        'rtsp://camera.local:554/live?…'
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    rest = _without_user(rest)
    path, mark = re.match(r"([^?#;]*)([?#;]?)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    path = re.sub(r"=[^/&]*", "=…", path)
    if scheme.lower().startswith("rtmp"):
        host, *names = path.split("/")
        path = "/".join([host, *names[:1], *(["…"] if len(names) > 1 else [])])
    return f"{scheme}://{path}{mark}{'…' if mark else ''}"


def _without_user(rest: str) -> str:
    """Remove ``user:password@``. Prefers losing part of the path to leaving part of a password."""
    host = _HOST.fullmatch(re.split(r"[/?#;]", rest, maxsplit=1)[0])
    if host is None:
        return rest.rpartition("@")[2]
    # "me:12/34@host" looks like a host with a port, followed by a path.
    if host["port"] and "@" in re.split(r"[?#;]", rest, maxsplit=1)[0]:
        return rest.rpartition("@")[2]
    return rest
