"""Loads the weights of a checkpoint into an open_clip model, strictly.

Two layouts are supported: open_clip's, which our runs and OpenAI's weights share, and the official PixelCLIP
layout, which has the same names under a prefix, next to the teacher, the mask decoder and the prompts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pixelclip_sdk.errors import CheckpointError
from training.models.weights.reader import read_checkpoint

__all__ = ["LoadReport", "load_exactly", "load_into", "pick_clip", "read_checkpoint"]

_OFFICIAL_PREFIX = "sem_seg_head.predictor.clip_model."
_PARALLEL_PREFIX = "module."  # open_clip's checkpoints from data-parallel training
# First parts of CLIP's keys. Others, such as OpenAI's `input_resolution`, are not weights.
_CLIP_PARTS = {
    "visual",
    "transformer",
    "token_embedding",
    "positional_embedding",
    "ln_final",
    "text_projection",
    "logit_scale",
    "logit_bias",
}
_POSITIONS = "visual.positional_embedding"
_SHOWN = 8  # groups of keys in a message
# Family of the image tower → names of models.
_MODELS = {"ViT/16": "pixelclip-vit-b16 or clip-vit-b16", "ConvNeXt": "pixelclip-convnext-b"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Result of loading a checkpoint.

    Attributes:
        source: File name of the checkpoint.
        layout: `"open_clip"` or `"official PixelCLIP"`.
        loaded: Number of loaded tensors.
        ignored: Keys that are not CLIP weights: training state, constants.
        missing: Keys of the model that the checkpoint does not have.
        unexpected: CLIP keys that the model does not have.
        invalid: Keys with a wrong shape, a dtype that is not floating point or values that are not finite,
            each with the reason.
        notes: Conversions: dtypes, size of the position embedding.
    """

    source: str
    layout: str
    loaded: int = 0
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """True if all weights of the model were loaded."""
        return not (self.missing or self.unexpected or self.invalid)

    def __str__(self) -> str:
        lines = [f"{self.source} ({self.layout} layout): {self.loaded} tensors loaded"]
        for title in ("missing", "unexpected", "invalid", "ignored"):
            if keys := getattr(self, title):
                lines.append(f"{len(keys)} {title}: {_grouped(keys)}")
        return "\n  ".join([*lines, *self.notes])


def pick_clip(state: Mapping[str, Tensor], *, source: str) -> tuple[dict[str, Tensor], LoadReport]:
    """Selects CLIP's weights from a checkpoint and renames them to open_clip's names.

    Args:
        state: Key → tensor, from `read_checkpoint`.
        source: File name of the checkpoint, for messages.

    Returns:
        The weights, and a report with the layout and the ignored keys.

    Raises:
        CheckpointError: The checkpoint contains no CLIP.
    """
    if state and all(key.startswith(_PARALLEL_PREFIX) for key in state):
        state = {key.removeprefix(_PARALLEL_PREFIX): value for key, value in state.items()}
    official = any(key.startswith(_OFFICIAL_PREFIX) for key in state)
    prefix = _OFFICIAL_PREFIX if official else ""
    picked: dict[str, Tensor] = {}
    ignored: list[str] = []
    for key, value in state.items():
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and name.partition(".")[0] in _CLIP_PARTS:
            picked[name] = value
        else:
            ignored.append(key)
    if not any(key.startswith("visual.") for key in picked):
        hint = ""
        if any(key.startswith(("vision_model.", "text_model.")) for key in state):
            hint = " These names are from the transformers library; use the weights in open_clip's format."
        raise CheckpointError(
            f"{source} contains no known CLIP; its keys are {_grouped(state)}.{hint} "
            f"Expected names such as visual.conv1.weight, bare or under {_OFFICIAL_PREFIX}"
        )
    layout = "official PixelCLIP" if official else "open_clip"
    return picked, LoadReport(source=source, layout=layout, ignored=tuple(ignored))


