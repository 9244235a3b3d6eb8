"""Reads the label ids of one photo, from an image file or from Pascal Context's regions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.support.images import open_image_file
from pixelclip_sdk.support.json_files import read_json
from training.masks.rle import decode_mask

__all__ = ["DatasetError", "LabelFile", "LabelRegions", "read_pascal_context"]

# Pillow scales grey of 2 and 4 bits to 0-255.
_SCALES = {"L;2": 85, "L;4": 17}


class DatasetError(PixelClipError):
    """A labelled data set has missing files, another layout, or invalid label files."""


@dataclass(frozen=True)
class LabelFile:
    """An image file whose pixels are label ids: grey, or the indices of a palette."""

    name: Path

    def read(self) -> npt.NDArray[np.integer]:
        """Reads the label ids, `[H, W]`."""
        try:
            with open_image_file(self.name) as image:
                stored = image.tile[0].args if image.format == "PNG" else None
                pixels = np.asarray(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DatasetError(
                f"cannot read {self.name} as an image: {error}. Is the file complete?"
            ) from error
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8)
        pixels = pixels // _SCALES.get(str(stored), 1)
        if pixels.ndim != 2 or not np.issubdtype(pixels.dtype, np.integer) or pixels.min() < 0:
            raise DatasetError(
                f"{self.name} has pixels {pixels.dtype} {pixels.shape}; expected one "
                "label id per pixel, grey or palette"
            )
        return pixels


@dataclass(frozen=True)
class LabelRegions:
    """Pascal Context's labels of one photo: run-length encoded regions; later ones cover earlier ones.

    Attributes:
        name: Photo and annotation file, for messages.
        size: `(H, W)`.
        regions: Label id and run-length code of each region.
    """

    name: str
    size: tuple[int, int]
    regions: list[tuple[int, Any]]

    def read(self) -> npt.NDArray[np.int64]:
        """Decodes the label ids, `[H, W]`; 0 outside all regions."""
        ids = np.zeros(self.size, np.int64)
        for label, code in self.regions:
            try:
                ids[decode_mask(code)] = label
            except (ValueError, IndexError) as error:
                raise DatasetError(f"cannot decode a region of {self.name}: {error!r}") from error
        return ids


def read_pascal_context(file: Path, split: str) -> dict[str, LabelRegions]:
    """Reads Pascal Context's ``trainval_merged.json``: file name of a photo → its labels."""
    try:
        content = read_json(file)
        labels = {
            entry["image_id"]: (
                entry["file_name"],
                LabelRegions(f"{entry['file_name']} in {file}", (entry["height"], entry["width"]), []),
            )
            for entry in content["images"]
            if entry["phase"] == split
        }
        for item in content["annos_segmentation"]:
            if item["image_id"] in labels:
                regions = labels[item["image_id"]][1].regions
                regions.append((int(item["category_id"]), item["segmentation"]))
        return dict(labels.values())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"pascal-context-59: cannot read {file}: {error!r}") from error
