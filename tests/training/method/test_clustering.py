import math
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from training.method.clustering import centred, merge, perplexity, sinkhorn


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosines(masks=40, clusters=5, seed=0):
    return F.normalize(random(masks, 8, seed=seed), dim=1) @ F.normalize(random(clusters, 8, seed=9), dim=1).T


def test_three_iterations_are_those_of_the_plain_algorithm():
    """In float64 and without logarithms, as the SwAV paper writes it, from the softmax."""
    q = (cosines().double() / 0.2).softmax(1).T
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / len(q)
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    found = sinkhorn(cosines(), 0.2).exp()
    torch.testing.assert_close(found, (q.T * q.shape[1]).float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("epsilon", [1.0, 0.1])
def test_many_iterations_share_the_masks_evenly(epsilon):
    q = sinkhorn(cosines(), epsilon, iterations=2000).exp()
    torch.testing.assert_close(q.sum(1), torch.ones(40))
    torch.testing.assert_close(q.sum(0), torch.full((5,), 8.0), atol=1e-3, rtol=0)


def test_a_small_epsilon_is_finite_and_agrees_with_float64():
    similarity = cosines(300, 64)
    q = similarity.double() / 0.01
    q = q - q.logsumexp(1, keepdim=True)
    for _ in range(3):
        q = q - q.logsumexp(0)
        q = q - q.logsumexp(1, keepdim=True)
    found = sinkhorn(similarity, 0.01)
    assert found.isfinite().all()
    assert found.dtype == torch.float32
    assert (found.argmax(1) == q.argmax(1)).all()
    assert sinkhorn(torch.tensor([[1.0, -1.0], [1.0, -1.0]]), 1e-4).isfinite().all()


def test_balance_breaks_a_collapse():
    """All masks prefer cluster 0; balanced, half of them go to 1: those that mind least."""
    similarity = torch.stack([torch.full((10,), 0.9), torch.linspace(0, 0.8, 10)], 1)
    assert (similarity.argmax(1) == 0).all()
    assert sinkhorn(similarity, 0.05, iterations=50).argmax(1).tolist() == [0] * 5 + [1] * 5


def test_no_masks():
    assert sinkhorn(torch.zeros(0, 4), 0.01).shape == (0, 4)
    merged = merge(torch.zeros(0, 3, 3, dtype=torch.bool), torch.zeros(0, dtype=torch.long), [0, 0], 4)
    assert merged.shape == (2, 4, 3, 3)
    assert not merged.any()


_WORKER = """
import sys, torch, torch.distributed as dist
from torch.nn import functional as F
from training.method.clustering import sinkhorn
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
similarity = torch.load(sys.argv[3], weights_only=True)
share = similarity[:25] if rank == 0 else similarity[25:]
torch.save(sinkhorn(share, 0.01), sys.argv[3] + f".{rank}")
dist.destroy_process_group()
"""


@pytest.mark.parametrize("masks", [60, 25])
def test_two_processes_find_the_clusters_of_one(tmp_path, masks):
    """25: the second process has no mask at all."""
    file = tmp_path / "similarity"
    similarity = cosines(masks, 16, seed=3)
    torch.save(similarity, file)
    command = [sys.executable, "-c", _WORKER]
    runs = [subprocess.Popen([*command, str(rank), tmp_path / "meet", file]) for rank in (0, 1)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    together = torch.cat([torch.load(f"{file}.{rank}", weights_only=True) for rank in (0, 1)])
    alone = sinkhorn(similarity, 0.01)
    assert (together.argmax(1) == alone.argmax(1)).all()
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-5)
    if masks == 60:
        halves = torch.cat([sinkhorn(similarity[:25], 0.01), sinkhorn(similarity[25:], 0.01)])
        assert (halves.argmax(1) != alone.argmax(1)).any()  # else the test would show nothing


def test_masks_of_one_cluster_in_one_photo_merge():
    masks = random(7, 5, 6) > 0.3
    clusters = torch.tensor([2, 0, 2, 2, 1, 1, 2])
    merged = merge(masks, clusters, [3, 0, 4], 3)
    assert merged.dtype == torch.bool
    for photo, members in enumerate([[0, 1, 2], [], [3, 4, 5, 6]]):
        for cluster in range(3):
            expected = torch.zeros(5, 6, dtype=torch.bool)
            for mask in members:
                if clusters[mask] == cluster:
                    expected |= masks[mask]
            assert torch.equal(merged[photo, cluster], expected)


def test_centring_takes_out_what_all_share():
    vectors = F.normalize(random(6, 10) + 20, dim=1)
    assert (vectors @ vectors.T).min() > 0.99
    found = centred(vectors)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(6))
    assert (found @ found.T).min() < 0


def test_perplexity_counts_clusters_in_use():
    assert perplexity(torch.zeros(9, dtype=torch.long), 4) == pytest.approx(1)
    assert perplexity(torch.arange(8) % 4, 4) == pytest.approx(4)
    assert perplexity(torch.tensor([0, 0, 1]), 4) == pytest.approx(
        math.exp(-(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3))
    )
