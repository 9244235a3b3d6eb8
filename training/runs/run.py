"""A training run: built from its settings, opened from its folder, or continued.

A run may only continue with equal settings, start weights and photos, because it must end with the weights of
an uninterrupted run.
"""

import copy
import dataclasses
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelclip_sdk.errors import CheckpointError
from training.method.pixelclip import PixelCLIP
from training.models.load import load_model
from training.models.pair import EncoderPair
from training.runs.checkpoint import Saved, newest, weights_file
from training.runs.config import Config, ConfigError, config_of
from training.support.arguments import read_words

__all__ = [
    "Run",
    "assemble",
    "check_inputs",
    "check_settings",
    "open_run",
    "plain_settings",
    "restore",
    "starting_point",
    "state_of",
    "with_weights",
]

# Settings that do not change the result. Photos and weights may move; their contents are compared.
_FREE = {
    "images",
    "masks",
    "checkpoint",
    "teacher_checkpoint",
    "out",
    "device",
    "workers",
    "save_every",
    "keep",
    "log_every",
    "offline",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run at its newest checkpoint."""

    name: str  # of its folder
    step: int  # number of steps done
    config: Config  # with overrides applied
    start: EncoderPair  # the encoders before training
    pair: EncoderPair  # the encoders now; the text tower is the same module
    model: PixelCLIP  # its student is the image encoder of `pair`


def starting_point(config: Config) -> EncoderPair:
    """Load the encoders that a run starts from."""
    settings = ("checkpoint", "random_weights", "seed", "offline")
    return load_model(config.model, **{name: getattr(config, name) for name in settings})


def assemble(config: Config, pair: EncoderPair) -> PixelCLIP:
    """Build the method's model around the encoders."""
    settings = inspect.signature(PixelCLIP).parameters.keys() - {"pair", "names"}
    given = {name: getattr(config, name) for name in settings}
    return PixelCLIP(pair, names=read_words(config.names), **given)


def open_run(folder: Path, **overrides: Any) -> Run:
    """Open the newest checkpoint of a run, on the CPU.

    `overrides` replace the run's settings, for files that have moved; None keeps the run's setting.
    """
    saved = newest(folder)
    if saved is None:
        raise CheckpointError(
            f"there is no checkpoint in {folder}; expected step-N.json, step-N.weights.safetensors and "
            "step-N.state.safetensors, written by training/train.py"
        )
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        config = dataclasses.replace(config_of(saved.notes["config"]), **given)
        pair = starting_point(config)
        start = dataclasses.replace(pair, image=copy.deepcopy(pair.image))
        model = assemble(config, pair)
        _restore_weights(model, saved)
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"the settings in {folder} cannot be read ({error!r}); expected a run of training/train.py"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{folder}: {error}") from error
    except CheckpointError as error:
        raise CheckpointError(
            f"the run {folder} started from the model {config.model}: {error}. "
            "If its files have moved, give --model or --checkpoint"
        ) from error
    name = folder.resolve().name
    return Run(name=name, step=saved.step, config=config, start=start, pair=pair, model=model.eval())


def with_weights(run: Run, weights: Path) -> EncoderPair:
    """Return the run's encoders with other weights, for example those of ``training/average.py``."""
    config = dataclasses.replace(run.config, checkpoint=weights, random_weights=False)
    return starting_point(config)


def plain_settings(config: Config) -> dict[str, Any]:
    """Return the settings as JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def check_settings(config: Config, saved: Saved) -> None:
    """Raise ConfigError if a setting that changes the result differs from the saved run's."""
    before, now = saved.notes["config"], plain_settings(config)
    changed = [name for name in now if name not in _FREE and now[name] != before.get(name)]
    if not changed:
        return
    listed = ", ".join(f"{name} was {before.get(name)!r} and is {now[name]!r}" for name in changed)
    advice = "Use the old values, or give another out=FOLDER to start a new run"
    if changed == ["steps"]:
        advice = (
            "The learning rates follow a cosine over all steps, so the length of a run is fixed. To train "
            f"further, start a new run from its weights: checkpoint={weights_file(config.out, saved.step)} "
            "out=FOLDER"
        )
    raise ConfigError(f"{config.out} holds a run with other settings: {listed}. {advice}.")


def check_inputs(config: Config, photos: Mapping[str, Any], start: str | None, saved: Saved) -> None:
    """Raise ConfigError unless photos (count and hash of their list) and start weights are the saved ones."""
    advice = "Restore them, or give another out=FOLDER to start a new run."
    if saved.notes["start"] != start:
        raise ConfigError(
            f"{config.out} holds a run with other start weights than {config.checkpoint or config.model}. "
            f"{advice}"
        )
    before = saved.notes["photos"]
    if before != photos:
        raise ConfigError(
            f"{config.out} holds a run over {before['count']} photos with masks; {config.images} with "
            f"{config.masks} has {photos['count']}, or other names. {advice}"
        )


def state_of(model: PixelCLIP, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return all tensors that a step changes; the frozen text tower is not among them."""
    state = {f"model.{k}": v for k, v in model.state_dict().items() if not k.startswith("text.")}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for parameter, moments in optimiser.state.items():
        state |= {f"optimiser.{names[parameter]}.{key}": value for key, value in moments.items()}
    return state


def restore(
    model: PixelCLIP, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler, saved: Saved
) -> None:
    """Load the tensors of `state_of` and the state of the scaler."""
    _restore_weights(model, saved)
    for name, parameter in model.named_parameters():
        prefix = f"optimiser.{name}."
        moments = {k.removeprefix(prefix): v for k, v in saved.state.items() if k.startswith(prefix)}
        if moments:  # AdamW keeps its step count on the CPU.
            optimiser.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in moments.items()
            }
    scaler.load_state_dict(saved.notes["scaler"])


def _restore_weights(model: nn.Module, saved: Saved) -> None:
    """Load a checkpoint into a model; the frozen text tower keeps its weights."""
    weights = {k.removeprefix("model."): v for k, v in saved.state.items() if k.startswith("model.")}
    problem = f"the checkpoint of step {saved.step} is of another model"
    try:
        keys = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # A shape differs. The first line of the message is a title.
        raise ConfigError(f"{problem}: {str(error).splitlines()[1].strip()}") from error
    missing = [key for key in keys.missing_keys if not key.startswith("text.")]
    if missing or keys.unexpected_keys:
        raise ConfigError(
            f"{problem}: {len(missing)} tensors are missing and {len(keys.unexpected_keys)} are unknown, "
            f"for example {[*missing, *keys.unexpected_keys][0]}"
        )
