"""Fine-tune a CLIP on photos with masks and without labels.

``python training/train.py --config training/configs/vit-b16.yaml images=PHOTOS masks=MASKS out=RUN``

Start it behind ``torchrun --nproc-per-node 4`` to use several GPUs. The same command continues a stopped run.
A run depends on its settings alone: a step draws no random numbers, and its samples depend on the seed and
the step, so an interrupted run ends with the weights of an uninterrupted one.

Tested on CPUs with one and two processes. CUDA and NCCL have not been run.
"""

import argparse
import contextlib
import dataclasses
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.contrib.logging import logging_redirect_tqdm

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.files import sha256
from pixelclip_sdk.support.signals import stop_signal
from training.data.photos import Batch, MaskedPhotos, Order, reading
from training.runs import checkpoint, run
from training.runs.config import Config, ConfigError, load_config
from training.runs.errors import TrainingError, last_checkpoint, translate_errors
from training.runs.progress import Progress
from training.support import distributed
from training.support.processes import available_cores

__all__ = ["TrainingError", "learning_rates", "main", "train"]

_log = logging.getLogger("training")

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_MOST_WORKERS = 4  # by default


def train(config: Config) -> Path:
    """Run a training to its end, or until a signal stops it.

    Returns the newest weights, for ``export/to_onnx.py --checkpoint``. Raises TrainingError if the loss or
    gradient is not finite, memory ran out, or another process ended, and PixelClipError if the settings,
    photos, weights or output folder cannot be used.
    """
    saved = checkpoint.newest(config.out)
    if saved is not None:
        run.check_settings(config, saved)
    with translate_errors(config.out):
        device = distributed.join(config.device)
        try:
            return _train(config, device, saved)
        finally:
            distributed.leave()


def _train(config: Config, device: torch.device, saved: checkpoint.Saved | None) -> Path:
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as in the official code
    share = config.accumulate * distributed.world()
    if config.batch % share:
        raise ConfigError(f"batch is {config.batch}; expected a multiple of accumulate × processes, {share}")

    # Photos
    settings = [field.name for field in dataclasses.fields(MaskedPhotos)]
    photos = MaskedPhotos(**{name: getattr(config, name) for name in settings})
    listed = {"count": len(photos), "sha256": photos.digest()}
    if not distributed.agree(int(listed["sha256"][:15], 16), device):
        raise ConfigError(
            f"the processes found different photos with masks; this one found {len(photos)} in "
            f"{config.images} and {config.masks}. All processes must see the same files."
        )
    start = sha256(config.checkpoint) if config.checkpoint else None
    if saved is not None:
        run.check_inputs(config, listed, start, saved)

    # Model and optimiser
    pair = run.starting_point(config)
    if config.input_size % pair.input.multiple:
        raise ConfigError(
            f"input_size is {config.input_size}; {config.model} takes multiples of {pair.input.multiple}"
        )
    model = run.assemble(config, pair).to(device)
    optimiser = torch.optim.AdamW(model.groups(), lr=0.0, weight_decay=config.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    first = 0
    if saved is not None:
        run.restore(model, optimiser, scaler, saved)
        first = saved.step
        _log.info("continuing from step %d of %s", first, config.out)
    if not distributed.agree(first, device):
        raise ConfigError(f"the processes found different checkpoints in {config.out}; expected one folder")
    parallel: nn.Module = model
    if distributed.world() > 1:
        parallel = DistributedDataParallel(model, broadcast_buffers=config.batch_norm == "updated")
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]

    def save(step: int) -> None:
        failure: Exception | None = None
        if distributed.rank() == 0:
            notes = {"config": run.plain_settings(config), "photos": listed, "start": start}
            notes["scaler"] = scaler.state_dict()
            try:
                checkpoint.save(
                    config.out,
                    step,
                    weights=pair.network.state_dict(),
                    state=run.state_of(model, optimiser),
                    notes=notes,
                    keep=config.keep,
                )
            except (PixelClipError, OSError) as error:
                failure = error
        # All must know: the other processes would wait for the first one forever.
        if _any_process(failure is not None, device):
            problem = f"the first process could not save step {step}; see its message."
            raise failure or TrainingError(f"{problem} {last_checkpoint(config.out)}")

    # Steps
    order = Order(
        len(photos),
        batch=config.batch,
        parts=config.accumulate,
        first=first,
        last=config.steps,
        seed=config.seed,
        rank=distributed.rank(),
        world=distributed.world(),
    )
    workers = min(available_cores(), _MOST_WORKERS) if config.workers is None else config.workers
    _log.info(
        "%d photos, %d trained parameters of %s, %d steps of %d on %d × %s in %s",
        *(len(photos), sum(p.numel() for p in trained), config.model, config.steps, config.batch),
        *(distributed.world(), device.type, config.precision),
    )
    last = first
    with (
        contextlib.closing(Progress(config, first)) as progress,
        reading(photos, order, workers=workers, pin_memory=device.type == "cuda") as batches,
        stop_signal() as stopped,
        logging_redirect_tqdm(),
    ):
        for step in range(first, config.steps):
            rates = learning_rates(config, optimiser, step)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate
            values, names = _backward(config, parallel, scaler, batches, device, progress)
            loss = values.pop("loss")
            scaler.unscale_(optimiser)
            norm = nn.utils.clip_grad_norm_(trained, config.clip_norm)
            # In fp16 a gradient may overflow: the scaler then skips the step and lowers the scale.
            usable = bool(loss.isfinite() & (norm.isfinite() | scaler.is_enabled()))
            if _any_process(not usable, device):
                raise TrainingError(
                    f"step {step + 1}: the loss is {float(loss)}, the gradient norm {float(norm)}. Photos of "
                    f"this process's batch: {', '.join(names)}. No weight was changed. "
                    f"{last_checkpoint(config.out)} Check the photos, lower the learning rates, or use "
                    "precision=fp32."
                )
            scaler.step(optimiser)
            scaler.update()
            if scaler.get_scale() < 1:  # It starts at 65 536, so no gradient has ever fitted.
                raise TrainingError(
                    f"step {step + 1}: the gradient is not finite in fp16 at any loss scale. "
                    f"{last_checkpoint(config.out)} Use precision=bf16 or fp32."
                )
            optimiser.zero_grad(set_to_none=True)
            model.teacher.follow(model.student, config.momentum)

            done = step + 1
            report = {"loss": distributed.total(loss) / distributed.world(), "norm": norm, **values}
            shown = {f"lr_{group['name']}": group["lr"] for group in optimiser.param_groups}
            progress.report_step(done, report, shown)
            stop = _any_process(stopped(), device)
            if stop or done % config.save_every == 0 or done == config.steps:
                save(done)
                last = done
            if stop and done < config.steps:
                _log.warning("stopped by a signal after step %d; the same command continues from there", done)
                break
    return checkpoint.weights_file(config.out, last)


