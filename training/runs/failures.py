"""What ends a training early, said for people."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import distributed as dist

from pixelclip_sdk.errors import PixelClipError
from training.runs.checkpoint import weights_file

__all__ = ["TrainingError", "explained", "last_good"]


class TrainingError(PixelClipError):
    """The training cannot go on."""


def last_good(folder: Path) -> str:
    """A sentence about the checkpoint that a run has to go on from."""
    saved = sorted(folder.glob("step-*.json"))
    if not saved:
        return "No checkpoint was saved yet."
    weights = weights_file(folder, int(saved[-1].stem.removeprefix("step-")))
    return f"Of the checkpoints, {weights} is the last good one; the same command goes on from there."


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Says what to do where torch fails for lack of memory, of a process or of a connection.

    Args:
        folder: The run's.

    Raises:
        TrainingError: It failed so.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if (what := _explanation(error)) is None:
            raise
        reason = str(error).strip().partition("\n")[0]
        raise TrainingError(f"{what} ({reason}). {last_good(folder)}") from error


def _explanation(error: RuntimeError | MemoryError) -> str | None:
    """What happened and what helps; None for what is not known here."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        return (
            "out of memory: more processes would share the batch; else begin anew, in another out=FOLDER, "
            "with a smaller batch, a higher accumulate or precision=bf16"
        )
    if "DataLoader worker (pid" in text:  # others are errors of our own code in a worker
        return "a process that reads photos was ended, likely for lack of memory: take fewer workers"
    if isinstance(error, dist.DistError) or "gloo" in text:
        return "another process of the training ended or cannot be reached; see what it says"
    return None
