"""What a server serves, and its limits."""

import dataclasses
from collections.abc import Mapping

__all__ = ["LabelStudio", "Limits", "ServeConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What one client may ask for. Beyond it, it gets an answer that says so.

    Attributes:
        body_bytes: Bytes of a request.
        message_bytes: Bytes of a message of a live connection: a frame, not a photo at full size.
        buffered_bytes: Bytes of all requests that are being received or wait.
        pixels: Pixels of all images of a request.
        images: Images of a request.
        words: Names and synonyms of a vocabulary.
        workers: Requests that are computed at the same time.
        waiting: Requests that wait for a worker.
        deadline_s: Seconds until a request must be answered.
        head_s: Seconds for the head of a request.
        head_bytes: Bytes of the head of a request.
        body_s: Seconds for the body of a request.
        idle_s: Seconds until an idle connection is closed. Gateways keep one for about 60 s, and a request
            that meets the end of its connection is lost.
        connections: Open connections.
        viewers: Live connections.
        messages_per_s: Messages of a live connection.
        vocabularies: Vocabularies that are kept for their ids.
    """

    body_bytes: int = 32 << 20
    message_bytes: int = 4 << 20
    buffered_bytes: int = 256 << 20
    pixels: int = 25_000_000
    images: int = 16
    words: int = 1000
    workers: int = 4
    waiting: int = 32
    deadline_s: float = 10.0
    head_s: float = 10.0
    head_bytes: int = 64 << 10
    body_s: float = 30.0
    idle_s: int = 75
    connections: int = 512
    viewers: int = 256
    messages_per_s: float = 240.0
    vocabularies: int = 128


@dataclasses.dataclass(frozen=True)
class LabelStudio:
    """The Label Studio whose files the server may fetch.

    Attributes:
        url: Its address without a slash at the end, such as ``http://localhost:8080``.
        key: A token of one of its users, "personal access token" or "legacy token"; empty for none.
    """

    url: str
    key: str = dataclasses.field(default="", repr=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """What to serve, and where.

    Attributes:
        sources: Name → address of cameras and videos of the server, which the live page offers.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        token: What clients must send as ``Authorization: Bearer …``; None for no token.
        limits: What one client may ask for.
        label_studio: Where pictures of tasks may be fetched; None for nowhere.
    """

    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    limits: Limits = Limits()
    label_studio: LabelStudio | None = None
