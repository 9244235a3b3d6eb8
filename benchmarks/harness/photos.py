"""Photos for timing. Imports no torch, for processes whose memory is measured."""

import io

from PIL import Image

from benchmarks.harness.results import ROOT
from pixelclip_sdk.support.images import open_image_file

PHOTOS = ROOT / "examples" / "photos"


def photo_jpeg(height: int, width: int) -> bytes:
    """Returns a photo resized to height and width, as a JPEG of quality 90."""
    buffer = io.BytesIO()
    with open_image_file(PHOTOS / "coffee.jpg") as image:
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    resized.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
