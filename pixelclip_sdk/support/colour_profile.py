"""Converts images with an ICC colour profile to sRGB."""

import functools
import io
import logging
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

_log = logging.getLogger(__name__)


Convert = Callable[[Image.Image], Image.Image]


def to_srgb(profile: bytes, mode: str, *, grey: bool, owned: bool, name: str) -> Convert:
    """Returns a function that converts an image, or a part of it, from its ICC profile to sRGB.

    It returns an RGB image; or the image itself if the profile is sRGB, damaged, or meant for other images.

    Args:
        profile: The content of the ICC profile.
        mode: Pillow's mode of the images that the function gets.
        grey: Whether the file is greyscale.
        owned: Whether images may be changed in place, which needs less memory.
        name: The file's name in messages.
    """
    try:
        own, transform = _srgb_transform(profile)
    except (ImageCms.PyCMSError, OSError, ImportError, KeyError, TypeError) as error:
        _log.warning("%s has a colour profile that cannot be used; it is read as sRGB: %s", name, error)
        return lambda image: image
    if transform is None or (own == "CMYK") != (mode == "CMYK") or (own == "L" and not grey):
        return lambda image: image

    def convert(image: Image.Image) -> Image.Image:
        if owned and image.mode == own == "RGB":
            transform.apply_in_place(image)
            return image
        converted = transform.apply(image if image.mode == own else image.convert(own))
        assert converted is not None
        return converted

    return convert


def is_srgb(profile: bytes) -> bool:
    """Whether an ICC profile changes nothing; False for a damaged one."""
    try:
        return _srgb_transform(profile)[1] is None
    except (ImageCms.PyCMSError, OSError, ImportError, KeyError, TypeError):
        return False


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
