"""Settings of a training run: a YAML file and ``key=value`` arguments, checked before anything starts."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pixelclip_sdk.errors import PixelClipError
from training.support.yaml_files import parse_yaml

__all__ = ["Config", "ConfigError", "Ranges", "check_ranges", "config_of", "load_config"]


Ranges = Mapping[str, tuple[Callable[[Any], bool], str]]
"""Setting → whether a value is accepted, and what is expected."""
Settings = typing.TypeVar("Settings")  # a frozen dataclass of settings; defaults are optional settings


class ConfigError(PixelClipError, ValueError):
    """A setting is unknown or has an invalid value."""


def check_ranges(settings: object, ranges: Ranges) -> None:
    """Raise ConfigError if a setting that is not None is out of its range."""
    for name, (accepted, expected) in ranges.items():
        value = getattr(settings, name)
        if value is not None and not accepted(value):
            raise ConfigError(f"{name} is {value}; expected {expected}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a training run. Defaults are the paper's for the ViT-B/16."""

    images: Path  # folder of photos
    masks: Path  # folder of their masks, written by training/make_masks.py
    out: Path  # folder for checkpoints and logs; a run continues from the checkpoints in it

    # Model name, as in export/to_onnx.py, or a .json file with an open_clip configuration (in a YAML file,
    # relative to that file).
    model: str = "clip-vit-b16"
    checkpoint: Path | None = None  # weights to start from; None for the model's own
    random_weights: bool = False  # start from random weights, for tests
    # Regular expression: the parameters of the image encoder with a matching name are trained.
    trainable: str = r"\.attn\.|positional_embedding"
    batch_norm: Literal["frozen", "updated"] = "frozen"  # the image encoder's statistics

    short_side: int = 1024  # of a photo after resizing, in pixels
    long_side: int | None = 1333  # upper bound of the long side after resizing; None for no bound
    crop: int = 640  # side of the square crop of the resized photo; at most its short side
    input_size: int = 320  # side of the encoder's input; the crop is resized to it
    mask_size: int = 256  # side at which masks are pooled and compared
    vary: bool = True  # colour augmentation, for teacher and student alike
    strong: bool = True  # stronger augmentation of the student's photos

    clusters: int = 64  # k, the number of class prompts
    words: int = 4  # l, the number of learnable words per prompt
    templates: tuple[str, ...] = ("A photo of a {} in the scene",)  # around the prompts; several: an ensemble
    epsilon: float = 0.01  # ε of the clustering
    momentum: float = 0.999  # γ of the teacher; 0 makes the teacher the student, 1 freezes it
    # "words" are prompts that stay fixed, "vectors" have no text tower, "names" are fixed embeddings.
    classes: Literal["prompts", "words", "vectors", "names"] = "prompts"
    names: str | None = None  # for classes: names; a list's name, a file, or "a, b"; k is their number
    clustering: bool = True  # False makes every mask its own class
    centre: bool = False  # centre the clusters by their mean before they are compared
    # Number of earlier masks that are balanced together with a batch. A small batch shows few clusters, and
    # balancing it alone would spread its masks over all of them.
    queue: int = 0
    decoder_width: int = 64  # channels of the mask decoder

    steps: int = 10_000  # length of the run
    batch: int = 48  # photos per step, over all processes and parts
    accumulate: int = 1  # parts of a process's share of a step; each part is clustered separately
    lr_decoder: float = 2e-4
    lr_encoder: float = 2e-6
    lr_prompts: float = 2e-3
    lr_final: float = 0.5  # learning rates at the end of the cosine, as a share of those above
    weight_decay: float = 1e-4  # of AdamW
    clip_norm: float = 0.01  # largest norm of the whole gradient
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0  # of all random choices
    workers: int | None = None  # processes that load photos; None for one per core, at most 4
    save_every: int = 500  # steps between checkpoints
    keep: int = 2  # number of checkpoints to keep
    log_every: int = 20  # steps between log lines
    offline: bool = False  # use cached downloads only

    def __post_init__(self) -> None:
        check_ranges(self, _RANGES)
        if self.long_side is not None and self.long_side < self.short_side:
            raise ConfigError(
                f"long_side is {self.long_side}, less than short_side, {self.short_side}; expected at least "
                "that, or null for no bound"
            )
        if self.crop > self.short_side:
            raise ConfigError(f"crop is {self.crop}, larger than short_side, {self.short_side}")
        if (self.classes == "names") != (self.names is not None):
            raise ConfigError(f"classes is {self.classes!r} and names {self.names!r}; they go together")
        if not self.templates:
            raise ConfigError("templates is empty; expected at least one sentence with {}")


