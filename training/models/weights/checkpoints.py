"""State dicts of several origins, fitted strictly to an open_clip model.

Layouts that are understood: open_clip's own, which ours and OpenAI's share, and the official PixelCLIP
checkpoints', which keep the same names under a prefix, beside the teacher, the mask decoder and the prompts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pixelclip_sdk.errors import CheckpointError
from training.models.weights.reader import read_checkpoint

__all__ = ["KeyReport", "load_exactly", "load_into", "pick_clip", "read_checkpoint"]

_OFFICIAL_PREFIX = "sem_seg_head.predictor.clip_model."
# Put in front of every key by data-parallel training and by torch.compile.
_SHELLS = ("module.", "_orig_mod.")
# First parts of CLIP's keys. What begins otherwise, as OpenAI's `input_resolution` does, is no weight.
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
# (family, width of the first layer, blocks, width of the embeddings) → models of that build.
_MODELS = {
    ("ViT/16", 768, 12, 512): "pixelclip-vit-b16, pixelclip-vit-b16-dino or clip-vit-b16",
    ("ConvNeXt", 128, 36, 640): "pixelclip-convnext-b, pixelclip-convnext-b-dino or openclip-convnext-b",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeyReport:
    """What became of a checkpoint's keys.

    Attributes:
        source: The checkpoint, as its user named it.
        layout: `"open_clip"` or `"official PixelCLIP"`.
        loaded: Number of tensors that the model took.
        ignored: Keys that are not CLIP's: training state, constants.
        missing: Keys that the model needs and the checkpoint lacks.
        unexpected: Keys of CLIP that the model has no place for.
        unfit: Keys whose tensor has another shape, no floats, or values that are not finite, with the reason.
        notes: What was changed on the way: dtypes, size of the position embedding.
    """

    source: str
    layout: str
    loaded: int = 0
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    unfit: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """True when the model can be used with these weights."""
        return not (self.missing or self.unexpected or self.unfit)

    def __str__(self) -> str:
        lines = [f"{self.source} ({self.layout} layout): {self.loaded} tensors loaded"]
        for title, keys in (
            ("missing", self.missing),
            ("without a place in the model", self.unexpected),
            ("unfit", self.unfit),
            ("left out, not needed", self.ignored),
        ):
            if keys:
                lines.append(f"{len(keys)} {title}: {_grouped(keys)}")
        return "\n  ".join([*lines, *self.notes])


def pick_clip(state: Mapping[str, Tensor], *, source: str) -> tuple[dict[str, Tensor], KeyReport]:
    """Finds CLIP's weights in a checkpoint and gives them open_clip's names.

    Args:
        state: Key → tensor, as `read_checkpoint` returns it.
        source: The checkpoint's name for the messages.

    Returns:
        The weights, and a report of the layout and of the keys that were left out.

    Raises:
        CheckpointError: No CLIP is in it.
    """
    for shell in _SHELLS:
        if state and all(key.startswith(shell) for key in state):
            state = {key.removeprefix(shell): value for key, value in state.items()}
    official = any(key.startswith(_OFFICIAL_PREFIX) for key in state)
    prefix = _OFFICIAL_PREFIX if official else ""
    picked = {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(prefix) and key.removeprefix(prefix).partition(".")[0] in _CLIP_PARTS
    }
    if not any(key.startswith("visual.") for key in picked):
        hint = ""
        if any(key.startswith(("vision_model.", "text_model.")) for key in state):
            hint = " Those are the transformers library's names; take the weights in open_clip's format."
        raise CheckpointError(
            f"{source} holds no CLIP that is known here; its keys are {_grouped(state)}.{hint} "
            f"Expected names such as visual.conv1.weight, bare or under {_OFFICIAL_PREFIX}"
        )
    ignored = tuple(
        key for key in state if key.removeprefix(prefix) not in picked or not key.startswith(prefix)
    )
    layout = "official PixelCLIP" if official else "open_clip"
    return picked, KeyReport(source=source, layout=layout, ignored=ignored)


def load_into(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> KeyReport:
    """Copies a checkpoint's weights into a model; all of them or none.

    Half precision becomes the model's precision. A position embedding of another (square) grid is taken as
    it is: the dense encoder resizes it to the grid it runs at.

    Args:
        model: A CLIP of `open_clip.create_model`, on the CPU or another real device.
        state: Key → tensor, as `read_checkpoint` returns it.
        source: The checkpoint's name for the messages.

    Raises:
        CheckpointError: No CLIP is in it, tensors are missing, left over, of another shape or not finite. The
            model is as it was.
    """
    picked, report = pick_clip(state, source=source)
    own = model.state_dict()
    shapes = {key: value.shape for key, value in own.items()}
    notes = []
    if regrid := _is_other_grid(own.get(_POSITIONS), picked.get(_POSITIONS)):
        before, after = (math.isqrt(len(tensors[_POSITIONS])) for tensors in (own, picked))
        notes.append(f"position embedding of a {after}×{after} grid; the model had {before}×{before}")
        shapes[_POSITIONS] = picked[_POSITIONS].shape
    if "logit_scale" in shapes and "logit_scale" in picked and picked["logit_scale"].numel() == 1:
        picked["logit_scale"] = picked["logit_scale"].reshape(shapes["logit_scale"])  # (1,) in some files
    dtypes = {str(value.dtype).removeprefix("torch.") for value in picked.values()} - {"float32"}
    if dtypes:
        notes.append(f"converted to the model's precision from {', '.join(sorted(dtypes))}")
    reasons = {key: _unfit(picked[key], shapes[key]) for key in own if key in picked}
    report = dataclasses.replace(
        report,
        loaded=len(picked),
        missing=tuple(key for key in own if key not in picked),
        unexpected=tuple(key for key in picked if key not in own),
        unfit=tuple(f"{key} {reason}" for key, reason in reasons.items() if reason),
        notes=tuple(notes),
    )
    if not report.fits:
        raise CheckpointError(_misfit(dataclasses.replace(report, loaded=0), own, picked))
    if regrid:
        visual = model.get_submodule("visual")
        visual.positional_embedding = nn.Parameter(
            own[_POSITIONS].new_empty(shapes[_POSITIONS]), visual.positional_embedding.requires_grad
        )
    model.load_state_dict(picked)
    return report


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], *, source: str, what: str) -> None:
    """Copies weights of a model's own names into it; all of them or none.

    Args:
        model: The model.
        state: Key → tensor.
        source: The checkpoint's name for the message.
        what: The model's.

    Raises:
        CheckpointError: Tensors are missing, left over, of another shape or not finite. The model is as it
            was.
    """
    own = model.state_dict()
    # Counts, as batch norm's, are whole numbers.
    unfit = {
        key: _unfit(state[key] if value.is_floating_point() else state[key].float(), value.shape)
        for key, value in own.items()
        if key in state
    }
    report = KeyReport(
        source=source,
        layout="its own",
        missing=tuple(key for key in own if key not in state),
        unexpected=tuple(key for key in state if key not in own),
        unfit=tuple(f"{key} {reason}" for key, reason in unfit.items() if reason),
    )
    if not report.fits:
        raise CheckpointError(f"{source} does not fit {what}. Give --model what it was trained as.\n{report}")
    model.load_state_dict(state)


def _is_other_grid(own: Tensor | None, other: Tensor | None) -> bool:
    """True for two position embeddings of one width: a class token's, then those of a square grid."""
    return (
        own is not None
        and other is not None
        and own.ndim == other.ndim == 2
        and own.shape != other.shape
        and own.shape[1] == other.shape[1]
        and len(other) > 1
        and math.isqrt(len(other) - 1) ** 2 == len(other) - 1
    )


