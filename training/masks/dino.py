"""k-means over DINO's patch features: masks from a network trained without labels."""

import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from pixelclip_sdk.errors import CheckpointError
from pixelclip_sdk.image import load_image
from pixelclip_sdk.support.packages import imported
from training.models.weights.reader import read_checkpoint

__all__ = ["DinoKMeans"]

MODEL = "vit_small_patch16_224.dino"
_MAX_ASPECT = 4  # the long side that DINO sees is at most this many wanted short sides


@dataclass(frozen=True)
class DinoKMeans:
    """The masks of PixelCLIP's DINO variant: 16 clusters per photo, with one pixel per patch."""

    clusters: int = 16
    image_side: int = 640  # short side of the photo that DINO sees, in pixels
    # Weights in the layout of timm or DINO, which are equal; None for timm's download.
    checkpoint: Path | None = field(default=None, compare=False)
    sha256: str = ""  # of the checkpoint
    name = "dino"
    on_gpus = True

    def __call__(self, photo: Path, relative: Path, short_side: int) -> npt.NDArray[np.int64]:  # noqa: ARG002
        """See `MaskSource`."""
        return cluster(_features(load_image(photo), self.image_side, self.checkpoint), self.clusters)


def cluster(features: npt.NDArray[np.float32], clusters: int) -> npt.NDArray[np.int64]:
    """Cluster one photo's features `[h, w, D]` by k-means with a fixed seed.

    Returns cluster numbers from 1, `[h, w]`; there are fewer clusters if fewer patches differ.
    """
    kmeans2 = imported("scipy.cluster.vq").kmeans2
    rows = features.reshape(-1, features.shape[-1]).astype(np.float64)
    # k-means++ needs as many different rows as clusters.
    clusters = min(clusters, len(np.unique(rows, axis=0)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        _, numbers = kmeans2(rows, clusters, iter=30, minit="++", rng=np.random.default_rng(0))
    return 1 + numbers.reshape(features.shape[:2]).astype(np.int64)


@torch.inference_mode()
def _features(image: npt.NDArray[np.uint8], side: int, checkpoint: Path | None) -> npt.NDArray[np.float32]:
    """Return the features of the last layer after its norm: `[h, w, D]`."""
    model, device = _model(checkpoint)
    patch = model.patch_embed.patch_size[0]
    # As in PixelCLIP's code, the photo is scaled by its short side and then rounded down to whole patches.
    # Very long photos are scaled further, because their patches would not fit into memory.
    scale = min(side / min(image.shape[:2]), _MAX_ASPECT * side / max(image.shape[:2]))
    size = [max(round(length * scale) // patch, 1) * patch for length in image.shape[:2]]
    pixels = torch.from_numpy(image.copy()).to(device).permute(2, 0, 1)[None] / 255
    pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)
    mean, std = (torch.tensor(model.pretrained_cfg[key], device=device) for key in ("mean", "std"))
    tokens = model.forward_features((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    patches = tokens[0, model.num_prefix_tokens :]
    return patches.unflatten(0, (size[0] // patch, size[1] // patch)).float().cpu().numpy()


@cache
def _model(checkpoint: Path | None) -> tuple[Any, torch.device]:
    """Return DINO's small vision transformer for photos of any size; loaded once per process."""
    timm = imported("timm")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    weights = None if checkpoint is None else read_checkpoint(checkpoint)
    try:
        model = timm.create_model(MODEL, pretrained=weights is None, num_classes=0, dynamic_img_size=True)
        if weights is not None:
            model.load_state_dict(weights)
    # The hub and timm raise many types: no network, no such file, other keys.
    except Exception as error:
        place = "timm's download" if checkpoint is None else str(checkpoint)
        raise CheckpointError(
            f"DINO's weights from {place} cannot be used: {error} Give a file of {MODEL} with --checkpoint."
        ) from error
    return model.eval().to(device), device
