"""Fine-tune a CLIP on photos with masks and without labels.

``python training/train.py --config training/configs/vit-b16.yaml images=PHOTOS masks=MASKS out=RUN``

Several GPUs: the same behind ``torchrun --nproc-per-node 4``. The same command again goes on where a run was
stopped. A run is a function of its settings: a step draws no random numbers, and what it reads depends on the
seed and the step's number alone, so that one that was interrupted ends where an uninterrupted one does.

Tried on CPUs, with one process and with two. No GPU was at hand: CUDA and NCCL have not been run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.contrib.logging import logging_redirect_tqdm

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.support.files import sha256
from pixelclip_sdk.support.signals import stop_signal
from training.data.photos import MaskedPhotos, Order, reading
from training.method.pixelclip import PixelCLIP
from training.runs import checkpoint
from training.runs.config import Config, ConfigError, load_config
from training.runs.failures import TrainingError, explained, last_good
from training.runs.run import assemble, restore_weights, starting_point
from training.runs.watch import Watch
from training.support import distributed

__all__ = ["TrainingError", "learning_rates", "main", "train"]

_log = logging.getLogger("training")

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# What may differ between a run and its continuation: nothing that changes the result. Files may have moved:
# the list of photos and the hash of the weights that it began from, which are compared, must be the same.
_FREE = {
    *("images", "masks", "checkpoint", "out", "device", "workers"),
    *("save_every", "keep", "log_every", "offline"),
}


def train(config: Config) -> Path:
    """Runs a training to its end, or until a signal stops it.

    Args:
        config: The settings.

    Returns:
        The newest weights, for ``export/to_onnx.py --checkpoint``.

    Raises:
        TrainingError: The loss or the gradient is not finite, memory is too little, or another process ended.
        PixelClipError: The settings, photos, weights or the output folder cannot be used.
    """
    with explained(config.out):
        device = distributed.join(config.device)
        try:
            return _train(config, device)
        finally:
            distributed.leave()


def _train(config: Config, device: torch.device) -> Path:
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as in the official code
    share = config.accumulate * distributed.world()
    if config.batch % share:
        raise ConfigError(f"batch is {config.batch}; expected a multiple of accumulate × processes, {share}")
    photos = MaskedPhotos(
        config.images,
        config.masks,
        short_side=config.short_side,
        long_side=config.long_side,
        crop=config.crop,
        imgsz=config.imgsz,
        mask_size=config.mask_size,
        seed=config.seed,
        vary=config.vary,
        strong=config.strong,
    )
    listed = {"count": len(photos), "sha256": photos.digest()}
    if not distributed.agree(int(listed["sha256"][:15], 16), device):
        raise ConfigError(
            f"the processes found different photos with masks; here are {len(photos)}, in {config.images} "
            f"and {config.masks}. All must see the same."
        )

    pair = starting_point(config)
    start = sha256(config.checkpoint) if config.checkpoint else None
    if config.imgsz % pair.input.multiple:
        raise ConfigError(f"imgsz is {config.imgsz}; {config.model} takes multiples of {pair.input.multiple}")
    model = assemble(config, pair).to(device)
    optimiser = torch.optim.AdamW(model.groups(), lr=0.0, weight_decay=config.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    saved = checkpoint.newest(config.out)
    first = 0
    if saved is not None:
        _check_same_run(config, listed, start, saved.notes)
        _restore(model, optimiser, scaler, saved)
        first = saved.step
        _log.info("going on from step %d of %s", first, config.out)
    if not distributed.agree(first, device):
        raise ConfigError(
            f"the processes found different checkpoints in {config.out}; all must see one folder"
        )
    parallel: nn.Module = model
    if distributed.world() > 1:
        moving = config.batch_norm == "updated"
        parallel = DistributedDataParallel(model, broadcast_buffers=moving)

    def save(step: int) -> None:
        failure: Exception | None = None
        if distributed.rank() == 0:
            notes = {"config": _plain(config), "photos": listed, "start": start}
            notes["scaler"] = scaler.state_dict()
            state = _state(model, optimiser)
            weights = pair.network.state_dict()
            try:
                checkpoint.save(config.out, step, weights=weights, state=state, notes=notes, keep=config.keep)
            except (PixelClipError, OSError) as error:
                failure = error
        # Told to all, who would wait for the first process otherwise.
        failed = distributed.total(torch.tensor(float(failure is not None), device=device)) > 0
        if failure is not None:
            raise failure
        if failed:
            raise TrainingError(
                f"the first process could not save step {step} and says why. {last_good(config.out)}"
            )

    parts = config.accumulate
    order = Order(
        len(photos),
        batch=config.batch,
        parts=parts,
        first=first,
        last=config.steps,
        seed=config.seed,
        rank=distributed.rank(),
        world=distributed.world(),
    )
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    _log.info(
        "%d photos, %d trained parameters of %s, %d steps of %d on %d × %s in %s",
        *(len(photos), sum(p.numel() for p in trained), config.model, config.steps, config.batch),
        *(distributed.world(), device.type, config.precision),
    )
    last = first
    with (
        contextlib.closing(Watch(config, first)) as watch,
        reading(photos, order, workers=config.workers, pin_memory=device.type == "cuda") as batches,
        stop_signal() as stopped,
        logging_redirect_tqdm(),
    ):
        for step in range(first, config.steps):
            for group, rate in zip(
                optimiser.param_groups, learning_rates(config, optimiser, step), strict=True
            ):
                group["lr"] = rate
            names: list[str] = []
            seen: list[dict[str, Tensor]] = []
            for part in range(parts):
                batch = next(batches)
                watch.skipped(batch)
                names += batch.names
                # Gradients of several parts are exchanged once, with the last.
                waiting = part + 1 < parts and isinstance(parallel, DistributedDataParallel)
                with parallel.no_sync() if waiting else contextlib.nullcontext():
                    with _autocast(config, device):
                        loss, stats = parallel(batch.to(device))
                    scaler.scale(loss / parts).backward()
                seen.append({"loss": loss.detach(), **stats})
            stats = _of_all_parts(seen)
            loss = stats.pop("loss")
            scaler.unscale_(optimiser)
            norm = nn.utils.clip_grad_norm_(trained, config.clip_norm)
            # In fp16 a gradient may overflow: the scaler then leaves the step out and scales less.
            usable = loss.isfinite() & (norm.isfinite() | scaler.is_enabled())
            if distributed.total((~usable).float()) > 0:
                raise TrainingError(_not_finite(step, loss, norm, names, config))
            scaler.step(optimiser)
            scaler.update()
            if scaler.get_scale() < 1:  # It begins at 65 536: gradients that have never fitted never will.
                raise TrainingError(
                    f"step {step + 1}: the gradient is not finite in fp16, however small the loss is scaled; "
                    f"such steps are left out. {last_good(config.out)} Take precision=bf16 or fp32."
                )
            optimiser.zero_grad(set_to_none=True)
            model.teacher.follow(model.student, config.momentum)

            done = step + 1
            told = {"loss": distributed.total(loss) / distributed.world(), "norm": norm, **stats}
            watch.step(done, told, {f"lr_{group['name']}": group["lr"] for group in optimiser.param_groups})
            stop = bool(distributed.total(torch.tensor(float(stopped()), device=device)) > 0)
            if stop or done % config.save_every == 0 or done == config.steps:
                save(done)
                last = done
            if stop and done < config.steps:
                _log.warning("stopped by a signal after step %d; the same command goes on from there", done)
                break
    return checkpoint.weights_file(config.out, last)


def learning_rates(config: Config, optimiser: torch.optim.Optimizer, step: int) -> list[float]:
    """Every group's rate at a step: a cosine from its own to `lr_final` of it, without warm-up."""
    share = (1 + math.cos(math.pi * step / config.steps)) / 2
    share = config.lr_final + (1 - config.lr_final) * share
    return [getattr(config, f"lr_{group['name']}") * share for group in optimiser.param_groups]


