"""Binary cross-entropy over the pixels that a mask covers."""

from torch import Tensor
from torch.nn import functional as F

from training.support import distributed

__all__ = ["covered_bce"]


def covered_bce(logits: Tensor, targets: Tensor, covered: Tensor) -> Tensor:
    """Mean binary cross-entropy over the covered pixels of all processes.

    The cluster of an uncovered pixel is unknown, so it is ignored.

    Args:
        logits: float `[..., H, W]`.
        targets: bool, of the same shape.
        covered: bool, broadcastable to that shape: True where a mask covers the pixel.

    Returns:
        A scalar; 0, with zero gradients, if nothing is covered. Data-parallel training averages gradients
        over processes; that mean is the gradient of the loss over the whole batch.
    """
    weight = covered.to(logits.dtype).expand_as(logits)
    summed = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), weight, reduction="sum")
    count = distributed.total(weight.sum())
    return summed * distributed.world() / count.clamp(min=1)
