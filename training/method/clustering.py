"""Online clustering: masks are pooled to one feature each, assigned to semantic clusters, and merged.

Unlabelled masks have no names and are often parts (a wheel, a window). Each is assigned to one of k cluster
embeddings, balanced over the batch. The masks of a photo with the same cluster become one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from training.support import distributed

__all__ = ["centred", "merge", "perplexity", "pool_masks", "sinkhorn"]


def pool_masks(features: Tensor, masks: Tensor, counts: Sequence[int]) -> Tensor:
    """Average the features, interpolated to the masks' size, inside each mask (paper: mask pooling).

    Interpolation (bilinear, align_corners=False) and mean are both linear, so the masks are brought to the
    grid of the features instead. The result is equal, without an `[N, D, H, W]` volume of 134 MB for one
    photo of 256×256 with 512 channels.

    Features are float `[N, h, w, D]`. Masks are bool `[M, H, W]`, photo after photo, none empty; `counts` has
    the number of each photo. Returns float32 `[M, D]`, not normalised.
    """
    rows = _interpolation(features.shape[1], masks.shape[1], features.device)
    columns = _interpolation(features.shape[2], masks.shape[2], features.device)
    pooled = []
    # Photo by photo, because the masks of a batch would take gigabytes as floats.
    for feature, own in zip(features.float(), masks.split(list(counts)), strict=True):
        weights = rows @ own.float() @ columns.T
        area = weights.sum((1, 2)).clamp(min=torch.finfo(weights.dtype).tiny)
        pooled.append(weights.flatten(1) @ feature.flatten(0, 1) / area[:, None])
    return torch.cat(pooled)


def _interpolation(cells: int, pixels: int, device: torch.device) -> Tensor:
    """Return the interpolation weight of each cell for each pixel: float32 `[cells, pixels]`."""
    identity = torch.eye(cells, device=device)[:, None]
    return F.interpolate(identity, size=pixels, mode="linear", align_corners=False)[:, 0]


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
    this, also one without masks. Smaller values of ε give harder assignments.

    `similarity` has the cosines of this process's masks with the clusters, float `[M, K]`. Returns
    log-probabilities, float32 `[M, K]`; each row sums to 1. The argmax is the hard assignment.
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
