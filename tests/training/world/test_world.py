"""The drawn world: its scenes, its small CLIP, and its experiments from nothing to tables, at toy size."""

import json
import os
import re
import resource
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from pixelclip_sdk.errors import OutputError
from pixelclip_sdk.words.vocabulary import read_classes
from training.evaluation.datasets import load_dataset
from training.masks.format import read_masks
from training.runs.progress import Progress
from training.world import experiments
from training.world.captions import Mention, caption
from training.world.catalogue import CLASSES, GROUNDS, STUFF, THINGS
from training.world.contrast import Pairs, read_pairs, train_contrast
from training.world.experiments import ABLATIONS, MODEL, Sizes, experiment
from training.world.scenes import SIDE, make_scene, write_scenes
from training.world.tables import markdown

SCENES = 40
TOY = Sizes(
    pairs=64, photos=6, held_out=3, clip_steps=1, overrides=("steps=2", "batch=2", "clusters=4", "words=2")
)


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(0, number) for number in range(SCENES)]


def test_a_scene_depends_on_its_numbers_alone(scenes):
    again, other_number, other_seed = make_scene(0, 3), make_scene(0, 4), make_scene(1, 3)
    np.testing.assert_array_equal(again.photo, scenes[3].photo)
    np.testing.assert_array_equal(again.regions, scenes[3].regions)
    assert again.caption == scenes[3].caption
    for other in (other_number, other_seed):
        assert (other.photo != again.photo).any()


def test_regions_never_cross_a_border_of_the_truth_and_are_finer(scenes):
    for scene in scenes:
        for region in np.unique(scene.regions):
            assert len(np.unique(scene.truth[scene.regions == region])) == 1
        assert len(np.unique(scene.regions)) > len(np.unique(scene.truth))
    assert scenes[0].regions.min() > 0


