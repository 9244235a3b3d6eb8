"""Progress bar, log lines, ``log.jsonl`` and TensorBoard curves of a run."""

import contextlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from tqdm import tqdm

from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.support.packages import imported
from training.support import distributed

__all__ = ["Progress"]

_log = logging.getLogger(__name__)


class _Settings(Protocol):
    out: Path
    steps: int
    log_every: int


class Progress:
    """Reports the steps of a run that starts at step `first`. Only the first process writes files."""

    def __init__(self, config: _Settings, first: int) -> None:
        self.config, self.first = config, first
        self.started = time.monotonic()
        self.skipped_files: set[str] = set()
        self.is_first = distributed.rank() == 0
        # disable=None shows the bar on a terminal only.
        self.bar = tqdm(
            initial=first, total=config.steps, unit="step", disable=None if self.is_first else True
        )
        self.tensorboard: Any = None
        self.file = config.out / "log.jsonl"
        if self.is_first:
            self._drop_lines_after(first)
            writer = imported("torch.utils.tensorboard").SummaryWriter
            self.tensorboard = writer(str(config.out / "tensorboard"), purge_step=first)

    def report_skipped(self, reasons: Sequence[str]) -> None:
        """Log each file that could not be used, once."""
        for reason in reasons:
            if reason not in self.skipped_files:
                self.skipped_files.add(reason)
                _log.warning("skipped, %d so far: %s", len(self.skipped_files), reason)

    def report_step(self, done: int, values: Mapping[str, Tensor], rates: Mapping[str, float]) -> None:
        """Report scalars after step `done`; the learning rates go to the files only."""
        self.bar.update()
        config = self.config
        if not self.is_first or (done % config.log_every and done != config.steps):
            return
        numbers = {name: float(value) for name, value in values.items()}
        pace = (time.monotonic() - self.started) / (done - self.first)
        left = tqdm.format_interval(pace * (config.steps - done))
        shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        _log.info("step %d/%d  %s  %.2f s/step  %s left", done, config.steps, shown, pace, left)
        numbers |= rates
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": done, **numbers}) + "\n")
        for name, value in numbers.items():
            self.tensorboard.add_scalar(name, value, done)

    def close(self) -> None:
        """Close the bar and TensorBoard's file."""
        self.bar.close()
        if self.tensorboard is not None:
            self.tensorboard.close()

    def _drop_lines_after(self, step: int) -> None:
        """Remove log lines of steps after the checkpoint; a killed run may have logged them."""
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        kept = []
        for line in lines:
            with contextlib.suppress(ValueError):  # The last line of a killed run may be cut off.
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
        with atomic_write(self.file) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