_POSITIVE = (
    "crop",
    "input_size",
    "mask_size",
    "clusters",
    "words",
    "epsilon",
    "steps",
    "batch",
    "accumulate",
    "clip_norm",
    "save_every",
    "keep",
    "log_every",
)
_NOT_NEGATIVE = ("lr_decoder", "lr_encoder", "lr_prompts", "weight_decay", "workers", "queue")
_RANGES: Ranges = {
    **dict.fromkeys(_POSITIVE, (lambda value: value > 0, "more than 0")),
    **dict.fromkeys(("momentum", "lr_final"), (lambda value: 0 <= value <= 1, "0 to 1")),
    **dict.fromkeys(_NOT_NEGATIVE, (lambda value: value >= 0, "0 or more")),
    "seed": (lambda value: 0 <= value < 2**63, "0 or more, and less than 2⁶³"),
    "decoder_width": (
        lambda value: value > 0 and value % (32 if value > 32 else 2) == 0,
        "an even number up to 32, or a multiple of 32",
    ),
}


_MODELS = ("model", "teacher", "student")  # settings that may be a JSON file beside the settings


def load_config(file: Path, overrides: Sequence[str] = (), kind: type[Settings] = Config) -> Settings:
    """Read a run's settings from a YAML file and from ``key=value`` overrides with values in YAML."""
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the settings {file}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} contains {type(content).__name__}; expected lines of `name: value`")
    values: dict[str, Any] = dict(content)
    for name in _MODELS:
        if isinstance(model := values.get(name), str) and model.endswith(".json"):
            values[name] = str((file.parent / model).resolve())
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"got {override!r}; expected key=value, for example steps=100")
        try:
            values[name] = text if _is_text(kind, name, text) else parse_yaml(text)
        except ValueError as error:
            raise ConfigError(f"cannot read the value of {override!r}: {error}") from error
        if name in _MODELS and text.endswith(".json"):
            values[name] = str(Path(text).resolve())
    return config_of(values, kind)


def _is_text(settings: type[Any], name: str, text: str) -> bool:
    """Return whether a value is taken literally: that of a path or name, unless it is null or quoted."""
    kind = typing.get_type_hints(settings).get(name)
    options = typing.get_args(kind) if typing.get_origin(kind) is types.UnionType else (kind,)
    return (Path in options or str in options) and text not in ("", "null") and text[0] not in "'\""


def config_of(values: Mapping[Any, Any], kind: type[Settings] = Config) -> Settings:
    """Return settings from the plain values of YAML or JSON."""
    kinds = typing.get_type_hints(kind)
    for name in values:
        if name not in kinds:
            near = difflib.get_close_matches(str(name), kinds, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known settings: {', '.join(kinds)}."
            raise ConfigError(f"unknown setting {name!r}. {hint}")
    required = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
    if missing := [name for name in required if values.get(name) is None]:
        raise ConfigError(f"{', '.join(missing)} not given; add for example {missing[0]}=PATH")
    return kind(**{name: _as(kinds[name], value, name) for name, value in values.items()})


def _as(kind: Any, value: Any, name: str) -> Any:
    """Convert a value of YAML to a setting's type."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # X | None
        return None if value is None else _as(options[0], value, name)
    if origin is Literal:
        if value in options:
            return value
        raise ConfigError(f"{name} is {value!r}; expected {' or '.join(map(repr, options))}")
    if origin is tuple and isinstance(value, list):
        expected_items = (options[0],) * len(value) if options[-1] is Ellipsis else options
        if tuple(map(type, value)) == expected_items:
            return tuple(value)
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    # YAML reads 1e-4, without a point, as text.
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    elif kind in (bool, int, str) and type(value) is kind:
        return value
    expected = getattr(kind, "__name__", kind)
    if origin is tuple:
        expected = "a list of sentences" if options[0] is str else f"{len(options)} numbers, as in [352, 448]"
    raise ConfigError(f"{name} is {value!r}; expected {expected}")
