"""Errors that end a training, with advice."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import distributed as dist

from pixelclip_sdk.errors import PixelClipError
from training.runs.checkpoint import weights_file

__all__ = ["TrainingError", "last_checkpoint", "translate_errors"]


class TrainingError(PixelClipError):
    """The training cannot continue."""


def last_checkpoint(folder: Path) -> str:
    """Return a sentence that names the run's newest checkpoint."""
    saved = sorted(folder.glob("step-*.json"))
    if not saved:
        return "No checkpoint was saved yet."
    weights = weights_file(folder, int(saved[-1].stem.removeprefix("step-")))
    return f"The last checkpoint is {weights}; the same command continues from there."


@contextlib.contextmanager
def translate_errors(folder: Path) -> Iterator[None]:
    """Turn torch's errors about memory, processes and connections into a TrainingError with advice."""
    try:
        yield
    except (RuntimeError, MemoryError, ConnectionError) as error:
        advice = _advice(error)
        if advice is None:
            raise
        reason = str(error).strip().partition("\n")[0]
        raise TrainingError(f"{advice} ({reason}). {last_checkpoint(folder)}") from error


def _advice(error: Exception) -> str | None:
    """Return what happened and what helps; None for an unknown error."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        return (
            "out of memory: use more processes, or start a new run (out=FOLDER) with a smaller batch, a "
            "larger accumulate or precision=bf16"
        )
    # The pipe of a killed worker may break before the DataLoader notices.
    if "DataLoader worker (pid" in text or isinstance(error, ConnectionError):
        return "a process that loads photos was killed, probably for lack of memory: use fewer workers"
    if isinstance(error, dist.DistError) or "gloo" in text:
        return "another process of the training ended or cannot be reached; see its messages"
    return None
