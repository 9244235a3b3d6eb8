"""Settings of a distillation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.runs.config import ConfigError, Ranges, check_ranges

__all__ = ["DistilConfig"]


@dataclass(frozen=True, kw_only=True)
class DistilConfig:
    """All settings of a distillation. A student and its teacher see the same crops of the photos."""

    images: Path  # folder of photos, with subfolders; they need neither labels nor masks
    teacher: str  # name or folder of a bundle, or a model's name as in export/to_onnx.py
    out: Path  # folder for checkpoints and logs; a run continues from the checkpoints in it

    teacher_checkpoint: Path | None = None  # weights of a teacher that is no bundle
    teacher_size: tuple[int, int] | None = None  # input (H, W) of the teacher; None for its own
    student: str = "lite0"  # see training/models/student.py
    input_size: tuple[int, int] = (224, 288)  # nominal input (H, W) of the student
    checkpoint: Path | None = None  # weights of an earlier run to start from
    # Regular expression: the parameters of the student with a matching name are trained.
    trainable: str = ""
    crop: float = 0.6  # smallest side of a crop, as a share of the largest crop that fits the photo
    closed_form: int = 512  # photos that a linear head is solved on before the first step; 0 for none

    # Words on whose cosines the student must agree with the teacher, besides the features: a list's name, a
    # file, or "a, b"; null for none.
    words: str | None = "common-150"
    words_weight: float = 1.0  # weight of the words, relative to the features
    temperature: float = 0.05  # of the softmax over the words' cosines

    steps: int = 200  # length of the run; 0 for the solved head alone
    batch: int = 16  # photos per step
    lr: float = 2e-5
    lr_final: float = 0.02  # learning rate at the end of the cosine, as a share of the one above
    weight_decay: float = 1e-4  # of AdamW
    clip_norm: float = 1.0  # largest norm of the whole gradient
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0  # of all random choices
    workers: int | None = None  # processes that load photos; None for one per core, at most 4
    save_every: int = 200  # steps between checkpoints
    keep: int = 2  # number of checkpoints to keep
    log_every: int = 20  # steps between log lines
    offline: bool = False  # use cached downloads only

    def __post_init__(self) -> None:
        check_ranges(self, _RANGES)
        for name in ("input_size", "teacher_size"):
            size = getattr(self, name)
            if size is not None and min(size) < 1:
                raise ConfigError(f"{name} is {size}; expected (height, width) in pixels, more than 0")


_POSITIVE = ("temperature", "batch", "clip_norm", "save_every", "keep", "log_every")
_NOT_NEGATIVE = ("steps", "words_weight", "lr", "weight_decay", "workers", "closed_form")
_RANGES: Ranges = {
    **dict.fromkeys(_POSITIVE, (lambda value: value > 0, "more than 0")),
    **dict.fromkeys(_NOT_NEGATIVE, (lambda value: value >= 0, "0 or more")),
    "crop": (lambda value: 0 < value <= 1, "more than 0, up to 1"),
    "lr_final": (lambda value: 0 <= value <= 1, "0 to 1"),
    "seed": (lambda value: 0 <= value < 2**63, "0 or more, and less than 2⁶³"),
}
