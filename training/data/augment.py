"""The paper's augmentations. They draw from torch's global generator, which the caller seeds."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

__all__ = ["Crop", "Cut", "random_crop", "random_cut", "strengthen", "take", "vary"]

# What SSD (Liu et al. 2016) does to colours, in the amounts of detectron2's ColorAugSSDTransform, which the
# official code uses.
_BRIGHTNESS = (-32.0, 32.0)  # added, of 255
_CONTRAST = (0.5, 1.5)  # a factor about black, not about the mean
_SATURATION = (0.5, 1.5)  # a factor of HSV's S
_HUE = (-0.1, 0.1)  # of a full turn: 18 of OpenCV's 180
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
    """Light and colours a little different: uint8 `[3, H, W]`, for teacher and student alike.

    Brightness comes first; contrast before or after saturation and hue, by a coin. Each is left out half of
    the time.
    """
    steps = [(_contrasted, _CONTRAST), (_saturated, _SATURATION), (_turned, _HUE)]
    if _coin():
        steps = [*steps[1:], steps[0]]
    pixels = image.float()
    for change, (low, high) in [(_brightened, _BRIGHTNESS), *steps]:
        if _coin():
            pixels = change(pixels, float(torch.empty(()).uniform_(low, high)))
    return pixels.round().to(torch.uint8)


def _coin() -> bool:
    return bool(torch.rand(()) < 0.5)


def _brightened(pixels: Tensor, amount: float) -> Tensor:
    """Float `[3, H, W]` in 0-255, as in the functions below."""
    return (pixels + amount).clamp(0, 255)


def _contrasted(pixels: Tensor, factor: float) -> Tensor:
    return (pixels * factor).clamp(0, 255)


def _saturated(pixels: Tensor, factor: float) -> Tensor:
    """HSV's saturation times a factor, at most 1; hue and value stay.

    S is the share of the largest channel that the smallest lacks: all distances from the largest grow alike.
    """
    value = pixels.amax(0, keepdim=True)
    distance = value - pixels
    most = value / distance.amax(0, keepdim=True).clamp(min=1e-6)  # S would be 1
    return value - distance * most.clamp(max=factor)


def _turned(pixels: Tensor, turn: float) -> Tensor:
    """HSV's hue, by a share of a full turn in -0.5…0.5."""
    return 255 * F.adjust_hue(pixels / 255, turn)


def strengthen(image: Tensor, scale: float) -> Tensor:
    """What the student sees beyond that, but for the cut-out: jitter, greyscale, blur.

    Args:
        image: uint8 `[3, H, W]`.
        scale: Pixels of `image` per pixel of the crop.
    """
    image = _STRENGTHEN(image)
    if torch.rand(()) < 0.5:
        sigma = float(torch.empty(()).uniform_(*_BLUR_PX)) * scale
        # Torch reflects at the borders, which reaches no further than the picture.
        radius = min(int(3 * sigma + 0.5), min(image.shape[-2:]) - 1)
        image = F.gaussian_blur(image, kernel_size=2 * radius + 1, sigma=sigma)
    return image


def random_cut() -> Cut:
    """A rectangle somewhere in the picture. Masks lose it too: nobody can say what is hidden there."""
    height, width = (float(torch.empty(()).uniform_(*_CUT)) for _ in range(2))
    top, left = float(torch.rand(())) * (1 - height), float(torch.rand(())) * (1 - width)
    return Cut(top, left, height, width)
