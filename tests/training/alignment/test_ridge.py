import numpy as np
import pytest
import torch
from torch.nn import functional as F

from training.alignment.cells import assign
from training.alignment.ridge import places_of, sample, solve


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def test_the_map_is_the_minimum(random):
    """The gradient of the documented sum is zero there, and a large penalty keeps the start."""
    cells = torch.randn(50, 6, generator=random)
    targets = F.normalize(torch.randn(50, 3, generator=random), dim=-1)
    weights = torch.rand(50, generator=random) + 0.1
    start = torch.randn(6, 3, generator=random), torch.randn(3, generator=random)
    solved = [x.double().requires_grad_() for x in solve(cells, targets, weights, *start, penalty=2e3)]
    scale = (cells @ start[0] + start[1]).norm(dim=-1).mean()
    errors = (cells.double() @ solved[0] + solved[1] - scale * targets).square().sum(-1)
    loss = (errors * weights * 1e5 / weights.sum()).sum() + 2e3 * (solved[0] - start[0]).square().sum()
    loss = loss + (solved[1] - start[1]).square().sum()
    loss.backward()
    for x in solved:
        assert x.grad.abs().max() < 1e-4 * float(loss.detach())
    kept = solve(cells, targets, weights, *start, penalty=1e12)[0]
    np.testing.assert_allclose(kept, start[0], atol=1e-5)


def test_a_sample_has_as_many_cells_of_a_word_as_there_are():
    labels = torch.tensor([-1, 0, 0, 2, 0, 2, -1, 0])
    chosen = sample(labels, 3, seed=0)
    assert labels[chosen].bincount(minlength=3).tolist() == [3, 0, 2]
    assert chosen.tolist() == sorted(chosen.tolist())
    assert torch.equal(chosen, sample(labels, 3, seed=0))
    assert any(not torch.equal(chosen, sample(labels, 3, seed=seed)) for seed in range(1, 9))


def test_a_cell_gets_the_best_word_of_its_photo_unless_a_competitor_wins():
    text = torch.eye(4)  # dog, ball, sky, person
    cells = F.normalize(
        torch.tensor([[3.0, 1, 0, 0], [0, 2, 3, 0], [0, 3, 2, 0], [1, 1, 0, 3], [1, 0, 4, 0]]), dim=-1
    )
    starts, words = torch.tensor([0, 4, 5]), [[0, 1], [2]]
    labels = assign(cells, starts, words, [2, 3], text, {})
    assert labels.tolist() == [0, -1, 1, -1, 2]  # the last photo has the competitor itself
    people = {3: F.normalize(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]), dim=-1)}
    labels = assign(cells, starts, [[1, 3], [2]], [2], text, people)
    assert labels.tolist() == [3, -1, 1, 3, 2]  # the best synonym of the word counts


def test_places_are_where_cells_of_a_word_differ_from_all(random):
    embedded = torch.randn(40, 5, generator=random).half()
    labels = torch.arange(40) % 4 - 1
    expected = embedded[labels == 2].float().mean(0) - embedded.float().mean(0)
    found = places_of(embedded, labels, torch.tensor([2, 0]))
    torch.testing.assert_close(found[0], expected / expected.norm())
    assert found.shape == (2, 5)
