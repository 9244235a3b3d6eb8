"""A training run, built from its settings or opened from its folder."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelclip_sdk.errors import CheckpointError
from training.method.pixelclip import PixelCLIP
from training.models.load import load_model
from training.models.pair import EncoderPair
from training.runs import checkpoint
from training.runs.config import Config, ConfigError, config_of
from training.runs.resume import restore_weights
from training.support.arguments import read_words

__all__ = ["Run", "assemble", "open_run", "starting_point", "with_weights"]


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
    return load_model(
        config.model,
        checkpoint=config.checkpoint,
        random_weights=config.random_weights,
        seed=config.seed,
        offline=config.offline,
    )


def assemble(config: Config, pair: EncoderPair) -> PixelCLIP:
    """Build the method's model around the encoders."""
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


def open_run(folder: Path, **overrides: Any) -> Run:
    """Open the newest checkpoint of a run, on the CPU.

    `overrides` replace the run's settings, for files that have moved; None keeps the run's setting.

    Raises:
        CheckpointError: There is no checkpoint, or it or the model's weights cannot be used.
        ConfigError: The settings cannot be read, or the checkpoint is of another model.
    """
    saved = checkpoint.newest(folder)
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
        restore_weights(model, saved)
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
