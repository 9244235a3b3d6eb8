"""Masks coloured by the cluster that the online clustering assigns to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F

from pixelclip_sdk.image import load_image
from pixelclip_sdk.visualize import palette
from training.figures.grid import add_legend, overlay, photo_grid, show
from training.masks.format import read_masks
from training.method.clustering import pool_masks
from training.method.pixelclip import dense_features
from training.runs.run import Run

__all__ = ["Clustered", "assign", "draw_clusters"]

_NAMED = 6  # clusters in the legend of a tile


@dataclass(frozen=True, eq=False)
class Clustered:
    """Masks of a batch of photos and their clusters."""

    masks: list[npt.NDArray[np.bool_]]  # [M, H, W] for each shown photo
    clusters: list[npt.NDArray[np.int64]]  # [M] for each shown photo: the cluster of each mask
    shown: npt.NDArray[np.int64]  # [k]: number of masks per cluster in the shown photos
    used: npt.NDArray[np.int64]  # [k]: number of masks per cluster in the whole batch
    rank: npt.NDArray[np.int64]  # [k]: 0 for the most used cluster, by `shown`, then by `used`

    @property
    def colours(self) -> npt.NDArray[np.uint8]:
        """`(k, 3)` RGB of each cluster; the most used clusters have the most distinct colours."""
        return palette(len(self.rank))[self.rank]


@torch.inference_mode()
def assign(
    run: Run, images: Path, masks: Path, names: Sequence[str], show: int, device: str = "cpu"
) -> Clustered:
    """Assign the masks of a batch of photos to clusters as a training step does, without augmentation.

    The teacher sees each whole photo, squashed to the run's `input_size`. Masks are pooled at the run's
    `mask_size`. Sinkhorn balances over the batch and the run's queue. `names` are paths under `images`; the
    first `show` photos are shown. The run's model is moved to `device`.
    """
    config, model = run.config, run.model.to(device)
    whole, pooled, counts = [], [], []
    steps = (np.arange(config.mask_size) + 0.5) / config.mask_size
    for index, name in enumerate(names):
        photo = Image.fromarray(load_image(images / name))
        photo = photo.resize((config.input_size, config.input_size), Image.Resampling.BILINEAR)
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
) -> Any:
    """Draw one row per photo: the photo, its masks, and each run's masks coloured by cluster.

    Photos are RGB `(H, W, 3)`. `columns` has title, clusters and the nearest name of each cluster for every
    run. Under each tile is a legend of the clusters that cover most of it.
    """
    headings = ["photo", "masks\none colour per mask"]
    headings += [
        f"{title}\n{int((clustered.shown > 0).sum())} of {len(clustered.rank)} clusters in use here"
        for title, clustered, _ in columns
    ]
    figure, axes = photo_grid(headings, photos)
    for index, (row, photo) in enumerate(zip(axes, photos, strict=True)):
        masks = columns[0][1].masks[index]
        show(row[0], photo)
        show(row[1], overlay(photo, _label_map(masks, np.arange(len(masks))), max(len(masks), 1)))
        for tile, (_, clustered, names) in zip(row[2:], columns, strict=True):
            labels = _label_map(clustered.masks[index], clustered.rank[clustered.clusters[index]])
            show(tile, overlay(photo, labels, len(clustered.rank), opacity=0.75))
            add_legend(tile, _largest(labels, clustered, names))
    return figure


def _label_map(masks: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return `(H, W)`: the label of the smallest mask over each pixel, -1 where there is none."""
    painted = np.full(masks.shape[1:], -1, np.int64)
    for index in np.argsort(-masks.sum((1, 2)), kind="stable"):
        painted[masks[index]] = labels[index]
    return painted


def _largest(
    labels: npt.NDArray[np.int64], clustered: Clustered, names: Sequence[str]
) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    """Return name and colour of the clusters that cover most of a label map of ranks."""
    areas = np.bincount(labels[labels >= 0], minlength=len(clustered.rank))
    clusters = np.argsort(clustered.rank)[np.argsort(-areas, kind="stable")[: min(_NAMED, (areas > 0).sum())]]
    return [(f"{cluster} {names[cluster]}", clustered.colours[cluster]) for cluster in clusters]
