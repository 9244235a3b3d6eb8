"""Removal of credentials from addresses before they appear in messages and logs."""

import re

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(?P<port>:\d+)?", re.IGNORECASE)


def redact(address: str) -> str:
    """Remove credentials from an address.

    Removes the user and password, everything from the first ``?``, ``#`` or ``;`` on, the values of
    ``key=value`` pairs in the path, and the stream key of an RTMP address. Text without ``://`` is returned
    unchanged. A password may contain unescaped ``@``, ``/``, ``?`` or ``#``.

    Examples:
        >>> redact("rtsp://me:secret@camera.local:554/live?token=abc")
        'rtsp://camera.local:554/live?…'
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    path, mark, _ = _split(rest)
    server = _HOST.fullmatch(path.partition("/")[0])
    # "me:12/34@host" looks like a host with a port, followed by a path. Losing part of a path is better than
    # leaving part of a password.
    if server is None or (server["port"] and "@" in path):
        path, mark, _ = _split(rest.rpartition("@")[2])
    path = re.sub(r"=[^/&]*", "=…", path)
    if scheme.lower().startswith("rtmp"):
        host, *names = path.split("/")
        path = "/".join([host, *names[:1], *(["…"] if len(names) > 1 else [])])
    return f"{scheme}://{path}{mark}{'…' if mark else ''}"


def _split(rest: str) -> list[str]:
    """The parts before, at and after the first ``?``, ``#`` or ``;``."""
    return re.split(r"([?#;]|\Z)", rest, maxsplit=1)
