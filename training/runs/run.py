"""A training run: put together from its settings, and opened again from its folder."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pixelclip_sdk.errors import CheckpointError
from training.method.pixelclip import PixelCLIP
from training.models.load import load_model
from training.models.pair import EncoderPair
from training.runs import checkpoint
from training.runs.config import Config, ConfigError, config_of
from training.support.arguments import read_words

__all__ = ["Run", "assemble", "open_run", "restore_weights", "starting_point", "with_weights"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as its newest checkpoint has it.

    Attributes:
        name: The folder's.
        step: Steps that were done.
        config: The settings; those that were overridden are the new ones.
        start: The encoders that it began with.
        pair: The encoders now; the text tower is the same module.
        model: Student, teacher, prompts and decoder; its student is the image encoder of `pair`.
    """

    name: str
    step: int
    config: Config
    start: EncoderPair
    pair: EncoderPair
    model: PixelCLIP


def starting_point(config: Config) -> EncoderPair:
    """Loads the encoders that a run starts from.

    Raises:
        PixelClipError: See `load_model`.
    """
    return load_model(
        config.model,
        checkpoint=config.checkpoint,
        random_weights=config.random_weights,
        seed=config.seed,
        offline=config.offline,
    )


def assemble(config: Config, pair: EncoderPair) -> PixelCLIP:
    """All that a step needs, as the settings say.

    Args:
        config: The settings.
        pair: The encoders to start from.

    Raises:
        PixelClipError: See `PixelCLIP` and `read_words`.
    """
    return PixelCLIP(
        pair,
        trainable=config.trainable,
        clusters=config.clusters,
        words=config.words,
        templates=config.templates,
        epsilon=config.epsilon,
        classes=config.classes,
        names=read_words(config.names),
        clustering=config.clustering,
        centre=config.centre,
        queue=config.queue,
        decoder_width=config.decoder_width,
        batch_norm=config.batch_norm,
        seed=config.seed,
    )


def restore_weights(model: nn.Module, saved: checkpoint.Saved) -> None:
    """Puts a checkpoint's tensors into a model; the frozen text tower is not among them.

    Raises:
        ConfigError: They are another model's.
    """
    weights = {k.removeprefix("model."): v for k, v in saved.state.items() if k.startswith("model.")}
    what = f"the checkpoint of step {saved.step} is of another model"
    try:
        report = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # another shape; the first line is a title
        raise ConfigError(f"{what}: {str(error).splitlines()[1].strip()}") from error
    missing = [key for key in report.missing_keys if not key.startswith("text.")]
    if missing or report.unexpected_keys:
        example = [*missing, *report.unexpected_keys][0]
        raise ConfigError(
            f"{what}: it lacks {len(missing)} tensors and has {len(report.unexpected_keys)} others, "
            f"such as {example}"
        )


def open_run(folder: Path, **overrides: Any) -> Run:
    """Opens the newest checkpoint of a run, on the CPU.

    Args:
        folder: The run's folder, which ``training/train.py`` wrote.
        overrides: Settings that win over the run's: files that have moved since. None is no override.

    Raises:
        CheckpointError: There is no checkpoint, or it or the model's weights cannot be used.
        ConfigError: The settings cannot be read, or the checkpoint is of another model.
    """
    saved = checkpoint.newest(folder)
    if saved is None:
        raise CheckpointError(
            f"there is no checkpoint in {folder}; expected step-N.json, step-N.weights.safetensors and "
            "step-N.state.safetensors, which training/train.py writes"
        )
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        config = dataclasses.replace(config_of(saved.notes["config"]), **given)
        pair = starting_point(config)
        start = dataclasses.replace(pair, image=copy.deepcopy(pair.image))
        model = assemble(config, pair)
        restore_weights(model, saved)
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"the settings in {folder} cannot be read ({error!r}); expected a run of training/train.py"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{folder}: {error}") from error
    except CheckpointError as error:
        raise CheckpointError(
            f"the run {folder} began from the model {config.model}: {error}. "
            "If a file of it has moved, say where to: --model, --checkpoint"
        ) from error
    return Run(
        name=folder.resolve().name,
        step=saved.step,
        config=config,
        start=start,
        pair=pair,
        model=model.eval(),
    )


def with_weights(run: Run, weights: Path) -> EncoderPair:
    """The run's encoders with other weights, such as those that ``training/average.py`` wrote.

    Args:
        run: The run.
        weights: What ``export/to_onnx.py --checkpoint`` takes for its model.

    Raises:
        CheckpointError: The file cannot be read, or is of another model.
    """
    config = dataclasses.replace(run.config, checkpoint=weights, random_weights=False)
    return starting_point(config)