def _unfit(value: Tensor, shape: torch.Size) -> str | None:
    """Why a tensor cannot be a weight of that shape."""
    if value.shape != shape:
        return f"is {_size(value.shape)}, the model's is {_size(shape)}"
    if not value.is_floating_point():
        return f"is of {str(value.dtype).removeprefix('torch.')}, not floating point"
    if not value.float().isfinite().all():
        return "has values that are not finite"
    return None


def _misfit(report: KeyReport, own: Mapping[str, Tensor], picked: Mapping[str, Tensor]) -> str:
    """The report, led by the likeliest reason."""
    wanted, found = _build(own), _build(picked)
    if found == wanted:
        return (
            f"{report.source} does not fit the model, though its image tower has the right build: it is "
            f"incomplete, damaged, or has another text encoder. Get it again, or use another.\n{report}"
        )
    model = f"--model {_MODELS[found]}" if found in _MODELS else "the --model that it was trained as"
    return (
        f"{report.source} looks like {_described(found)}; you asked for {_described(wanted)}. "
        f"Use {model}.\n{report}"
    )


def _build(state: Mapping[str, Tensor]) -> tuple[str, int, int, int]:
    """(family, width of the first layer, blocks, width of the embeddings), by telltale keys; 0 if unknown."""

    def side(key: str, axis: int) -> int:
        return state[key].shape[axis] if key in state and state[key].ndim > axis else 0

    embedding = side("visual.proj", 1) or side("visual.head.proj.weight", 0) or side("text_projection", 1)
    if "visual.trunk.stem.0.weight" in state:
        return "ConvNeXt", side("visual.trunk.stem.0.weight", 0), _count(state, ".conv_dw.weight"), embedding
    if "visual.class_embedding" in state:
        patch, width = side("visual.conv1.weight", 3), side("visual.conv1.weight", 0)
        return f"ViT/{patch}", width, _count(state, ".mlp.c_fc.weight"), embedding
    if "visual.layer1.0.conv1.weight" in state:
        return "ResNet", side("visual.conv1.weight", 0), _count(state, ".conv3.weight"), embedding
    return "unknown", 0, 0, embedding


def _count(state: Mapping[str, Tensor], suffix: str) -> int:
    return sum(key.startswith("visual.") and key.endswith(suffix) for key in state)


def _described(build: tuple[str, int, int, int]) -> str:
    family, width, blocks, embedding = build
    return f"a CLIP with a {family} of {blocks} blocks ({width} wide at first, embeddings {embedding} wide)"


def _size(shape: torch.Size) -> str:
    return "×".join(map(str, shape)) or "a scalar"


def _grouped(keys: Iterable[str]) -> str:
    """Counts by the first two parts of the keys, with the first key of each group."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(".".join(key.partition(" ")[0].split(".")[:2]), []).append(key)
    shown = [
        f"{len(found)} × {name} ({found[0]})" if len(found) > 1 else found[0]
        for name, found in groups.items()
    ]
    more = f", … {len(shown) - _SHOWN} more groups" if len(shown) > _SHOWN else ""
    return (", ".join(shown[:_SHOWN]) or "none") + more
