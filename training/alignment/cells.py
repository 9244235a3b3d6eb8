"""The grid cells of photos with words, and which word each cell shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from pixelclip_sdk.image import load_image
from pixelclip_sdk.preprocess import fit
from training.models.lite.build import LiteImageEncoder
from training.models.pair import EncoderPair

__all__ = ["Cells", "assign", "read_cells"]

_BLOCK = 16384  # cells at a time


@dataclass(frozen=True)
class Cells:
    """The cells of all photos, one after the other; about 0.5 MB a photo."""

    features: Tensor  # float16 [cells, 1280], `LiteImageEncoder.cells`
    convex: Tensor  # float16 [cells, 384], `LiteImageEncoder.convex`
    starts: Tensor  # int64 [photos + 1], the first cell of each photo

    def embedded(self, image: LiteImageEncoder) -> Tensor:
        """Returns the image encoder's embeddings with its present ridge map, float16 `[cells, 384]`."""
        blocks = zip(self.features.split(_BLOCK), self.convex.split(_BLOCK), strict=True)
        return torch.cat([image.embed(cells.float(), convex.float()).half() for cells, convex in blocks])


def read_cells(pair: EncoderPair, photos: Sequence[Path]) -> Cells:
    """Runs pixelclip-lite's tower on photos, at the sizes at which it segments them."""
    image = pair.image
    assert isinstance(image, LiteImageEncoder)
    features, convex, starts = [], [], [0]
    for photo in tqdm(photos, unit="photo", disable=None):  # Batches were not faster on a CPU.
        pixels = torch.from_numpy(fit(load_image(photo), pair.input).copy())
        cells = image.cells(pixels[None]).flatten(0, 2)
        features.append(cells.half())
        convex.append(image.convex(cells).half())
        starts.append(starts[-1] + len(cells))
    return Cells(torch.cat(features), torch.cat(convex), torch.tensor(starts))


def assign(
    embedded: Tensor,
    starts: Tensor,
    words: Sequence[Sequence[int]],
    competitors: Sequence[int],
    text: Tensor,
    synonyms: Mapping[int, Tensor],
) -> Tensor:
    """Gives each cell the best word of its photo, unless a competitor that the photo does not have is better.

    Args:
        embedded: `[cells, D]`, embeddings of the cells.
        starts: See `Cells`.
        words: The words of each photo, as rows of `text`.
        competitors: Words that may be in any photo, as rows of `text`.
        text: float32 `[words, D]`, unit rows.
        synonyms: Row of `text` → float32 `[synonyms, D]`; the best of these counts instead.

    Returns:
        The row of each cell's word, int64 `[cells]`; -1 for no word.
    """
    labels = torch.full((len(embedded),), -1)
    for index, own in enumerate(words):
        part = slice(int(starts[index]), int(starts[index + 1]))
        rows = torch.tensor([*own, *(row for row in competitors if row not in own)])
        cells = embedded[part].float()
        cosines = cells @ text[rows].T
        for row, others in synonyms.items():
            cosines[:, rows == row] = (cells @ others.T).amax(1, keepdim=True)
        best = cosines.argmax(1)
        labels[part] = torch.where(best < len(own), rows[best], -1)
    return labels