def _autocast(config: Config, device: torch.device) -> torch.autocast:
    dtype = _DTYPES.get(config.precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def _of_all_parts(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Scalars of a whole step from those of its parts: masks add up, all else is averaged."""
    stacked = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
    return {name: values.sum() if name == "masks" else values.mean() for name, values in stacked.items()}


def _not_finite(step: int, loss: Tensor, norm: Tensor, names: Sequence[str], config: Config) -> str:
    return (
        f"step {step + 1}: the loss is {float(loss)}, the gradient's norm {float(norm)}. The photos of this "
        f"process's batch: {', '.join(names)}. No weight was changed. {last_good(config.out)} "
        "Look at the photos, lower the learning rates, or train in precision=fp32."
    )


def _state(model: PixelCLIP, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that a step changes; the frozen text tower is not among it."""
    state = {f"model.{k}": v for k, v in model.state_dict().items() if not k.startswith("text.")}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for parameter, moments in optimiser.state.items():
        state |= {f"optimiser.{names[parameter]}.{key}": value for key, value in moments.items()}
    return state


def _restore(
    model: PixelCLIP,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    saved: checkpoint.Saved,
) -> None:
    """Puts back what `_state` returned."""
    restore_weights(model, saved)
    for name, parameter in model.named_parameters():
        prefix = f"optimiser.{name}."
        moments = {k.removeprefix(prefix): v for k, v in saved.state.items() if k.startswith(prefix)}
        if moments:  # the count of steps stays on the CPU, as AdamW keeps it
            optimiser.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in moments.items()
            }
    scaler.load_state_dict(saved.notes["scaler"])


def _plain(config: Config) -> dict[str, Any]:
    """The settings as JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def _check_same_run(
    config: Config, photos: Mapping[str, Any], start: str | None, notes: Mapping[str, Any]
) -> None:
    """Raises ConfigError where a checkpoint's run had other settings, start weights or list of photos."""
    now, before = _plain(config), notes["config"]
    # Older checkpoints have no hash of the weights, only their place; and some no photos.
    free = _FREE if "start" in notes else _FREE - {"checkpoint"}
    changed = [k for k in now if k not in free and now[k] != before.get(k)]
    if changed:
        what = ", ".join(f"{k} was {before.get(k)!r} and is {now[k]!r}" for k in changed)
        raise ConfigError(
            f"{config.out} holds a run with other settings: {what}. "
            "Take them back, or give another out=FOLDER."
        )
    if notes.get("start", start) != start:
        raise ConfigError(
            f"{config.out} holds a run that began from other weights than {config.checkpoint or config.model}"
            " has now. Take those back, or give another out=FOLDER."
        )
    seen = notes.get("photos", photos)
    if seen != photos:
        raise ConfigError(
            f"{config.out} holds a run over {seen['count']} photos with masks; {config.images} with "
            f"{config.masks} has {photos['count']}, of other names or number. Take back what was there, or "
            "give another out=FOLDER."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 130 where a signal stopped the run before its end."""
    parser = argparse.ArgumentParser(
        prog="train.py", description="Fine-tune a CLIP on photos with masks and without labels."
    )
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="settings, YAML")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the file's")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        config = load_config(options.config, options.overrides)
        weights = train(config)
    except (PixelClipError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train.py: interrupted; what was saved is as it was", file=sys.stderr)
        return 130
    if weights != checkpoint.weights_file(config.out, config.steps):
        print(f"train.py: stopped; the same command goes on from {weights}", file=sys.stderr)
        return 130
    print(f"weights: {weights}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
