"""What a student learns from its teacher's cells, and the linear head that starts it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.student import LiteStudent

__all__ = ["Distillation", "resample", "solve_head"]

# Shares of the mean squared input, chosen on photos in docs/adr/0016-distillation.md.
_FEATURES_RIDGE, _CLASSES_RIDGE = 0.02, 10.0


class Distillation(nn.Module):
    """The student and its loss: one minus the cosine to the teacher's cell, and a divergence over words.

    `words` are float32 `[K, D]`, unit rows, or None. For each cell, the softmax of the cosines to the words
    is compared with the teacher's by the Kullback-Leibler divergence (Hinton et al. 2015), at `temperature`.
    """

    words: Tensor | None

    def __init__(
        self, student: nn.Module, *, words: Tensor | None, words_weight: float, temperature: float
    ) -> None:
        super().__init__()
        self.student = student
        self.words_weight, self.temperature = words_weight, temperature
        self.register_buffer("words", words, persistent=False)

    def forward(self, images: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts.

        `images` are uint8 `[N, H, W, 3]`; `target` are the teacher's unit vectors `[N, h, w, D]` on any grid.
        """
        features = self.student.encode_image(images)
        target = resample(target, (features.shape[1], features.shape[2]))
        cosine = (features * target).sum(-1).mean()
        loss, parts = 1 - cosine, {"cosine": cosine.detach()}
        if self.words is not None:
            mine, its = ((x @ self.words.T / self.temperature).log_softmax(-1) for x in (features, target))
            divergence = F.kl_div(mine, its, log_target=True, reduction="none").sum(-1).mean()
            loss = loss + self.words_weight * divergence
            parts |= {"divergence": divergence.detach()}
            parts["words"] = (mine.argmax(-1) == its.argmax(-1)).float().mean()
        return loss, parts


def resample(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resample features `[N, h, w, D]` to a grid, as unit vectors.

    Bilinear with half-pixel centres, and antialiased where the grid gets coarser: both grids cover the view.
    """
    if features.shape[1:3] != grid:
        features = F.interpolate(
            features.permute(0, 3, 1, 2), size=grid, mode="bilinear", align_corners=False, antialias=True
        ).permute(0, 2, 3, 1)
    return F.normalize(features, dim=-1)


@torch.no_grad()
def solve_head(student: LiteStudent, batches: Iterable[tuple[Tensor, Tensor]], names: Tensor) -> None:
    """Set the student's head to the ridge regression from its cells to the teacher's.

    `batches` are images and targets as in `Distillation.forward`. `names` are the teacher's embeddings of the
    classes' names, float32 `[classes, D]`, unit rows: classes that the photos do not show keep them.
    """
    gram, moment = None, torch.zeros(0)
    for images, target in batches:
        cells, classes = student.describe_cells(images)
        target = resample(target, (cells.shape[1], cells.shape[2])).flatten(0, 2).double()
        rows = torch.cat([cells, classes, torch.ones_like(cells[..., :1])], -1).flatten(0, 2).double()
        gram = rows.T @ rows if gram is None else gram + rows.T @ rows
        moment = rows.T @ target + (moment if len(moment) else 0)
    if gram is None:
        return
    # The bias is not shrunk; features are shrunk towards 0, classes towards their names.
    channels = student.from_feature.in_features
    features, classes = gram.diagonal()[:channels], gram.diagonal()[channels:-1]
    features.add_(_FEATURES_RIDGE * features.mean())
    ridge = _CLASSES_RIDGE * classes.mean()
    classes.add_(ridge)
    moment[channels:-1] += ridge * names.double()
    solution = torch.linalg.solve(gram, moment).to(student.from_feature.weight.dtype)
    # The encoder divides by the length. With outputs of about one, the steps of AdamW are small beside them.
    solution *= solution.shape[1] ** 0.5
    student.from_feature.weight.copy_(solution[:channels].T)
    student.from_classes.weight.copy_(solution[channels:-1].T)
    student.from_feature.bias.copy_(solution[-1])
