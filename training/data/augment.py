"""The paper's augmentations. They use torch's global generator; the caller seeds it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

__all__ = ["Crop", "Cut", "random_crop", "random_cut", "strengthen", "take", "vary"]

# Colour augmentation of SSD (Liu et al. 2016) with the ranges of detectron2's ColorAugSSDTransform, as in the
# official code.
_BRIGHTNESS = (-32.0, 32.0)  # added, of 255
_CONTRAST = (0.5, 1.5)  # a factor; the fixed point is black, not the mean
_SATURATION = (0.5, 1.5)  # a factor of HSV's S
_HUE = (-0.1, 0.1)  # of a full turn: 18 of OpenCV's 180
_STRENGTHEN = v2.Compose(
    [v2.RandomApply([v2.ColorJitter(0.5, 0.5, 0.5, 0.25)], p=0.8), v2.RandomGrayscale(p=0.2)]
)
_BLUR_PX = (0.1, 2.0)  # standard deviation, in pixels of the crop before resizing
_CUT = (0.1, 0.5)  # sides of the cut-out, as shares of the image's


@dataclass(frozen=True)
class Crop:
    """A square of an image, in pixels."""

    top: int
    left: int
    side: int
    flipped: bool


@dataclass(frozen=True)
class Cut:
    """A rectangle, in shares of height and width."""

    top: float
    left: float
    height: float
    width: float

    def of(self, images: Tensor, value: Any) -> Tensor:
        """Return a copy of `images`, `[..., H, W]`, with `value` in the rectangle."""
        height, width = images.shape[-2:]
        rows = slice(round(self.top * height), round((self.top + self.height) * height))
        columns = slice(round(self.left * width), round((self.left + self.width) * width))
        cut = images.clone()
        cut[..., rows, columns] = value
        return cut


def random_crop(height: int, width: int, share: float) -> Crop:
    """Return a random square with a side of `share` (at most 1) of the image's short side."""
    side = max(round(min(height, width) * share), 1)
    top, left = (int(torch.randint(size - side + 1, ())) for size in (height, width))
    return Crop(top, left, side, flipped=bool(torch.rand(()) < 0.5))


def take(image: Tensor, crop: Crop, size: int) -> Tensor:
    """Crop an image, uint8 `[3, H, W]`, and resize the crop to `[3, size, size]`."""
    square = F.resized_crop(image, crop.top, crop.left, crop.side, crop.side, [size, size], antialias=True)
    return F.horizontal_flip(square) if crop.flipped else square


def vary(image: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of an image, uint8 `[3, H, W]`.

    Each change has a probability of one half. Brightness is first; contrast is second or last.
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
    """Add to an image, float `[3, H, W]` in 0-255; so in the functions below."""
    return (pixels + amount).clamp(0, 255)


def _contrasted(pixels: Tensor, factor: float) -> Tensor:
    return (pixels * factor).clamp(0, 255)


def _saturated(pixels: Tensor, factor: float) -> Tensor:
    """Multiply HSV's saturation, up to 1; hue and value stay.

    Saturation is proportional to the distance of the other channels from the largest, so these are scaled.
    """
    value = pixels.amax(0, keepdim=True)
    distance = value - pixels
    largest_factor = value / distance.amax(0, keepdim=True).clamp(min=1e-6)  # saturation 1
    return value - distance * largest_factor.clamp(max=factor)


def _turned(pixels: Tensor, turn: float) -> Tensor:
    """Rotate HSV's hue by a share of a full turn, -0.5…0.5."""
    return 255 * F.adjust_hue(pixels / 255, turn)


def strengthen(image: Tensor, scale: float) -> Tensor:
    """Apply the student's stronger augmentation, except the cut-out: jitter, greyscale and blur.

    The image is uint8 `[3, H, W]`, with `scale` of its pixels per pixel of the crop.
    """
    image = _STRENGTHEN(image)
    if torch.rand(()) < 0.5:
        sigma = float(torch.empty(()).uniform_(*_BLUR_PX)) * scale
        # Torch pads by reflection, which needs a radius smaller than the image.
        radius = min(int(3 * sigma + 0.5), min(image.shape[-2:]) - 1)
        image = F.gaussian_blur(image, kernel_size=2 * radius + 1, sigma=sigma)
    return image


def random_cut() -> Cut:
    """Return a random rectangle to cut out. Masks lose it too, because its content is hidden."""
    height, width = (float(torch.empty(()).uniform_(*_CUT)) for _ in range(2))
    top, left = float(torch.rand(())) * (1 - height), float(torch.rand(())) * (1 - width)
    return Cut(top, left, height, width)
