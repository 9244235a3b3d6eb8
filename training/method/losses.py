"""Binary cross-entropy between predicted masks and targets, where there is a target."""

from torch import Tensor
from torch.nn import functional as F

from training.support import distributed

__all__ = ["covered_bce"]


def covered_bce(logits: Tensor, targets: Tensor, covered: Tensor) -> Tensor:
    """Mean binary cross-entropy over the covered pixels of all processes.

    A pixel that no mask covers says nothing: it belongs to some cluster, but nobody knows to which.

    Args:
        logits: float `[R, H, W]`, or with more leading axes.
        targets: bool, of the same shape.
        covered: bool, of a shape that broadcasts to it: True where a mask says what the pixel belongs to.

    Returns:
        A scalar; 0 where nothing is covered, and then so are its gradients. Data-parallel training averages
        gradients over processes: over them this is the mean of the whole batch, not a mean of means.
    """
    weight = covered.to(logits.dtype).expand_as(logits)
    summed = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), weight, reduction="sum")
    count = distributed.total(weight.sum())
    return summed * distributed.world() / count.clamp(min=1)
