import numpy as np
import pytest
from PIL import Image

from benchmarks.harness import tables
from benchmarks.harness.accuracy import accuracies
from benchmarks.scaling import SWEEPS, Task, measure, ratios, tasks
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.benchmark import sample_jpeg
from training.evaluation.datasets import DatasetError


@pytest.mark.slow
def test_a_row_is_compared_with_the_first(lite):
    small = Task("small", sample_jpeg(48, 64), lite.vocabulary)
    large = Task("large", sample_jpeg(3000, 4000), lite.vocabulary)
    one, other = measure([small, large], 2)
    assert (one["value"], one["time_ratio"], one["memory_ratio"]) == ("small", 1, 1)
    assert other["time_ratio"] == pytest.approx(other["ms"] / one["ms"])
    assert other["memory_ratio"] == pytest.approx(other["peak_mb"] / one["peak_mb"])
    # The large image and its label map at least, and no torch, which this process may hold.
    assert one["peak_mb"] + 48 < other["peak_mb"] < 1000


def test_sweeps_vary_one_thing():
    made = {name: tasks(name) for name in SWEEPS if name != "classes"}
    assert made["threads"][0].threads == 1
    assert made["threads"][-1].threads == default_threads()
    assert {len(task.vocabulary) for tasks in made.values() for task in tasks} == {20}
    assert len({task.jpeg for tasks in made.values() for task in tasks}) == 1
    assert made["input"][0].name == "224×160"
    assert made["input"][0].segmenter().features(sample_jpeg(480, 640)).shape[:2] == (5, 7)


def test_words_of_a_sweep_contain_those_of_the_row_before():
    few, more = tasks("classes", counts=(2, 1800))
    assert len(set(more.vocabulary.names)) == 1800
    assert few.vocabulary.names == more.vocabulary.names[:2]
    np.testing.assert_array_equal(few.vocabulary.embeddings, more.vocabulary.embeddings[:2])


def test_accuracy_is_one_where_the_truth_is_what_the_model_says(tmp_path, photo, lite):
    for part in ("images", "labels"):
        (tmp_path / "val" / part).mkdir(parents=True)
    Image.fromarray(photo).save(tmp_path / "val" / "images" / "photo.png")
    before = lite.vocabulary
    lite.set_classes("camvid-11")
    labels = lite.predict(photo).labels
    lite.set_classes(before)
    Image.fromarray(labels).save(tmp_path / "val" / "labels" / "photo.png")
    assert accuracies(lite, camvid=tmp_path, photos=None) == {"miou": 1}
    assert lite.vocabulary is before
    Image.fromarray((labels + 1) % 11).save(tmp_path / "val" / "labels" / "photo.png")
    assert accuracies(lite, camvid=tmp_path, photos=None)["miou"] < 0.5
    with pytest.raises(DatasetError, match="nowhere"):
        accuracies(lite, camvid=tmp_path / "nowhere", photos=None)


def test_ratios_say_what_is_better_and_the_table_everything():
    rows = [
        {"value": "1", "ms": 10.0, "time_ratio": 1.0, "peak_mb": 100.0, "memory_ratio": 1.0, "miou": 0.25},
        {"value": "2", "ms": 40.0, "time_ratio": 4.0, "peak_mb": 125.0, "memory_ratio": 1.25, "miou": 0.5},
    ]
    sweep = {"name": "input", "rows": rows}
    assert ratios([sweep]) == {"input 2: speed against 1": 0.25, "input 2: memory against 1": 0.8}
    cells = tables.sweep(sweep).splitlines()[3].replace("|", " ").split()
    assert cells == ["2", "40.0", "4.00×", "25.0", "125", "1.25×", "50.0%"]
