"""Frames in, label maps out, and new words between two frames: ``python examples/swap_words.py``.

What a robot does: load once, feed arrays, and look for something else when told to, without reloading.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from pixelclip_sdk import Segmenter

PHOTO = Path(__file__).parent / "photos" / "coffee.jpg"


def main() -> None:
    """Look at one frame twice, with different words."""
    frame = np.asarray(Image.open(PHOTO))[:, :, ::-1]  # (H, W, 3) uint8 BGR, as a camera driver gives it
    with Segmenter.from_pretrained("pixelclip-lite", classes=["cup", "plate", "spoon"]) as segmenter:
        first = segmenter.predict(frame, channel_order="bgr")
        segmenter.set_classes({"drink": ["espresso", "coffee"], "wood": ["wooden spoon", "plank"]})
        second = segmenter.predict(frame, channel_order="bgr")
    for result in (first, second):
        shares = ", ".join(f"{name} {share:.0%}" for name, share in result.areas().items())
        print(f"{shares}  ({result.speed['total']:.0f} ms)")
    print(f"the first result still knows its names: {first.names}")


if __name__ == "__main__":
    main()
