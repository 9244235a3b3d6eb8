import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training.distillation.loss import Distillation, resample, solve_head
from training.models.lite.towers import EfficientNetLite
from training.models.student import LiteStudent


class Fixed(nn.Module):
    """A student that knows the answer, or another one."""

    def __init__(self, features):
        super().__init__()
        self.features = nn.Parameter(features)

    def encode_image(self, _):
        return F.normalize(self.features, dim=-1)


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_cells_are_resampled_with_half_pixel_centres():
    # A vector that turns with the column: of angle 0.1 at the left cell's centre, 0.2 at the next, …
    angle = 0.1 * torch.arange(1, 9).float()
    field = torch.stack([angle.cos(), angle.sin()], dim=-1).expand(1, 4, 8, 2)
    half = resample(field, (2, 4))
    found = torch.atan2(half[..., 1], half[..., 0])
    # The inner cells lie between the second and third pairs; PyTorch's antialiasing is a wider triangle.
    torch.testing.assert_close(found[0, :, 1:3], torch.tensor([0.35, 0.55]).expand(2, 2), atol=1e-3, rtol=0)
    double = resample(field, (8, 16))
    found = torch.atan2(double[..., 1], double[..., 0])
    torch.testing.assert_close(found[0, 3, 1:3], torch.tensor([0.125, 0.175]), atol=1e-3, rtol=0)
    assert resample(2 * field, (4, 8)).norm(dim=-1).allclose(torch.ones(()))


def test_a_student_that_knows_the_answer_has_no_loss():
    target, words = unit(2, 3, 4, 6), unit(5, 6, seed=1)
    model = Distillation(Fixed(target.clone()), words=words, words_weight=2.0, temperature=0.05)
    loss, parts = model(torch.zeros(0), target)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert float(parts["cosine"]) == pytest.approx(1)
    assert float(parts["words"]) == 1


def test_the_loss_is_cosine_and_divergence():
    mine, target, words = unit(1, 1, 1, 3), unit(1, 1, 1, 3, seed=2), unit(2, 3, seed=3)
    model = Distillation(Fixed(mine.clone()), words=words, words_weight=0.5, temperature=0.1)
    loss, _ = model(torch.zeros(0), target)
    q, p = (torch.softmax(words @ x[0, 0, 0] / 0.1, 0) for x in (mine, target))
    expected = 1 - (mine * target).sum() + 0.5 * (p * (p / q).log()).sum()
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)
    alone = Distillation(Fixed(mine.clone()), words=None, words_weight=0.5, temperature=0.1)
    assert alone(torch.zeros(0), target)[0].item() == pytest.approx(
        float(1 - (mine * target).sum()), rel=1e-5
    )


def test_the_head_finds_a_linear_teacher():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student, teacher = (LiteStudent(EfficientNetLite(), 4).eval() for _ in range(2))
        names = F.normalize(torch.randn(1000, 4), dim=-1)
    teacher.trunk, teacher.classifier = student.trunk, student.classifier
    with torch.no_grad():
        student.classifier.bias[:5] -= 30  # classes that no photo shows
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 4, 96, 96, 3), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        batches = [(batch, teacher.encode_image(batch)) for batch in images]
        before = (student.encode_image(images[0]) * batches[0][1]).sum(-1).mean()
        solve_head(student, batches, names)
        after = (student.encode_image(images[0]) * batches[0][1]).sum(-1).mean()
    assert float(before) < 0.9 < 0.999 < float(after)
    kept = F.normalize(student.from_classes.weight[:, :5].detach().T, dim=-1)
    torch.testing.assert_close(kept, names[:5], atol=1e-4, rtol=0)