def load_into(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> LoadReport:
    """Loads a checkpoint's weights into a CLIP: all of them or none.

    Half precision is converted to the model's precision. A position embedding of another square grid is kept
    at its size: the dense encoder resizes it when it runs.

    Args:
        model: A model from `open_clip.create_model`, not on the meta device.
        state: Key → tensor, from `read_checkpoint`.
        source: File name of the checkpoint, for messages.

    Raises:
        CheckpointError: The checkpoint contains no CLIP, or a tensor is missing, unexpected or invalid. The
            model is unchanged.
    """
    picked, report = pick_clip(state, source=source)
    own = model.state_dict()
    shapes = {key: value.shape for key, value in own.items()}
    notes = []
    if resized := _is_other_grid(own.get(_POSITIONS), picked.get(_POSITIONS)):
        before, after = (math.isqrt(len(tensors[_POSITIONS])) for tensors in (own, picked))
        notes.append(f"position embedding of a {after}×{after} grid; the model had {before}×{before}")
        shapes[_POSITIONS] = picked[_POSITIONS].shape
    if "logit_scale" in shapes and "logit_scale" in picked and picked["logit_scale"].numel() == 1:
        picked["logit_scale"] = picked["logit_scale"].reshape(shapes["logit_scale"])  # (1,) in some files
    dtypes = {str(value.dtype).removeprefix("torch.") for value in picked.values()} - {"float32"}
    if dtypes:
        notes.append(f"converted to the model's precision from {', '.join(sorted(dtypes))}")
    report = _compared(report, picked, shapes)
    if not report.fits:
        raise CheckpointError(_mismatch(report, own, picked))
    if resized:
        visual = model.get_submodule("visual")
        visual.positional_embedding = nn.Parameter(
            own[_POSITIONS].new_empty(shapes[_POSITIONS]), visual.positional_embedding.requires_grad
        )
    model.load_state_dict(picked)
    return dataclasses.replace(report, loaded=len(picked), notes=tuple(notes))


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], *, source: str, what: str) -> None:
    """Loads weights with the model's own names into it: all of them or none.

    Args:
        model: The model.
        state: Key → tensor.
        source: File name of the checkpoint, for messages.
        what: Name of the model, for messages.

    Raises:
        CheckpointError: A tensor is missing, unexpected or invalid. The model is unchanged.
    """
    own = model.state_dict()
    floats = {  # without the counters of batch norm, which are integers
        key: value.float() if key in own and not own[key].is_floating_point() else value
        for key, value in state.items()
    }
    shapes = {key: value.shape for key, value in own.items()}
    report = _compared(LoadReport(source=source, layout="its own"), floats, shapes)
    if not report.fits:
        raise CheckpointError(
            f"{source} does not fit {what}. Give the --model it was trained from.\n{report}"
        )
    model.load_state_dict(state)


def _compared(
    report: LoadReport, state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]
) -> LoadReport:
    """Adds the missing, unexpected and invalid keys to a report."""
    reasons = {key: _invalid(state[key], shape) for key, shape in shapes.items() if key in state}
    return dataclasses.replace(
        report,
        missing=tuple(key for key in shapes if key not in state),
        unexpected=tuple(key for key in state if key not in shapes),
        invalid=tuple(f"{key} {reason}" for key, reason in reasons.items() if reason),
    )


def _is_other_grid(own: Tensor | None, other: Tensor | None) -> bool:
    """Returns True if two position embeddings have the same width and different square grids."""
    return (
        own is not None
        and other is not None
        and own.ndim == other.ndim == 2
        and own.shape != other.shape
        and own.shape[1] == other.shape[1]
        and len(other) > 1
        and math.isqrt(len(other) - 1) ** 2 == len(other) - 1
    )


def _invalid(value: Tensor, shape: torch.Size) -> str | None:
    """Returns why a tensor cannot be a weight of this shape, or None."""
    if value.shape != shape:
        return f"is {_size(value.shape)}, the model's is {_size(shape)}"
    if not value.is_floating_point():
        return f"is {str(value.dtype).removeprefix('torch.')}, not floating point"
    if not value.float().isfinite().all():
        return "has values that are not finite"
    return None


def _mismatch(report: LoadReport, own: Mapping[str, Tensor], picked: Mapping[str, Tensor]) -> str:
    """Returns an error message: the most likely reason, then the report."""
    expected, found = _family(own), _family(picked)
    if found == expected:
        reason = (
            "does not fit the model: it is incomplete or damaged, or its towers have another size. Download "
            "it again, or give the --model it was trained from."
        )
    else:
        examples = f", for example {_MODELS[found]}" if found in _MODELS else ""
        reason = (
            f"looks like a CLIP with a {found}; you asked for one with a {expected}. "
            f"Give the --model it was trained from{examples}."
        )
    return f"{report.source} {reason}\n{report}"


def _family(state: Mapping[str, Tensor]) -> str:
    """Returns the family of the image tower."""
    if "visual.trunk.stem.0.weight" in state:
        return "ConvNeXt"
    if "visual.layer1.0.conv1.weight" in state:
        return "ResNet"
    if "visual.class_embedding" in state and "visual.conv1.weight" in state:
        return f"ViT/{state['visual.conv1.weight'].shape[-1]}"
    return "tower of an unknown kind"


def _size(shape: torch.Size) -> str:
    return "×".join(map(str, shape)) or "a scalar"


def _grouped(keys: Iterable[str]) -> str:
    """Counts keys by their first two parts, with the first key of each group."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(".".join(key.partition(" ")[0].split(".")[:2]), []).append(key)
    shown = [
        f"{len(found)} × {name} ({found[0]})" if len(found) > 1 else found[0]
        for name, found in groups.items()
    ]
    more = f", … {len(shown) - _SHOWN} more groups" if len(shown) > _SHOWN else ""
    return (", ".join(shown[:_SHOWN]) or "none") + more
