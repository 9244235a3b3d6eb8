"""Requests to images, and results to JSON and PNG. All of it runs in worker threads."""

import base64
import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.segmentation import REGION_AREA, Segmentation
from pixelclip_sdk.serve.errors import ServeError
from pixelclip_sdk.support.images import ignore_warnings, open_image_file

__all__ = ["as_json", "bound_pillow", "check_pixels", "confidence_png", "grey_png", "overlay_jpeg"]

# Of an image in pixels. A strip of a million takes much longer than other images of as many pixels.
_LONGEST_SIDE = 16_384


def bound_pillow(most: int) -> None:
    """Let Pillow refuse pixels beyond a limit in all that this process decodes.

    The size in the head of a file need not be that of its content.
    """
    Image.MAX_IMAGE_PIXELS = -(-most // 2)  # Twice this is an error.


def check_pixels(images: Sequence[bytes], most: int) -> None:
    """Raise ServeError 413 if images have more than `most` pixels together, or one is too long.

    Nothing is decoded. What is no image passes: `Segmenter.predict` says what is wrong with it.
    """
    total = 0
    for data in images:
        try:
            with ignore_warnings(), open_image_file(io.BytesIO(data)) as image:
                width, height = image.size
        except Image.DecompressionBombError:
            total = most + 1
        except Exception:  # Pillow raises errors of many kinds; see above.
            continue
        else:
            total += width * height
            if max(width, height) > _LONGEST_SIDE:
                raise ServeError(
                    413,
                    f"an image is {width}×{height} pixels; expected at most {_LONGEST_SIDE} of a side",
                )
        if total > most:
            raise ServeError(
                413,
                f"the request has more than {most} pixels, this server's limit; scale the image down",
            )


def grey_png(values: npt.NDArray[np.uint8 | np.uint16]) -> bytes:
    """`(H, W)` as the pixel values of a grey PNG of 8 or 16 bits.

    Pillow tries five filters for each row. Rows of labels are mostly like the row above, so that one filter
    (Up) is best: a third of the time, for files of the same size. Format: https://www.w3.org/TR/png-3/.
    """
    height, width = values.shape
    depth = values.dtype.itemsize
    # Rows of bytes, the high byte first; each row starts with the number of its filter.
    rows = np.empty((height, 1 + depth * width), np.uint8)
    rows[:, 0] = 2
    rows[:, 1:] = np.ascontiguousarray(values, f">u{depth}").view(np.uint8).reshape(height, -1)
    rows[1:, 1:] -= rows[:-1, 1:].copy()
    compressor = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * depth, 0, 0, 0, 0)),
            _chunk(b"IDAT", compressor.compress(rows.data) + compressor.flush()),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def confidence_png(result: Segmentation, *, step: int = 1) -> bytes:
    """Confidence as a grey PNG, 0–255 for 0–1; every `step`-th pixel of every `step`-th row."""
    return grey_png(np.rint(result.confidence[::step, ::step] * 255).astype(np.uint8))


def overlay_jpeg(result: Segmentation) -> bytes:
    """The image with the classes drawn over it, as a JPEG."""
    file = io.BytesIO()
    result.plot().save(file, "JPEG", quality=90)
    return file.getvalue()


def _text(png: bytes) -> str:
    return base64.b64encode(png).decode("ascii")


def as_json(
    result: Segmentation, *, confidence: bool = False, regions: str = "none", min_area: float = REGION_AREA
) -> dict[str, Any]:
    """A result for JSON; see `schemas.Result` for its fields."""
    areas = result.areas()
    answer: dict[str, Any] = {
        "names": list(result.names),
        "shares": {name: round(area, 6) for name, area in areas.items()},
        "unknown_share": round(max(1 - sum(areas.values()), 0), 6),
        "unknown": result.unknown,
        "size": list(result.orig_shape),
        "labels": _text(grey_png(result.labels)),
        "speed_ms": {stage: round(time, 3) for stage, time in result.speed.items()},
    }
    if confidence:
        answer["confidence"] = _text(confidence_png(result))
    if regions != "none":
        answer["regions"] = []
        for region in result.regions(min_area=min_area):
            entry = region.summary()
            if regions == "rle":
                entry["rle"] = region.rle()
            elif regions == "polygons":
                entry["polygons"] = [points.tolist() for points in region.polygon]
            answer["regions"].append(entry)
    return answer
