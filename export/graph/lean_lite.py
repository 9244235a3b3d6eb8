"""pixelclip-lite with everything folded that can be folded exactly; `verify` compares it with the encoder.

The 128 that pixels are divided by goes into the first convolution (a power of two: nothing is rounded), and
the half of a cell and its surroundings into the products behind it. Lengths are divided by as numbers
that broadcast: `F.normalize` exports as Shape, Concat and Expand, and a Shape on the raw output of a
convolution keeps ONNX Runtime from taking batch norm and ReLU6 into that convolution. Two of the three
divisions of whole maps become one product.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.lite.build import LINEAR_SHARE, NEIGHBOURS, LiteImageEncoder

__all__ = ["LeanLiteEncoder"]

_MIDDLE, _SCALE = 127.0, 128.0  # of the pixels, as the trunk takes them


class LeanLiteEncoder(nn.Module):
    """The same function as a `LiteImageEncoder`.

    Args:
        encoder: The encoder; it is not changed.
    """

    def __init__(self, encoder: LiteImageEncoder) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(encoder.trunk).eval()
        self.kernel = encoder.kernel
        share = 1 - NEIGHBOURS
        self.around = NEIGHBOURS / share  # weight of the surroundings beside the cell's own 1
        with torch.no_grad():
            self.trunk.stem.conv.weight /= _SCALE
            self.classifier = nn.Parameter(encoder.classifier.weight.T * share)
            self.ridge = nn.Parameter(encoder.ridge.weight.T * share)
        self.classifier_bias, self.ridge_bias = encoder.classifier.bias, encoder.ridge.bias
        self.class_points = encoder.class_points

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Same as `LiteImageEncoder.forward`."""
        # Cast before the transpose: TensorRT refuses to transpose uint8. Subtracted here and not in the first
        # bias: its convolution pads with the middle grey.
        pixels = image.to(self.ridge.dtype).permute(0, 3, 1, 2) - _MIDDLE
        features = self.trunk(pixels)
        around = F.avg_pool2d(features, self.kernel, 1, self.kernel // 2, count_include_pad=False)
        # A factor of one would be a product in the graph.
        features = features + (around if self.around == 1 else self.around * around)
        features = features.permute(0, 2, 3, 1)
        probabilities = (features @ self.classifier + self.classifier_bias).softmax(-1)
        convex, linear = probabilities @ self.class_points, features @ self.ridge + self.ridge_bias
        # convex / |convex| + LINEAR_SHARE * linear / |linear|, times |linear| / LINEAR_SHARE: the direction
        # is the same. No length is zero: points and map are not, and the two parts differ in length.
        mixed = convex * (_length(linear) / _length(convex) / LINEAR_SHARE) + linear
        features = mixed / _length(mixed)
        return torch.matmul(features, text.T).permute(0, 3, 1, 2), features


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True)
