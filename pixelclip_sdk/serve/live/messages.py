"""The messages of a live connection: what clients send is checked, and results are written.

`docs/serve.md` describes them.
"""

import dataclasses
import json
import struct
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.serve import encode
from pixelclip_sdk.serve.errors import ServeError
from pixelclip_sdk.serve.forms import explain
from pixelclip_sdk.serve.schemas import LiveSettings, LiveShown
from pixelclip_sdk.visualize import palette
from pixelclip_sdk.words.vocabulary import Vocabulary

__all__ = [
    "ClientFrame",
    "error_message",
    "packed",
    "parse_frame",
    "parse_text",
    "result_message",
    "settings_message",
    "synonyms",
]

# Settings with as many words as any server takes.
_TEXT_CHARACTERS = 1 << 18
_FRAME_HEAD = struct.Struct(">II")
_LENGTH = struct.Struct(">I")
_BINS = 20
# Confidence is sent, and counted, for each fourth pixel of each fourth row.
_STEP = 4


@dataclasses.dataclass(frozen=True)
class ClientFrame:
    """An encoded image that a client sent.

    Attributes:
        id: The client's number of the frame.
        time_ms: The client's time of the frame.
        image: The content of an image file.
        came_at: When it came, by `time.perf_counter`.
    """

    id: int
    time_ms: int
    image: bytes
    came_at: float = dataclasses.field(default_factory=time.perf_counter)


def parse_frame(data: bytes) -> ClientFrame:
    """Read a binary message. Raises ServeError 422."""
    if len(data) <= _FRAME_HEAD.size:
        raise ServeError(
            422, f"a binary message has {len(data)} bytes; expected 4 of its id, 4 of its time, and an image"
        )
    number, time_ms = _FRAME_HEAD.unpack_from(data)
    return ClientFrame(number, time_ms, data[_FRAME_HEAD.size :])


def parse_text(text: str) -> tuple[LiveSettings | LiveShown | ServeError, int | None]:
    """Read a text message. Returns it, or what is wrong with it, and its id if it has one."""
    if len(text) > _TEXT_CHARACTERS:
        return ServeError(
            413, f"the message has {len(text)} characters; expected at most {_TEXT_CHARACTERS}"
        ), None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ServeError(422, 'the message is not JSON; expected e.g. {"type": "settings", ...}'), None
    if not isinstance(value, dict) or value.get("type") not in ("settings", "shown"):
        return ServeError(422, 'expected an object with "type": "settings" or "shown"'), None
    given = value.get("id")
    number = given if isinstance(given, int) and not isinstance(given, bool) else None
    schema: type[LiveSettings | LiveShown] = LiveSettings if value["type"] == "settings" else LiveShown
    try:
        return schema.model_validate(value, strict=True), number
    except ValidationError as error:
        return ServeError(422, explain(error)), number


def settings_message(number: int | None, vocabulary: Vocabulary | None, warnings: list[str]) -> str:
    """The answer to settings that are in effect for the next frame."""
    names = list(vocabulary.names) if vocabulary else []
    return json.dumps(
        {
            "type": "settings",
            "id": number,
            "names": names,
            "synonyms": synonyms(vocabulary),
            "colours": palette(len(names)).tolist() if names else [],
            "warnings": warnings,
        }
    )


def error_message(code: str, message: str, *, number: int | None = None, frame: int | None = None) -> str:
    """What a client is told about its message, a frame or a source."""
    return json.dumps({"type": "error", "id": number, "frame": frame, "code": code, "message": message})


def synonyms(vocabulary: Vocabulary | None) -> dict[str, list[str]]:
    """Name → texts, for JSON."""
    return {name: list(texts) for name, texts in vocabulary.synonyms.items()} if vocabulary else {}


def result_message(
    result: Segmentation,
    facts: Mapping[str, Any],
    *,
    confidence: bool,
    picture: bytes | None,
) -> tuple[bytes, dict[str, Any]]:
    """Encode a result; runs in a worker thread.

    Returns:
        The parts one after another, and the header without the times, which are not known yet.
    """
    sure = np.rint(result.confidence[::_STEP, ::_STEP] * 255).astype(np.uint8)
    parts = [("labels", "image/png", encode.grey_png(result.labels))]
    if confidence:
        parts.append(("confidence", "image/png", encode.grey_png(sure)))
    if picture is not None:
        parts.append(("image", "image/jpeg", picture))
    areas = result.areas()
    bins = np.minimum(sure.ravel().astype(np.intp) * _BINS // 255, _BINS - 1)
    header = {
        "type": "result",
        **facts,
        "names": list(result.names),
        "shares": {name: round(area, 6) for name, area in areas.items()},
        "unknown_share": round(max(1 - sum(areas.values()), 0), 6),
        "size": list(result.orig_shape),
        "unknown": result.unknown,
        "histogram": np.bincount(bins, minlength=_BINS).tolist(),
        "parts": [{"name": name, "type": kind, "bytes": len(data)} for name, kind, data in parts],
    }
    return b"".join(data for _, _, data in parts), header


def packed(header: Mapping[str, Any], parts: bytes) -> bytes:
    """A binary message: the length of the header, the header, the parts."""
    head = json.dumps(header).encode()
    return _LENGTH.pack(len(head)) + head + parts
