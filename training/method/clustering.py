"""Online clustering: every mask of the batch finds its semantic cluster, and masks of one cluster merge.

Unlabelled masks are too fine (a wheel, a window) and nameless. Compared with the k cluster embeddings and
balanced over the batch, each gets one cluster; what shares a cluster in a picture becomes one mask.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from training.support import distributed

__all__ = ["centred", "merge", "perplexity", "sinkhorn"]


def centred(vectors: Tensor) -> Tensor:
    """Unit vectors without the part that all share.

    Sentence encoders such as MiniLM put all sentences into a narrow cone: without this every mask is about
    as near to one cluster as to any other. CLIP's clusters are compared as they are.

    Args:
        vectors: float `[K, D]`.
    """
    return F.normalize(vectors - vectors.mean(0), dim=-1)


def sinkhorn(similarity: Tensor, epsilon: float, iterations: int = 3) -> Tensor:
    """Balanced soft assignment of masks to clusters by Sinkhorn-Knopp (paper: Q, ε; SwAV).

    Maximises similarity plus ε · entropy such that all clusters get the same mass. Computed in logarithms:
    similarity / 0.01 reaches ±100, and exp(100) is no float32. As in the official code, masks weigh the same
    from the start (softmax over clusters first), so that one very sure mask cannot decide a cluster alone.
    Sums over masks run over all processes: they get the clusters that one process would find on the whole
    batch. Every process must call this, also one that has no masks.

    Args:
        similarity: float `[M, K]`, cosines of this process's masks with the clusters.
        epsilon: ε > 0; smaller is harder.
        iterations: Each norms the clusters, then the masks.

    Returns:
        float32 `[M, K]`, logarithms; every mask's probabilities sum to 1. Its argmax is the hard assignment.
    """
    log_q = (similarity.float() / epsilon).log_softmax(-1)
    for _ in range(iterations):
        log_q = log_q - _log_mass(log_q)  # every cluster: the same mass
        log_q = log_q.log_softmax(-1)  # every mask: mass 1
    return log_q


def _log_mass(log_q: Tensor) -> Tensor:
    """Logarithm of every cluster's mass over the masks of all processes: float32 `[K]`."""
    lowest = log_q.new_full((1, log_q.shape[1]), torch.finfo(log_q.dtype).min)
    peak = distributed.largest(torch.cat([log_q, lowest]).amax(0))
    mass = distributed.total((log_q - peak).exp().sum(0))
    # Without a mask anywhere the mass is 0, and nobody is left to see what becomes of it.
    return peak + mass.clamp(min=torch.finfo(mass.dtype).tiny).log()


def merge(masks: Tensor, clusters: Tensor, counts: Sequence[int], k: int) -> Tensor:
    """The union of a picture's masks that share a cluster.

    Args:
        masks: bool `[M, H, W]`, one picture's after the other's.
        clusters: int64 `[M]` in 0…k - 1.
        counts: How many masks each picture has, `[N]`.
        k: Number of clusters.

    Returns:
        bool `[N, k, H, W]`: where each cluster is; empty for a cluster that a picture has no mask of.
    """
    merged = []
    for own, names in zip(masks.split(list(counts)), clusters.split(list(counts)), strict=True):
        # Counting by a product of matrices needs no loop over clusters, and no wait for a GPU.
        members = F.one_hot(names, k).T.float()
        merged.append((members @ own.flatten(1).float() > 0).unflatten(1, masks.shape[1:]))
    return torch.stack(merged)


def perplexity(clusters: Tensor, k: int) -> Tensor:
    """How many clusters are in use, effectively: 1 if all masks are in one, k if they share evenly.

    Args:
        clusters: int64 `[M]`, of this process; counted over all.
        k: Number of clusters.

    Returns:
        A float scalar; exp of the entropy of the clusters' shares.
    """
    counts = distributed.total(torch.bincount(clusters, minlength=k).double())
    shares = counts / counts.sum().clamp(min=1)
    return torch.special.entr(shares).sum().exp()
