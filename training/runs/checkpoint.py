"""A run's checkpoints: three files a step, without pickles.

``step-00001000.weights.safetensors`` holds what ``export/to_onnx.py --checkpoint`` takes,
``step-00001000.state.safetensors`` all else a run needs to go on, and ``step-00001000.json`` the settings and
the hashes of both. The JSON is written last: files without one are of a save that did not end.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as dump
from torch import Tensor

from pixelclip_sdk.errors import CheckpointError
from pixelclip_sdk.support.files import atomic_write, sha256

__all__ = ["Saved", "newest", "save", "weights_file"]

_log = logging.getLogger(__name__)

_WEIGHTS, _STATE = ".weights.safetensors", ".state.safetensors"


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read.

    Attributes:
        step: Steps that were done.
        state: Tensors on the CPU.
        notes: What `save` was given.
    """

    step: int
    state: dict[str, Tensor]
    notes: dict[str, Any]


def weights_file(folder: Path, step: int) -> Path:
    """Where the weights of a step are."""
    return folder / f"{_stem(step)}{_WEIGHTS}"


def save(
    folder: Path,
    step: int,
    *,
    weights: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    notes: Mapping[str, Any],
    keep: int,
) -> None:
    """Writes a checkpoint, then deletes the oldest beyond `keep`, and any of later steps.

    Args:
        folder: The run's folder.
        step: Steps that were done.
        weights: What inference needs.
        state: What else the run needs to go on.
        notes: JSON values.
        keep: How many checkpoints stay, at least 1.

    Raises:
        OutputError: The disk is full or the folder cannot be written; older checkpoints are as they were.
    """
    hashes = {}
    for suffix, tensors in ((_WEIGHTS, weights), (_STATE, state)):
        path = folder / f"{_stem(step)}{suffix}"
        with atomic_write(path) as temporary:
            # Contiguous copies: safetensors refuses views and tensors that share memory.
            plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
            # Its own writer hides why it failed, and lets nobody else read the file.
            temporary.write_bytes(dump(plain))
            hashes[path.name] = sha256(temporary)
    with atomic_write(folder / f"{_stem(step)}.json") as temporary:
        temporary.write_text(json.dumps({"step": step, **notes, "sha256": hashes}, indent=1) + "\n")
    _rotate(folder, step, keep)


def newest(folder: Path) -> Saved | None:
    """Reads the newest checkpoint that is whole.

    Returns:
        None where there is none.

    Raises:
        CheckpointError: There are some, and all are damaged.
    """
    reasons = []
    for file in sorted(folder.glob("step-*.json"), reverse=True):
        try:
            notes = json.loads(file.read_text(encoding="utf-8"))
            for name, digest in notes["sha256"].items():
                if sha256(folder / name) != digest:
                    raise ValueError(f"{name} was changed or is cut off")
            state = load_file(folder / f"{_stem(notes['step'])}{_STATE}")
            return Saved(step=notes["step"], state=state, notes=notes)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            reasons.append(f"{file.name}: {error}")
            _log.warning("the checkpoint %s cannot be used (%s); trying the one before it", file, error)
    if reasons:
        raise CheckpointError(
            f"no checkpoint in {folder} can be used: {'; '.join(reasons)}. "
            "Give another out=FOLDER to begin anew."
        )
    return None


def _stem(step: int) -> str:
    return f"step-{step:08d}"


def _rotate(folder: Path, step: int, keep: int) -> None:
    """Keeps the newest up to this step; deletes others, the JSON first, and what saves that did not end left.

    Later ones are there where a run went on from an earlier one, because they were damaged.
    """
    notes = sorted(folder.glob("step-*.json"))
    kept = [path for path in notes if path.stem <= _stem(step)][-keep:]
    for other in set(notes) - set(kept):
        other.unlink(missing_ok=True)
    whole = {path.stem for path in kept}
    for suffix in (_WEIGHTS, _STATE):
        for path in folder.glob(f"step-*{suffix}"):
            if path.name.removesuffix(suffix) not in whole:
                path.unlink(missing_ok=True)
    for path in folder.glob(".step-*"):  # of `atomic_write`, in a process that was killed
        path.unlink(missing_ok=True)
