"""The paper's augmentations. They draw from torch's global generator, which the caller seeds."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

__all__ = ["Crop", "Cut", "random_crop", "random_cut", "strengthen", "take", "vary"]

# SSD's, each half of the time. Its channel swap is left out, as in the official code.
_VARY = v2.Compose(
    [
        v2.RandomApply([v2.ColorJitter(**{name: amount})])
        for name, amount in (
            ("brightness", 0.125),  # ±32 of 255
            ("contrast", 0.5),
            ("saturation", 0.5),
            ("hue", 0.05),  # 18° of 360°
        )
    ]
)
_STRENGTHEN = v2.Compose(
    [v2.RandomApply([v2.ColorJitter(0.5, 0.5, 0.5, 0.25)], p=0.8), v2.RandomGrayscale(p=0.2)]
)
_BLUR_PX = (0.1, 2.0)  # deviation, in pixels of the crop before it is brought to the encoder's size
_CUT = (0.1, 0.5)  # sides of the cut-out, as shares of the picture's


@dataclass(frozen=True)
class Crop:
    """A square of a picture, in its pixels."""

    top: int
    left: int
    side: int
    flipped: bool


@dataclass(frozen=True)
class Cut:
    """A rectangle, as shares of height and width."""

    top: float
    left: float
    height: float
    width: float

    def of(self, pictures: Tensor, value: Any) -> Tensor:
        """A copy of `pictures`, `[..., H, W]`, with `value` in the rectangle."""
        height, width = pictures.shape[-2:]
        rows = slice(round(self.top * height), round((self.top + self.height) * height))
        columns = slice(round(self.left * width), round((self.left + self.width) * width))
        cut = pictures.clone()
        cut[..., rows, columns] = value
        return cut


def random_crop(height: int, width: int, share: float) -> Crop:
    """A random square.

    Args:
        height: Of the picture.
        width: Of the picture.
        share: The square's side as a share of the short side, at most 1.
    """
    side = max(round(min(height, width) * share), 1)
    top, left = (int(torch.randint(size - side + 1, ())) for size in (height, width))
    return Crop(top, left, side, flipped=bool(torch.rand(()) < 0.5))


def take(image: Tensor, crop: Crop, size: int) -> Tensor:
    """The crop of a picture uint8 `[3, H, W]`, brought to `[3, size, size]`."""
    square = F.resized_crop(image, crop.top, crop.left, crop.side, crop.side, [size, size], antialias=True)
    return F.horizontal_flip(square) if crop.flipped else square


def vary(image: Tensor) -> Tensor:
    """Light and colours a little different: uint8 `[3, H, W]`, for teacher and student alike."""
    return _VARY(image)


def strengthen(image: Tensor, scale: float) -> Tensor:
    """What the student sees beyond that, but for the cut-out: jitter, greyscale, blur.

    Args:
        image: uint8 `[3, H, W]`.
        scale: Pixels of `image` per pixel of the crop.
    """
    image = _STRENGTHEN(image)
    if torch.rand(()) < 0.5:
        sigma = float(torch.empty(()).uniform_(*_BLUR_PX)) * scale
        image = F.gaussian_blur(image, kernel_size=2 * int(3 * sigma + 0.5) + 1, sigma=sigma)
    return image


def random_cut() -> Cut:
    """A rectangle somewhere in the picture. Masks lose it too: nobody can say what is hidden there."""
    height, width = (float(torch.empty(()).uniform_(*_CUT)) for _ in range(2))
    top, left = float(torch.rand(())) * (1 - height), float(torch.rand(())) * (1 - width)
    return Cut(top, left, height, width)
