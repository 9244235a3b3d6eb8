"""Converts images with an ICC colour profile to sRGB."""

import functools
import io
import logging

import numpy as np
from PIL import Image, ImageCms

__all__ = ["to_srgb"]

_log = logging.getLogger(__name__)


def to_srgb(image: Image.Image, profile: bytes, grey: bool, name: str) -> Image.Image:
    """Converts from a colour profile to sRGB.

    Args:
        image: Of any mode that Pillow converts to RGB.
        profile: The ICC profile.
        grey: Whether the file is greyscale, the only kind of image that grey profiles apply to.
        name: Name of the image for messages.

    Returns:
        An RGB image; or `image` itself if the profile is sRGB, damaged, or meant for other images.
    """
    try:
        mode, transform = _srgb_transform(profile)
    except (ImageCms.PyCMSError, OSError, ImportError, KeyError, TypeError) as error:
        _log.warning("%s has a colour profile that cannot be used; it is read as sRGB: %s", name, error)
        return image
    if transform is None or (mode == "CMYK") != (image.mode == "CMYK") or (mode == "L" and not grey):
        return image
    converted = transform.apply(image if image.mode == mode else image.convert(mode))
    assert converted is not None
    return converted


@functools.lru_cache(maxsize=8)
def _srgb_transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The mode that a profile is for, and the transform to sRGB; None instead if it changes nothing.

    Raises:
        PyCMSError: The profile is damaged or of another colour space.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[source.profile.xcolor_space.strip()]
    transform = ImageCms.ImageCmsTransform(
        source, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")), mode, "RGB"
    )
    if mode == "CMYK":
        return mode, transform
    # Names of profiles say little, so the transform is tried on a range of colours.
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(*[levels] * len(mode)), -1).reshape(len(levels), -1, len(mode))
    before = Image.fromarray(grid[:, :, 0] if mode == "L" else grid)
    after = transform.apply(before)
    change = np.asarray(after).astype(int) - np.asarray(before.convert("RGB"))
    return mode, transform if np.abs(change).max() > 2 else None
