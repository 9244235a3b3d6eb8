"""Pooling, teacher, decoder, loss: each against the plain formula."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training.method.clustering import pool_masks
from training.method.decoder import MaskDecoder, covered_bce
from training.method.teacher import Teacher


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(12, 20), (5, 7), (3, 4)])
def test_pooling_is_the_mean_of_the_interpolated_features(size):
    """Also where the masks are coarser than, or as fine as, the features."""
    features, masks = random(3, 5, 7, 11), random(6, *size, seed=1) > 0
    found = pool_masks(features, masks, [2, 0, 4])
    volume = F.interpolate(features.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)
    for mask, photo, one in zip(masks, [0, 0, 2, 2, 2, 2], found, strict=True):
        torch.testing.assert_close(one, volume[photo][:, mask].mean(1), atol=1e-5, rtol=1e-4)


def test_pooling_without_masks():
    assert pool_masks(random(2, 3, 3, 8), torch.zeros(0, 6, 6, dtype=torch.bool), [0, 0]).shape == (0, 8)


def test_the_teacher_follows_by_the_formula():
    student = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    teacher = Teacher(student)
    before = {name: value.clone() for name, value in teacher.encoder.state_dict().items()}
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    student(random(8, 3, 9, 9) * 3 + 1)  # moves the batch norm's statistics
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    now = student.state_dict()
    teacher.follow(student, 0.9)
    for name, value in teacher.encoder.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.9 * before[name] + 0.1 * now[name])
            assert not torch.equal(value, before[name])
        else:
            assert torch.equal(value, now[name])


def test_the_ends_of_momentum():
    student = nn.Linear(3, 3)
    teacher = Teacher(student)
    before = teacher.encoder.weight.clone()
    with torch.no_grad():
        student.weight.copy_(random(3, 3) * 1e3)
    teacher.follow(student, 1.0)
    assert torch.equal(teacher.encoder.weight, before)
    teacher.follow(student, 0.0)
    assert torch.equal(teacher.encoder.weight, student.weight)


@pytest.mark.parametrize("width", [64, 16, 6])
def test_the_decoder_is_four_times_as_large_and_keeps_maps_apart(width):
    decoder = MaskDecoder(width)
    maps = random(3, 4, 5)
    found = decoder(maps)
    assert found.shape == (3, 16, 20)
    changed = maps.clone()
    changed[1] += random(4, 5, seed=2)
    again = decoder(changed)
    torch.testing.assert_close(again[[0, 2]], found[[0, 2]])
    assert not torch.allclose(again[1], found[1])


def test_the_loss_is_the_mean_over_covered_pixels():
    logits, targets = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1) > 0.5
    covered = targets.any(1, keepdim=True)
    assert not covered.all()
    logits[(~covered).expand_as(logits)] = 1e6  # nobody looks there
    losses = [
        F.binary_cross_entropy_with_logits(logits[n, k, y, x], targets[n, k, y, x].float())
        for n, _, y, x in covered.nonzero().tolist()
        for k in range(3)
    ]
    torch.testing.assert_close(covered_bce(logits, targets, covered), torch.stack(losses).mean())


def test_nothing_covered_costs_nothing():
    logits = random(2, 3, 4, 5).requires_grad_()
    nothing = torch.zeros(2, 3, 4, 5, dtype=torch.bool)
    loss = covered_bce(logits, nothing, nothing.any(1, keepdim=True))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()
