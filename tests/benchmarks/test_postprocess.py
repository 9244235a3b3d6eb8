import numpy as np

from benchmarks.postprocess import compare, grid_logits


def test_comparison_reports_equal_labels_and_memory(lite, tmp_path, photo):
    from PIL import Image

    Image.fromarray(photo).save(tmp_path / "photo.png")
    logits = grid_logits(lite, tmp_path / "photo.png")
    assert logits.shape == (len(lite.vocabulary), 64, 64)
    row = compare([logits], (120, 160), runs=1)
    assert row["equal_labels"] > 0.9999
    assert row["ratio"] == row["torch_ms"] / row["ours_ms"]
    assert row["peak_mb"] < 64


def test_a_wrong_result_would_show(monkeypatch):
    import benchmarks.postprocess

    logits = np.random.default_rng(0).normal(size=(3, 64, 64)).astype(np.float32)
    monkeypatch.setattr(benchmarks.postprocess, "textbook", lambda _, size: np.zeros(size))
    assert compare([logits], (64, 64), runs=1)["equal_labels"] < 0.5
