"""Checkpoints of a run: three files per step, without pickles.

``step-00001000.weights.safetensors`` holds the weights for ``export/to_onnx.py --checkpoint``,
``step-00001000.state.safetensors`` the rest of the run's state, and ``step-00001000.json`` its settings and
the hashes of both. The JSON file is written last: a step without one was not saved completely.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from pixelclip_sdk.errors import CheckpointError
from pixelclip_sdk.support.files import atomic_write, sha256
from pixelclip_sdk.support.json_files import read_json

__all__ = ["Saved", "newest", "save", "weights_file"]

_log = logging.getLogger(__name__)

_WEIGHTS, _STATE = ".weights.safetensors", ".state.safetensors"


@dataclass(frozen=True)
class Saved:
    """A checkpoint."""

    step: int  # number of steps done
    state: dict[str, Tensor]  # on the CPU
    notes: dict[str, Any]  # as given to `save`


def weights_file(folder: Path, step: int) -> Path:
    """Return the path of a step's weights."""
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
    """Write a checkpoint, then delete older ones beyond `keep` and any of later steps.

    `weights` are the tensors for inference, `state` the others that the run needs to continue, `notes` JSON
    values. Raises OutputError, for example if the disk is full; older checkpoints are then unchanged.
    """
    hashes = {}
    for suffix, tensors in ((_WEIGHTS, weights), (_STATE, state)):
        path = folder / f"{_stem(step)}{suffix}"
        with atomic_write(path) as temporary:
            # safetensors refuses views and tensors that share memory.
            copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
            # safetensors' save_file hides the reason of a failure and makes the file private.
            temporary.write_bytes(to_bytes(copies))
            hashes[path.name] = sha256(temporary)
    with atomic_write(folder / f"{_stem(step)}.json") as temporary:
        temporary.write_text(json.dumps({"step": step, **notes, "sha256": hashes}, indent=1) + "\n")
    _delete_others(folder, step, keep)


def newest(folder: Path) -> Saved | None:
    """Read the newest undamaged checkpoint, if any; CheckpointError if all are damaged."""
    reasons = []
    for file in sorted(folder.glob("step-*.json"), reverse=True):
        try:
            notes = read_json(file)
            for name, digest in notes["sha256"].items():
                if sha256(folder / name) != digest:
                    raise ValueError(f"{name} was changed or is truncated")
            state = load_file(folder / f"{_stem(notes['step'])}{_STATE}")
            return Saved(step=notes["step"], state=state, notes=notes)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            reasons.append(f"{file.name}: {error}")
            _log.warning("the checkpoint %s cannot be used (%s); trying the one before it", file, error)
    if reasons:
        raise CheckpointError(
            f"no checkpoint in {folder} can be used: {'; '.join(reasons)}. "
            "Give another out=FOLDER to start a new run."
        )
    return None


def _stem(step: int) -> str:
    return f"step-{step:08d}"


def _delete_others(folder: Path, step: int, keep: int) -> None:
    """Keep the newest `keep` checkpoints up to this step; delete all other files of checkpoints.

    Checkpoints of later steps exist if they were damaged and the run continued from an earlier one.
    """
    saved = sorted(path.stem for path in folder.glob("step-*.json"))
    kept = [stem for stem in saved if stem <= _stem(step)][-keep:]
    # The last are temporary files of a killed process.
    for pattern in ("step-*.json", f"step-*{_WEIGHTS}", f"step-*{_STATE}", ".step-*"):
        for path in folder.glob(pattern):
            if path.name.partition(".")[0] not in kept:
                path.unlink(missing_ok=True)
