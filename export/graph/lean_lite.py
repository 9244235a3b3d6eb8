"""pixelclip-lite with constant computation done ahead of time; `verify` compares it with the encoder.

The division of the pixels by 128 moves into the first convolution (a power of two, so nothing is rounded),
and the weights of a cell and its neighbours into the products after it. Vectors are divided by their length
directly: `F.normalize` exports as Shape, Concat and Expand, and a Shape node on a convolution's raw output
keeps ONNX Runtime from fusing batch norm and ReLU6 into that convolution.
"""

import copy

import torch
from torch import Tensor, nn

from training.models.lite.build import LINEAR_SHARE, NEIGHBOURS, LiteImageEncoder, neighbourhood
from training.models.student import LiteStudent

__all__ = ["LeanLiteEncoder", "lean_student"]

_MIDDLE, _SCALE = 127.0, 128.0  # The trunk takes (pixel - _MIDDLE) / _SCALE.


class LeanLiteEncoder(nn.Module):
    """Computes the same as a `LiteImageEncoder`, which is not changed."""

    def __init__(self, encoder: LiteImageEncoder) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(encoder.trunk).eval()
        self.kernel = encoder.kernel
        share = 1 - NEIGHBOURS
        self.around = NEIGHBOURS / share  # weight of the neighbours, relative to the cell
        with torch.no_grad():
            self.trunk.stem.conv.weight /= _SCALE
            self.classifier = nn.Parameter(encoder.classifier.weight.T * share)
            self.ridge = nn.Parameter(encoder.ridge.weight.T * share)
        self.classifier_bias, self.ridge_bias = encoder.classifier.bias, encoder.ridge.bias
        self.class_points = encoder.class_points

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """See `LiteImageEncoder.forward`."""
        # Cast before the transpose: TensorRT refuses to transpose uint8. The subtraction cannot move into the
        # bias of the first convolution: its padding is zero after the subtraction.
        pixels = image.to(self.ridge.dtype).permute(0, 3, 1, 2) - _MIDDLE
        features = self.trunk(pixels)
        around = neighbourhood(features, self.kernel)
        # A factor of one would still be a product in the graph.
        features = features + (around if self.around == 1 else self.around * around)
        features = features.permute(0, 2, 3, 1)
        probabilities = (features @ self.classifier + self.classifier_bias).softmax(-1)
        convex, linear = probabilities @ self.class_points, features @ self.ridge + self.ridge_bias
        # Proportional to convex / |convex| + LINEAR_SHARE * linear / |linear|. No length is zero: the points
        # and the map are not zero, and the two parts have different lengths.
        mixed = convex * (_length(linear) / _length(convex) / LINEAR_SHARE) + linear
        features = mixed / _length(mixed)
        return torch.matmul(features, text.T).permute(0, 3, 1, 2), features


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True)


def lean_student(student: LiteStudent) -> LiteStudent:
    """Returns a copy that computes the same, with the division of the pixels in the first convolution."""
    lean = copy.deepcopy(student).eval()
    with torch.no_grad():
        lean.trunk.stem.conv.weight /= lean.scale
    lean.scale = 1.0
    return lean
