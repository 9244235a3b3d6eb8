"""A run's settings: a YAML file and ``key=value`` on the command line, checked before anything starts."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pixelclip_sdk.errors import PixelClipError

__all__ = ["Config", "ConfigError", "config_of", "load_config"]


class ConfigError(PixelClipError, ValueError):
    """A setting is unknown or cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a training run. Defaults are the paper's for the ViT-B/16.

    Attributes:
        images: Folder of photos.
        masks: Folder of their masks, which ``training/make_masks.py`` writes.
        out: Folder for checkpoints and logs. A run that finds its own checkpoints there goes on.
        model: A model's name, as in ``export/to_onnx.py``, or a ``.json`` file: an open_clip configuration
            (in a YAML file its path is from that file's folder).
        checkpoint: Weights to start from; None for those the name stands for.
        random_weights: Start from random weights instead: for tests.
        trainable: Regular expression over the image encoder's parameter names.
        batch_norm: ``frozen`` or ``updated`` statistics.
        short_side: Photos are seen as if their short side had this many pixels …
        long_side: … or less, where the long side would have more than this; None for no bound …
        crop: … a square of so many of them is cut out …
        imgsz: … and brought to this side for the encoder.
        mask_size: Side that masks are pooled and compared at.
        vary: Change light and colours of the photos, for teacher and student alike.
        strong: Augment the student's photos more.
        clusters: k, number of class prompts.
        words: l, learnable words a prompt.
        templates: Sentences the prompts are put into; several make an ensemble.
        epsilon: ε of the clustering.
        momentum: γ of the teacher; 0 for no momentum (the teacher is the student), 1 for a fixed teacher.
        classes: ``prompts``, ``words`` (fixed prompts), ``vectors`` (no text tower) or ``names`` (fixed).
        names: The classes of ``names``: a list's name, a file, or ``"a, b"``; k is their number.
        clustering: False: every mask is a class of its own.
        centre: Centre the clusters by their own mean.
        queue: Masks of earlier batches that are balanced along, for small batches.
        decoder_width: Channels of the mask decoder.
        steps: Length of the run.
        batch: Photos a step, over all processes and parts.
        accumulate: Parts that a process's share of a step is split into; each is clustered alone.
        lr_decoder: Learning rate of the mask decoder …
        lr_encoder: … of the image encoder …
        lr_prompts: … and of the prompts.
        lr_final: What of them is left at the end of the cosine, as a share.
        weight_decay: AdamW's.
        clip_norm: Largest norm of the whole gradient.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: Of everything random.
        workers: Processes that read photos.
        save_every: Steps between checkpoints.
        keep: How many checkpoints are kept.
        log_every: Steps between lines of the log.
        offline: Take downloads from the cache only.
    """

    images: Path
    masks: Path
    out: Path
    model: str = "clip-vit-b16"
    checkpoint: Path | None = None
    random_weights: bool = False
    trainable: str = r"\.attn\.|positional_embedding"
    batch_norm: Literal["frozen", "updated"] = "frozen"
    short_side: int = 1024
    long_side: int | None = 1333
    crop: int = 640
    imgsz: int = 320
    mask_size: int = 256
    vary: bool = True
    strong: bool = True
    clusters: int = 64
    words: int = 4
    templates: tuple[str, ...] = ("A photo of a {} in the scene",)
    epsilon: float = 0.01
    momentum: float = 0.999
    classes: Literal["prompts", "words", "vectors", "names"] = "prompts"
    names: str | None = None
    clustering: bool = True
    centre: bool = False
    queue: int = 0
    decoder_width: int = 64
    steps: int = 10_000
    batch: int = 48
    accumulate: int = 1
    lr_decoder: float = 2e-4
    lr_encoder: float = 2e-6
    lr_prompts: float = 2e-3
    lr_final: float = 0.5
    weight_decay: float = 1e-4
    clip_norm: float = 0.01
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0
    workers: int = 4
    save_every: int = 500
    keep: int = 2
    log_every: int = 20
    offline: bool = False

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected more than 0")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        for name in ("lr_decoder", "lr_encoder", "lr_prompts", "weight_decay", "workers", "seed", "queue"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if self.seed >= 2**63:
            raise ConfigError(f"seed is {self.seed}; expected less than 2⁶³")
        if self.long_side is not None and self.long_side < self.short_side:
            raise ConfigError(
                f"long_side is {self.long_side}, less than short_side, {self.short_side}; expected at least "
                "that, or null for no bound"
            )
        if self.crop > self.short_side:
            raise ConfigError(f"crop is {self.crop}, larger than short_side, {self.short_side}")
        if self.decoder_width % 2 or (self.decoder_width > 32 and self.decoder_width % 32):
            raise ConfigError(
                f"decoder_width is {self.decoder_width}; expected an even number up to 32, or 32s"
            )
        if (self.classes == "names") != (self.names is not None):
            raise ConfigError(f"classes is {self.classes!r} and names {self.names!r}; they go together")
        if not self.templates:
            raise ConfigError("templates is empty; expected one sentence with {} or more")


_POSITIVE = (
    *("crop", "imgsz", "mask_size", "clusters", "words", "epsilon", "decoder_width"),
    *("steps", "batch", "accumulate", "clip_norm", "save_every", "keep", "log_every"),
)
_SHARES = ("momentum", "lr_final")


def load_config(file: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a run's settings.

    Args:
        file: YAML, one mapping of `Config`'s names to values.
        overrides: ``key=value``, values in YAML's notation; they win over the file.

    Raises:
        ConfigError: The file cannot be read, a name is unknown or missing, or a value is of another kind.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the settings {file}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} holds {type(content).__name__}; expected lines of `name: value`")
    values: dict[str, Any] = dict(content)
    model = values.get("model")
    if isinstance(model, str) and model.endswith(".json"):
        values["model"] = str((file.parent / model).resolve())
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"got {override!r}; expected key=value, such as steps=100")
        values[name] = text if _is_text(name, text) else _loaded(override, text)
        if name == "model" and text.endswith(".json"):
            values[name] = str(Path(text).resolve())
    return config_of(values)


def _is_text(name: str, text: str) -> bool:
    """Whether a value is the text itself: of paths and names, unless it is null or in quotes."""
    kind = typing.get_type_hints(Config).get(name)
    options = typing.get_args(kind) if typing.get_origin(kind) is types.UnionType else (kind,)
    return (Path in options or str in options) and text not in ("", "null") and text[0] not in "'\""


def _loaded(override: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"cannot read the value of {override!r}: {error}") from error


def config_of(values: Mapping[Any, Any]) -> Config:
    """Settings from plain values, as YAML and JSON have them.

    Raises:
        ConfigError: A name is unknown or missing, or a value is of another kind.
    """
    kinds = typing.get_type_hints(Config)
    for name in values:
        if name not in kinds:
            near = difflib.get_close_matches(str(name), kinds, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(kinds)}."
            raise ConfigError(f"there is no setting {name!r}. {hint}")
    required = [f.name for f in dataclasses.fields(Config) if f.default is dataclasses.MISSING]
    if missing := [name for name in required if values.get(name) is None]:
        raise ConfigError(f"{', '.join(missing)} not given; add e.g. {missing[0]}=PATH")
    return Config(**{name: _as(kinds[name], value, name) for name, value in values.items()})


def _as(kind: Any, value: Any, name: str) -> Any:
    """A value of YAML as a setting's type."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # X | None
        return None if value is None else _as(options[0], value, name)
    if origin is Literal:
        if value in options:
            return value
        raise ConfigError(f"{name} is {value!r}; expected {' or '.join(map(repr, options))}")
    if origin is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    # YAML takes 1e-4, without a point, for text.
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    elif kind in (bool, int, str) and type(value) is kind:
        return value
    expected = "a list of sentences" if origin is tuple else getattr(kind, "__name__", kind)
    raise ConfigError(f"{name} is {value!r}; expected {expected}")
