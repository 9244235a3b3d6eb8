"""Photos for timing. Imports no torch, for processes whose memory is measured."""

import io
from pathlib import Path

from PIL import Image

from benchmarks.harness.results import ROOT
from pixelclip_sdk.support.images import open_image_file

__all__ = ["PHOTOS", "photo_jpeg"]

PHOTOS = ROOT / "examples" / "photos"


def photo_jpeg(height: int, width: int, photo: Path = PHOTOS / "coffee.jpg") -> bytes:
    """Returns a photo resized to height and width, as a JPEG of quality 90."""
    buffer = io.BytesIO()
    with open_image_file(photo) as image:
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    resized.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
