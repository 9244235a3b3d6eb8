"""Adapter for the automatic mask generators of SAM and SAM 2, if their packages are installed.

The calls follow the documentation of the packages. They were never run with the real packages and weights.
"""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pixelclip_sdk.errors import CheckpointError, ModelNotFoundError, PixelClipError
from pixelclip_sdk.image import load_image
from pixelclip_sdk.support.packages import imported
from training.masks.source import NoMasksError, shrink

__all__ = ["SAM"]


@dataclass(frozen=True)
class SAM:
    """Overlapping masks of every size."""

    # "vit_h", "vit_l" or "vit_b"; or a configuration of SAM 2, as "configs/sam2.1/sam2.1_hiera_l.yaml".
    model: str
    checkpoint: Path = field(compare=False)
    sha256: str = ""  # of the checkpoint
    name = "sam"
    on_gpus = True

    def __call__(self, photo: Path, relative: Path, short_side: int) -> npt.NDArray[np.bool_]:  # noqa: ARG002
        """See `MaskSource`."""
        found = _generator(self.model, self.checkpoint).generate(load_image(photo))
        if not found:
            raise NoMasksError("SAM found nothing")
        return np.stack([shrink(np.asarray(mask["segmentation"], np.bool_), short_side) for mask in found])


@cache
def _generator(model: str, checkpoint: Path) -> Any:
    """Return the generator with its default settings; loaded once per process."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if model.endswith(".yaml"):
            sam = imported("sam2.build_sam", "sam2").build_sam2(model, str(checkpoint), device=device)
            return imported("sam2.automatic_mask_generator", "sam2").SAM2AutomaticMaskGenerator(sam)
        package = imported("segment_anything", "segment-anything")
        if model not in package.sam_model_registry:
            known = ", ".join(package.sam_model_registry)
            raise ModelNotFoundError(f"SAM has no model {model!r}; expected {known}, or a .yaml of SAM 2")
        sam = package.sam_model_registry[model](checkpoint=str(checkpoint)).to(device)
        return package.SamAutomaticMaskGenerator(sam)
    except PixelClipError:
        raise
    # The packages raise many types: no such configuration, other keys, damaged files.
    except Exception as error:
        raise CheckpointError(
            f"SAM cannot be used as {model} with the weights {checkpoint}: {error}. "
            "Give the --model that the weights belong to."
        ) from error
