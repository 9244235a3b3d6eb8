"""What a person sees of a run."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from pixelclip_sdk.support.files import atomic_write
from training.data.photos import Batch
from training.runs.config import Config
from training.support import distributed

__all__ = ["Watch"]

_log = logging.getLogger(__name__)


class Watch:
    """Progress, the log, ``log.jsonl`` and TensorBoard, on the first process.

    Args:
        config: The run's settings.
        first: The step it begins with.
    """

    def __init__(self, config: Config, first: int) -> None:
        self.config, self.first, self.began = config, first, time.monotonic()
        self.reasons: set[str] = set()
        self.leads = distributed.rank() == 0
        # On a terminal only; elsewhere the log's lines tell the same.
        self.bar = tqdm(initial=first, total=config.steps, unit="step", disable=None if self.leads else True)
        self.board: Any = None
        self.file = config.out / "log.jsonl"
        if self.leads:
            self._forget_after(first)
            self.board = _board(config.out / "tensorboard", first)

    def skipped(self, batch: Batch) -> None:
        """Names and counts the files of a batch that could not be used, each once."""
        for reason in batch.skipped:
            if reason not in self.reasons:
                self.reasons.add(reason)
                _log.warning("skipped, %d so far: %s", len(self.reasons), reason)

    def step(self, done: int, values: Mapping[str, Tensor], rates: Mapping[str, float]) -> None:
        """Tells of a step.

        Args:
            done: Steps that were done.
            values: Scalars by name.
            rates: Learning rates of the step by name; they go into the files only.
        """
        self.bar.update()
        config = self.config
        if not self.leads or (done % config.log_every and done != config.steps):
            return
        numbers = {name: float(value) for name, value in values.items()}
        pace = (time.monotonic() - self.began) / (done - self.first)
        left = tqdm.format_interval(pace * (config.steps - done))
        shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        _log.info("step %d/%d  %s  %.2f s/step  %s left", done, config.steps, shown, pace, left)
        numbers |= rates
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": done, **numbers}) + "\n")
        if self.board is not None:
            for name, value in numbers.items():
                self.board.add_scalar(name, value, done)

    def _forget_after(self, step: int) -> None:
        """Takes steps that a killed run did but did not save off the log: they come again."""
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        kept = []
        for line in lines:
            with contextlib.suppress(ValueError):  # the last line of a killed run may be half
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
        with atomic_write(self.file) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")

    def close(self) -> None:
        """Ends the bar and TensorBoard's file."""
        self.bar.close()
        if self.board is not None:
            self.board.close()


def _board(folder: Path, first: int) -> Any:
    """TensorBoard's writer; None, said once, where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        _log.warning(
            "no curves for TensorBoard: %s. Install it: pip install tensorboard. log.jsonl has all numbers.",
            error,
        )
        return None
    return SummaryWriter(str(folder), purge_step=first)
