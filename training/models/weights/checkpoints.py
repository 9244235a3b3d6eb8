"""Loads the weights of a checkpoint into an open_clip model, strictly.

Two layouts are supported: open_clip's, which our runs and OpenAI's weights share, and the official PixelCLIP
layout, which has the same names under a prefix, next to the teacher, the mask decoder and the prompts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from pixelclip_sdk.errors import CheckpointError
from training.models.weights.reader import read_checkpoint

__all__ = ["load_exactly", "load_into", "pick_clip", "read_checkpoint"]

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


def pick_clip(state: Mapping[str, Tensor], *, source: str) -> tuple[dict[str, Tensor], list[str]]:
    """Selects CLIP's weights from a checkpoint and renames them to open_clip's names.

    Returns them and the other keys (training state, constants). `source` is the file name, for messages.
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
    return picked, ignored


def load_into(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> list[str]:
    """Loads a checkpoint's weights into a CLIP: all of them or none.

    Half precision is converted to the model's precision. A position embedding of another square grid is kept
    at its size: the dense encoder resizes it when it runs.

    Returns:
        The keys that are not CLIP weights.

    Raises:
        CheckpointError: The checkpoint contains no CLIP, or a tensor is missing, unexpected or invalid. The
            model is unchanged.
    """
    picked, ignored = pick_clip(state, source=source)
    own = model.state_dict()
    expected = dict(own)
    if resized := _is_other_grid(own.get(_POSITIONS), picked.get(_POSITIONS)):
        expected[_POSITIONS] = own[_POSITIONS].new_empty(picked[_POSITIONS].shape)
    if "logit_scale" in own and "logit_scale" in picked and picked["logit_scale"].numel() == 1:
        picked["logit_scale"] = picked["logit_scale"].reshape(own["logit_scale"].shape)  # (1,) in some files
    if problems := _problems(picked, expected):
        raise CheckpointError(f"{source} {_reason(own, picked)}\n  {problems}")
    if resized:
        visual = model.get_submodule("visual")
        trained = visual.positional_embedding.requires_grad
        visual.positional_embedding = nn.Parameter(expected[_POSITIONS], trained)
    model.load_state_dict(picked)
    return ignored


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], *, source: str, what: str) -> None:
    """Loads weights with the model's own names into it: all of them or none.

    Raises:
        CheckpointError: A tensor is missing, unexpected or invalid. The model is unchanged. The message names
            the file `source` and the model `what`.
    """
    if problems := _problems(state, model.state_dict()):
        raise CheckpointError(
            f"{source} does not fit {what}. Give the --model it was trained from.\n  {problems}"
        )
    model.load_state_dict(state)


def _problems(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Describes the missing, unexpected and invalid tensors, one line each; empty if all fit."""
    reasons = {key: _invalid(state[key], own) for key, own in expected.items() if key in state}
    found = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "invalid": [f"{key} {reason}" for key, reason in reasons.items() if reason],
    }
    return "\n  ".join(f"{len(keys)} {title}: {_grouped(keys)}" for title, keys in found.items() if keys)


def _invalid(value: Tensor, own: Tensor) -> str | None:
    """Returns why a tensor cannot replace the model's own, or None."""
    if value.shape != own.shape:
        return f"is {_size(value)}, the model's is {_size(own)}"
    if own.is_floating_point() and not value.is_floating_point():
        return f"is {str(value.dtype).removeprefix('torch.')}, not floating point"
    return None if value.float().isfinite().all() else "has values that are not finite"


def _is_other_grid(own: Tensor | None, other: Tensor | None) -> bool:
    """Returns True if two position embeddings have the same width and different square grids."""
    if own is None or other is None or own.ndim != 2 or other.ndim != 2 or own.shape == other.shape:
        return False
    cells = len(other) - 1  # without the class token
    return own.shape[1] == other.shape[1] and cells > 0 and math.isqrt(cells) ** 2 == cells


def _reason(own: Mapping[str, Tensor], picked: Mapping[str, Tensor]) -> str:
    """Returns the most likely reason why weights do not fit, and what to do."""
    expected, found = _family(own), _family(picked)
    if found == expected:
        return (
            "does not fit the model: it is incomplete or damaged, or its towers have another size. Download "
            "it again, or give the --model it was trained from."
        )
    examples = f", for example {_MODELS[found]}" if found in _MODELS else ""
    return (
        f"looks like a CLIP with a {found}; you asked for one with a {expected}. "
        f"Give the --model it was trained from{examples}."
    )


def _family(state: Mapping[str, Tensor]) -> str:
    """Returns the family of the image tower."""
    if "visual.trunk.stem.0.weight" in state:
        return "ConvNeXt"
    if "visual.layer1.0.conv1.weight" in state:
        return "ResNet"
    if "visual.class_embedding" in state and "visual.conv1.weight" in state:
        return f"ViT/{state['visual.conv1.weight'].shape[-1]}"
    return "tower of an unknown kind"


def _size(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"


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
