"""Converts images with an ICC colour profile to sRGB."""

import functools
import io
import logging

import numpy as np
from PIL import Image, ImageCms

_log = logging.getLogger(__name__)


def to_srgb(image: Image.Image, profile: bytes, grey: bool, name: str) -> Image.Image:
    """Converts an image from its ICC profile to sRGB. `grey`: whether the file is greyscale.

    Returns an RGB image; or `image` itself if the profile is sRGB, damaged, or meant for other images.
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
    """The mode that a profile is for, and the transform to sRGB; None instead if it changes nothing."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[source.profile.xcolor_space.strip()]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    transform = ImageCms.ImageCmsTransform(source, srgb, mode, "RGB")
    if mode == "CMYK":
        return mode, transform
    # Names of profiles say little, so the transform is tried on a range of colours.
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(*[levels] * len(mode)), -1).reshape(len(levels), -1, len(mode))
    before = Image.fromarray(grid[:, :, 0] if mode == "L" else grid)
    change = np.asarray(transform.apply(before)).astype(int) - np.asarray(before.convert("RGB"))
    return mode, transform if np.abs(change).max() > 2 else None