def _backward(
    config: Config,
    model: nn.Module,
    scaler: torch.amp.GradScaler,
    batches: Iterator[Batch],
    device: torch.device,
    progress: Progress,
) -> tuple[dict[str, Tensor], list[str]]:
    """Accumulate one step's gradients; return its scalars, with ``loss``, and the names of its photos."""
    dtype = _DTYPES.get(config.precision)
    names: list[str] = []
    values: list[dict[str, Tensor]] = []
    for part in range(config.accumulate):
        batch = next(batches)
        progress.report_skipped(batch.skipped)
        names += batch.names
        # Processes exchange the gradients once, with the last part.
        local = part + 1 < config.accumulate and isinstance(model, DistributedDataParallel)
        with model.no_sync() if local else contextlib.nullcontext():
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                loss, stats = model(batch.to(device))
            scaler.scale(loss / config.accumulate).backward()
        values.append({"loss": loss.detach(), **stats})
    return _combine(values), names


def learning_rates(config: Config, optimiser: torch.optim.Optimizer, step: int) -> list[float]:
    """Return each group's learning rate: a cosine from its own rate to `lr_final` of it, without warm-up."""
    share = (1 + math.cos(math.pi * step / config.steps)) / 2
    share = config.lr_final + (1 - config.lr_final) * share
    return [getattr(config, f"lr_{group['name']}") * share for group in optimiser.param_groups]


def _combine(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return a step's scalars from those of its parts: the sum of `masks`, the mean of all others."""
    stacked = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
    return {name: values.sum() if name == "masks" else values.mean() for name, values in stacked.items()}


def _any_process(value: bool, device: torch.device) -> bool:
    """Return whether the value is true in at least one process."""
    return bool(distributed.total(torch.tensor(float(value), device=device)) > 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 130 if a signal stopped the run before its end."""
    parser = argparse.ArgumentParser(
        prog="train.py", description="Fine-tune a CLIP on photos with masks and without labels."
    )
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="settings, YAML")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the file's")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return run_command("train.py", lambda: _run(options), interrupted="saved checkpoints are unchanged")


def _run(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.overrides)
    weights = train(config)
    if weights != checkpoint.weights_file(config.out, config.steps):
        print(f"train.py: stopped; the same command continues from {weights}", file=sys.stderr)
        return 130
    print(f"weights: {weights}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
