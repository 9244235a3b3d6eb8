"""Online clustering: masks are assigned to semantic clusters, and masks of one cluster are merged.

Unlabelled masks have no names and are often parts (a wheel, a window). Each mask is compared with the k
cluster embeddings and assigned to one, balanced over the batch. The masks of a photo with the same cluster
become one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from training.support import distributed

__all__ = ["centred", "merge", "perplexity", "sinkhorn"]


def centred(vectors: Tensor) -> Tensor:
    """Subtract the mean of the vectors float `[K, D]` and normalise them.

    Sentence encoders such as MiniLM map all sentences into a narrow cone, so that every mask is about equally
    near to all clusters. CLIP's clusters need no centring.
    """
    return F.normalize(vectors - vectors.mean(0), dim=-1)


def sinkhorn(similarity: Tensor, epsilon: float, iterations: int = 3) -> Tensor:
    """Assign masks to clusters by balanced Sinkhorn-Knopp (paper: Q, ε; SwAV).

    Maximises similarity plus ε · entropy under equal mass per cluster. Computed in logarithms, because
    exp(similarity / 0.01) overflows float32. As in the official code, a softmax over clusters comes first, so
    that all masks start with equal weight. Sums run over the masks of all processes; every process must call
    this, also one without masks.

    Args:
        similarity: float `[M, K]`, cosines of this process's masks with the clusters.
        epsilon: ε > 0; smaller values give harder assignments.
        iterations: Each normalises the clusters, then the masks.

    Returns:
        float32 `[M, K]`, log-probabilities; each row sums to 1. The argmax is the hard assignment.
    """
    log_q = (similarity.float() / epsilon).log_softmax(-1)
    for _ in range(iterations):
        log_q = log_q - _log_mass(log_q)  # equal mass per cluster
        log_q = log_q.log_softmax(-1)  # mass 1 per mask
    return log_q


def _log_mass(log_q: Tensor) -> Tensor:
    """Return the log-mass of every cluster over the masks of all processes: float32 `[K]`."""
    lowest = log_q.new_full((1, log_q.shape[1]), torch.finfo(log_q.dtype).min)
    peak = distributed.largest(torch.cat([log_q, lowest]).amax(0))
    mass = distributed.total((log_q - peak).exp().sum(0))
    # The mass is 0 if no process has a mask; the result is then unused.
    return peak + mass.clamp(min=torch.finfo(mass.dtype).tiny).log()


def merge(masks: Tensor, clusters: Tensor, counts: Sequence[int], k: int) -> Tensor:
    """Merge the masks of each photo that share a cluster, 0…k - 1.

    Masks are bool `[M, H, W]` and clusters int64 `[M]`, photo after photo; `counts` has the number of masks
    of each of N photos. Returns bool `[N, k, H, W]`, empty for a cluster without a mask in a photo.
    """
    merged = []
    for photo_masks, photo_clusters in zip(
        masks.split(list(counts)), clusters.split(list(counts)), strict=True
    ):
        # A matrix product counts masks per cluster and pixel; it needs no loop and no synchronisation.
        members = F.one_hot(photo_clusters, k).T.float()
        merged.append((members @ photo_masks.flatten(1).float() > 0).unflatten(1, masks.shape[1:]))
    return torch.stack(merged)


def perplexity(clusters: Tensor, k: int) -> Tensor:
    """Return the effective number of clusters in use: the exponential of the entropy of their shares.

    `clusters` are those of this process's masks, int64 `[M]`; the masks of all processes count. The scalar is
    1 if all masks are in one cluster, k if they are spread evenly.
    """
    counts = distributed.total(torch.bincount(clusters, minlength=k).double())
    shares = counts / counts.sum().clamp(min=1)
    return torch.special.entr(shares).sum().exp()