def test_blotches_hide_more_of_a_cell_than_of_a_region(scenes, monkeypatch):
    monkeypatch.setattr("training.world.scenes._BLOTCHES", 0)
    cells, regions = [], []
    for number, scene in enumerate(scenes):
        without = make_scene(0, number)
        assert without.caption == scene.caption
        change = scene.photo.astype(float) - without.photo
        cells.extend(change.reshape(SIDE // 8, 8, SIDE // 8, 8, 3).mean(axis=(1, 3)).reshape(-1, 3))
        numbers, sizes = np.unique(scene.regions, return_counts=True)
        regions += [change[scene.regions == n].mean(0) for n in numbers[sizes >= SIDE**2 / 10]]
    assert np.std(cells) > 8
    assert np.std(regions) < np.std(cells) / 3


def test_every_class_appears(scenes):
    found = set(np.unique(np.stack([scene.truth for scene in scenes])))
    assert found == set(range(len(CLASSES)))


def test_a_caption_names_nothing_that_cannot_be_seen(scenes):
    plurals = {"people": "person", "cacti": "cactus", **{f"{name}s": name for name in THINGS}}
    unnamed = 0
    for scene in scenes:
        seen = {CLASSES[index] for index in np.unique(scene.truth)}
        words = scene.caption.replace(",", "").replace("brick wall", "brick_wall").split()
        words = " ".join(words).replace("wooden floor", "wooden_floor").split()
        named = {plurals.get(word, word.replace("_", " ")) for word in words} & set(CLASSES)
        assert named
        assert named <= seen
        unnamed += named < seen
    assert unnamed > SCENES / 2  # captions leave things out, as people do
    assert len({scene.caption for scene in scenes}) > SCENES * 0.9


def test_most_words_of_captions_name_no_class():
    rng = np.random.default_rng(0)
    read: set[str] = set()
    for _ in range(3000):
        read |= set(re.sub("[,()]", " ", caption(rng, [Mention("dog", "red")], ["grass"])).lower().split())
    assert len(read - {"dog", "grass", "red"}) > 10 * len(CLASSES)
    assert read & {name for name in CLASSES if name not in ("dog", "grass")} == set()


def test_the_catalogue_holds_together():
    assert len(CLASSES) == len(set(CLASSES)) == 24
    assert all(thing in THINGS for name in GROUNDS for thing in STUFF[name].things)
    for thing in THINGS.values():
        corners = np.array([corner for part in thing.parts for corner in part.points])
        assert corners.min() > -0.15
        assert corners.max() < 1.15


def test_scenes_are_written_as_the_project_reads_them(tmp_path):
    write_scenes(tmp_path, 2, seed=5)
    data = load_dataset("folder", tmp_path, classes=read_classes(str(tmp_path / "classes.txt")))
    assert tuple(data.classes) == CLASSES
    np.testing.assert_array_equal(data.truth(1), make_scene(5, 1).truth)
    pairs = read_pairs(tmp_path, SIDE)
    np.testing.assert_array_equal(pairs.images[1].permute(1, 2, 0), make_scene(5, 1).photo)
    assert pairs.captions[1] == make_scene(5, 1).caption


def test_the_small_clip_learns_from_pairs(tmp_path):
    write_scenes(tmp_path, 64, seed=5)
    pairs = read_pairs(tmp_path, 64)
    losses = train_contrast(MODEL, pairs, tmp_path / "clip.safetensors", steps=14, batch=32, seed=0)
    assert losses[0] > np.log(32) - 0.2  # it knows nothing
    assert np.mean(losses[-3:]) < np.log(32) - 0.4


def test_a_full_disk_leaves_no_half_weights(tmp_path):
    """A limit on the size of files: the system then refuses to write, as on a full disk."""
    pairs = Pairs(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), ("a dog", "a cat"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*clip\.safetensors: File too large"):
            train_contrast(MODEL, pairs, tmp_path / "clip.safetensors", steps=0, seed=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_the_experiments_run_from_nothing_and_go_on(tmp_path):
    runs = {name: ABLATIONS[name] for name in ("PixelCLIP", "without clustering")}
    scores = experiment(tmp_path, TOY, seeds=[0], runs=runs)
    assert [score["run"] for score in scores] == ["CLIP", *runs]
    for score in scores:
        assert 0 <= score["miou"] <= 100
    table = markdown(scores)
    assert "| PixelCLIP |" in table
    assert table.count("\n") == 9  # five lines, an empty one, four

    masks = read_masks(tmp_path / "world" / "masks" / "00000.npz")
    assert masks.sum(0).min() == 1  # a partition
    written = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.suffix != ".jsonl"}
    assert json.loads(json.dumps(experiment(tmp_path, TOY, seeds=[0], runs=runs))) == scores
    kept = (".safetensors", ".png", ".npz")
    assert all(file.stat().st_mtime_ns == time for file, time in written.items() if file.suffix in kept)

    pytest.importorskip("matplotlib")
    experiments._draw_picture(tmp_path, 0, tmp_path / "scenes.png")
    with Image.open(tmp_path / "scenes.png") as picture:
        assert picture.width > 4 * 300  # photo, CLIP, PixelCLIP, ground truth


def test_a_signal_in_a_run_stops_the_command_and_half_a_run_has_no_score(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments, "Sizes", lambda: TOY)
    monkeypatch.setattr(experiments, "ABLATIONS", {"PixelCLIP": ()})
    monkeypatch.setattr(experiments, "SWEEPS", {})
    command = ["--out", str(tmp_path), "--seeds", "0"]
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "report_step", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert experiments.main(command) == 130
    assert "interrupted; the same command continues" in capsys.readouterr().err
    score = tmp_path / "seed-0" / "pixelclip" / "test.json"
    assert (score.parent / "step-00000001.json").exists()
    assert not score.exists()
    assert experiments.main(command) == 0
    assert score.exists()
    assert "| PixelCLIP |" in capsys.readouterr().out


def test_gains_are_of_the_means_and_seed_by_seed():
    keys = ("stuff", "things", "pixel_accuracy", "mask_miou", "image_top1")
    scores = [
        {"run": run, "seed": seed, "miou": miou, "single_miou": single, **dict.fromkeys(keys, 1.0)}
        for run, seed, miou, single in [
            *(("CLIP", 0, 10.0, 5.0), ("CLIP", 1, 20.0, 20.0)),
            *(("PixelCLIP", 0, 15.0, 10.0), ("PixelCLIP", 1, 20.0, 30.0)),
            ("k = 8", 1, 25.0, 22.0),
        ]
    ]
    means, seeds, others = markdown(scores).split("\n\n")
    head, _, clip, tuned = means.splitlines()
    assert head.endswith("| gain of the mean | gain of the mean, one template |")
    assert clip.endswith("| 1.0 ± 0.0 |  |  |")
    assert tuned.endswith("| +17 % | +60 % |")
    assert "| 0, one template | 5.0 | 10.0 | +100 % |" in seeds
    assert "| 1, eight templates | 20.0 | 20.0 | +0 % |" in seeds
    assert others.endswith("| +25 % | +10 % |")
