"""Masks coloured by cluster: what the online clustering makes of a batch of photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F

from pixelclip_sdk.image import load_image
from pixelclip_sdk.visualize import palette
from training.figures.tiles import TILE, legend, over, plain, stacked, table
from training.masks.format import read_masks
from training.method.pixelclip import dense_features
from training.method.pooling import pool_masks
from training.runs.run import Run

__all__ = ["Clustered", "assign", "draw_clusters"]

_NAMED = 6  # clusters in the legend of a picture


@dataclass(frozen=True, eq=False)
class Clustered:
    """The masks of some photos with their clusters.

    Attributes:
        masks: Of each photo that is shown: bool `[M, H, W]`.
        clusters: Their clusters, int64 `[M]` each.
        shown: int64 `[k]`: masks of each cluster in the shown photos …
        used: … and in the whole batch.
        rank: int64 `[k]`: place of each cluster by `shown`, then by `used`; the most used is 0.
    """

    masks: list[npt.NDArray[np.bool_]]
    clusters: list[npt.NDArray[np.int64]]
    shown: npt.NDArray[np.int64]
    used: npt.NDArray[np.int64]
    rank: npt.NDArray[np.int64]

    @property
    def colours(self) -> npt.NDArray[np.uint8]:
        """`(k, 3)` RGB of each cluster: the palette in order of use, so that those in use differ most."""
        return palette(len(self.rank))[self.rank]


@torch.inference_mode()
def assign(
    run: Run, images: Path, masks: Path, names: Sequence[str], show: int, device: str = "cpu"
) -> Clustered:
    """Clusters the masks of a batch of photos as a step of the run does, without augmentation.

    The teacher sees each photo whole, squashed to the run's `imgsz`; masks are pooled at its `mask_size`,
    and Sinkhorn balances over the batch and the run's queue.

    Args:
        run: The run; its model is moved to `device`.
        images: Folder of the photos.
        masks: Folder of their masks.
        names: The batch: photos under `images`.
        show: How many of them, from the first, are shown.
        device: As torch names it.

    Raises:
        ImageError: A photo or its masks cannot be read.
    """
    config, model = run.config, run.model.to(device)
    whole, pooled, counts = [], [], []
    steps = (np.arange(config.mask_size) + 0.5) / config.mask_size
    for index, name in enumerate(names):
        photo = Image.fromarray(load_image(images / name))
        photo = photo.resize((config.imgsz, config.imgsz), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].to(device)
        found = read_masks((masks / name).with_suffix(".npz"))
        rows, columns = ((steps * size).astype(np.int64) for size in found.shape[1:])
        small = found[:, rows][:, :, columns]
        kept = small.sum((1, 2)) > 1  # as in the training
        own = torch.from_numpy(small[kept]).to(device)
        features = dense_features(model.teacher.encoder, pixels)
        pooled.append(F.normalize(pool_masks(features, own, [len(own)]), dim=-1))
        counts.append(len(own))
        if index < show:
            whole.append(found[kept])
    clusters = model.clusters()
    assigned = model.assign(torch.cat(pooled), clusters).cpu().numpy()
    split = np.split(assigned, np.cumsum(counts)[:-1])
    shown, used = (
        np.bincount(np.concatenate(part), minlength=len(clusters)) for part in (split[:show], split)
    )
    rank = np.empty(len(clusters), np.int64)
    rank[np.lexsort((-used, -shown))] = np.arange(len(clusters))
    return Clustered(whole, split[:show], shown, used, rank)


def draw_clusters(
    photos: Sequence[npt.NDArray[np.uint8]], columns: Sequence[tuple[str, Clustered, Sequence[str]]]
) -> Image.Image:
    """A row a photo: the photo, its masks, and a column a run with the masks coloured by cluster.

    Args:
        photos: `(H, W, 3)` each, RGB: those that are shown.
        columns: Of each run its title, the clusters, and each cluster's nearest name.

    Returns:
        The picture; under each tile are the clusters that cover most of it.
    """
    headings = [["photo"], ["masks", "a colour a mask"]]
    headings += [
        [title, f"{int((found.shown > 0).sum())} of {len(found.rank)} clusters in use here"]
        for title, found, _ in columns
    ]
    rows = []
    for index, photo in enumerate(photos):
        masks = columns[0][1].masks[index]
        cells = [plain(photo), over(photo, _painted(masks, np.arange(len(masks))), max(len(masks), 1))]
        for _, found, names in columns:
            labels = _painted(found.masks[index], found.rank[found.clusters[index]])
            tile = over(photo, labels, len(found.rank), opacity=0.75)
            cells.append(stacked([tile, _key(labels, found, names)]))
        rows.append(cells)
    return table(headings, rows)


def _painted(masks: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """`(H, W)`: the label of the smallest mask over each pixel, -1 where there is none."""
    painted = np.full(masks.shape[1:], -1, np.int64)
    for index in np.argsort(-masks.sum((1, 2)), kind="stable"):
        painted[masks[index]] = labels[index]
    return painted


def _key(labels: npt.NDArray[np.int64], found: Clustered, names: Sequence[str]) -> Image.Image:
    """The clusters that cover most of a picture, with their names."""
    areas = np.bincount(labels[labels >= 0], minlength=len(found.rank))
    cluster = np.argsort(found.rank)  # place → cluster
    largest = [place for place in np.argsort(-areas, kind="stable")[:_NAMED] if areas[place]]
    colours = palette(len(found.rank))
    return legend([(f"{cluster[p]} {names[cluster[p]]}", colours[p]) for p in largest], TILE)
