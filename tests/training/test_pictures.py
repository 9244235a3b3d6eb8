"""The command on tiny runs, and the content of its figures."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from toy_photos import write_photos

import training
from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.image import load_image
from pixelclip_sdk.visualize import palette
from pixelclip_sdk.words.classes import class_list
from training import pictures
from training.evaluation.metrics import IGNORE_INDEX
from training.figures.clusters import Clustered, assign, draw_clusters
from training.figures.grid import draw_grid, overlay, save_png
from training.figures.names import (
    WordVectors,
    embed_words,
    initial_words,
    merge_classes,
    nearest_words,
    with_clusters,
)
from training.figures.tsne import draw_tsne, project
from training.masks.format import read_masks
from training.method.clustering import sinkhorn
from training.method.pixelclip import dense_features
from training.models.load import load_model
from training.runs.config import load_config
from training.runs.run import open_run
from training.train import train

pytest.importorskip("matplotlib")

TRAINING = Path(training.__file__).parent
ROOT = TRAINING.parent
WORDS = "sky, tree, car"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Photos with masks, and photos with labels."""
    folder = tmp_path_factory.mktemp("data")
    write_photos(folder, 6)
    scenes, rng = folder / "scenes", np.random.default_rng(1)
    for name in ("images", "labels"):
        (scenes / name).mkdir(parents=True)
    for index in range(3):
        photo = rng.integers(0, 256, (60 + 20 * index, 80, 3), np.uint8)
        Image.fromarray(photo).save(scenes / f"images/{index}.png")
        truth = np.full(photo.shape[:2], index, np.uint8)
        truth[:9] = IGNORE_INDEX
        Image.fromarray(truth).save(scenes / f"labels/{index}.png")
    return folder


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Two tiny runs; one compares with clusters as they are, the other centres them."""
    folder = tmp_path_factory.mktemp("runs")
    settings = [f"images={data / 'images'}", f"masks={data / 'masks'}", "steps=2", "lr_encoder=1e-2"]
    for name, more in {"plain#1": ["clusters=6"], "centred": ["clusters=8", "centre=true"]}.items():
        train(load_config(TRAINING / "configs" / "tiny.yaml", [*settings, f"out={folder / name}", *more]))
    return folder


@pytest.fixture
def few_words(monkeypatch):
    """A map of 150 words instead of 2878: seconds less."""
    monkeypatch.setattr(pictures, "_WORDS", "common-150")


@pytest.fixture(scope="module")
def shown(data, runs, tmp_path_factory):
    """What the command writes for both runs, labelled photos beside them."""
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "_WORDS", "common-150")
        command = ["--run", str(runs / "plain#1"), str(runs / "centred"), "--dataset", "folder"]
        command += ["--root", str(data / "scenes"), "--classes", WORDS, "--out", str(out)]
        assert pictures.main([*command, "--photos", "2", "--device", "cpu"]) == 0
    return out


class References(HTMLParser):
    """What a page refers to, and its pictures."""

    def __init__(self, text):
        super().__init__()
        self.files, self.images = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.files += [unquote(given[key]) for key in ("src", "href") if key in given]
        if tag == "img":
            self.images.append(given)


def test_the_page_shows_what_was_written_and_nothing_from_elsewhere(shown):
    text = (shown / "index.html").read_text(encoding="utf-8")
    page = References(text)
    written = {path.name for path in shown.iterdir()} - {"index.html"}
    assert set(page.files) == written
    assert written == {
        *("grid.png", "clusters.png", "tsne-plain#1.png", "tsne-centred.png"),
        *("names-plain#1.csv", "names-centred.csv"),
    }
    assert all(image["alt"] for image in page.images)
    assert "//" not in text.replace("<!DOCTYPE", "").replace("</", "")
    assert "2 of the 3 photos of folder" in text


def blend(photo, colour, opacity):
    return np.asarray(photo) * (1 - opacity) + np.asarray(colour, float) * opacity


def tiles(figure):
    """Pictures of a figure's grid, row by row."""
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


def test_the_overlay_tints_every_class_with_its_colour():
    labels = np.zeros((90, 120), np.int64)
    labels[:, 60:], labels[:, 90:] = 1, 7
    picture = overlay(np.full((45, 60, 3), (200, 100, 0), np.uint8), labels, 2, opacity=0.6)
    assert picture.shape == (360, 480, 3)  # the longer side of a tile has 480 pixels
    for column, label in ((120, 0), (300, 1)):
        np.testing.assert_allclose(picture[200, column], blend((200, 100, 0), palette(2)[label], 0.6), atol=2)
    np.testing.assert_allclose(picture[200, 420], blend((200, 100, 0), (90, 90, 90), 0.6), atol=2)  # no class


def test_the_grid_has_the_photo_the_labels_and_the_truth():
    photo = np.full((90, 120, 3), (200, 100, 0), np.uint8)
    truth = np.zeros((90, 120), np.uint8)
    truth[:, 60:], truth[:10] = 1, IGNORE_INDEX
    wrong = np.zeros((90, 120), np.int64)
    figure, scores = draw_grid([photo], {"right": [truth % 255], "wrong": [wrong]}, ["$a$", "b"], [truth])
    # By hand: half of the pixels predicted as a are a, and no b is found.
    assert scores == {"right": 1.0, "wrong": pytest.approx(0.25)}
    first, *others = tiles(figure)
    assert tuple(first[200, 100]) == (200, 100, 0)
    for tile, labels in zip(others, (truth % 255, wrong, truth), strict=True):
        np.testing.assert_array_equal(tile, overlay(photo, labels, 2))
    titles = [axes.get_title().partition("\n")[0] for axes in figure.axes]
    assert titles == ["photo", "right", "wrong", "ground truth"]
    assert [axes.get_xlabel() for axes in figure.axes[1:3]] == ["mIoU 100.0", "mIoU 25.0"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [r"\$a\$", "b"]  # no formula
    unlabelled, scores = draw_grid([photo], {"wrong": [wrong]}, ["a", "b"], None)
    assert len(unlabelled.axes) == 2
    assert scores == {}


def test_equal_figures_are_equal_files(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    labels = np.arange(4800).reshape(60, 80) % 3
    for name in ("a.png", "b.png"):
        save_png(
            draw_grid([photo, photo], {"m": [labels, labels]}, ["a", "b", "c"], None)[0], tmp_path / name
        )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_run_opens_as_it_was_saved(runs):
    run = open_run(runs / "plain#1")
    assert (run.name, run.step, run.config.clusters) == ("plain#1", 2, 6)
    start = load_model(run.config.model, random_weights=True)
    before = {n.removeprefix("visual."): v for n, v in start.network.state_dict().items() if "visual." in n}
    weights = load_file(runs / "plain#1" / "step-00000002.weights.safetensors")
    for pair, expected in ((run.start, before), (run.pair, weights)):
        position = pair.image.tower.visual.positional_embedding
        key = "positional_embedding" if expected is before else "visual.positional_embedding"
        assert torch.equal(position, expected[key])
    state = load_file(runs / "plain#1" / "step-00000002.state.safetensors")
    assert torch.equal(run.model.prompts.words, state["model.prompts.words"])


@pytest.mark.parametrize("name", ["plain#1", "centred"])
def test_masks_get_the_clusters_of_a_training_step(data, runs, name):
    """Against pooling in full: the features brought to the masks' size, their mean inside each."""
    run = open_run(runs / name)
    names = ["a/00.png", "a/03.png", "a/04.png"]
    found = assign(run, data / "images", data / "masks", names, 2)
    pooled, counts = [], []
    for photo in names:
        small = Image.fromarray(load_image(data / "images" / photo)).resize(
            (64, 64), Image.Resampling.BILINEAR
        )
        pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None]
        with torch.no_grad():
            features = dense_features(run.model.teacher.encoder, pixels).permute(0, 3, 1, 2)
        dense = F.interpolate(features, size=(16, 16), mode="bilinear", align_corners=False)[0]
        steps = (np.arange(16) + 0.5) / 16
        masks = torch.from_numpy(read_masks((data / "masks" / photo).with_suffix(".npz"), (steps, steps)))
        masks = masks[masks.sum((1, 2)) > 1]
        pooled += [F.normalize(dense[:, mask].mean(1), dim=0) for mask in masks]
        counts.append(len(masks))
    with torch.no_grad():
        queue = load_file(runs / name / "step-00000002.state.safetensors")["model.bank"]
        similarity = torch.cat([torch.stack(pooled), queue]) @ run.model.clusters().T
    expected = sinkhorn(similarity, run.config.epsilon).argmax(-1).numpy()[: sum(counts)]
    assert sum(counts) > 10
    assert len(queue) == 30  # tiny.yaml's, full after two steps
    assert [len(part) for part in found.clusters] == [len(part) for part in found.masks] == counts[:2]
    np.testing.assert_array_equal(np.concatenate(found.clusters), expected[: sum(counts[:2])])
    np.testing.assert_array_equal(found.used, np.bincount(expected, minlength=len(found.rank)))
    np.testing.assert_array_equal(
        found.shown, np.bincount(expected[: sum(counts[:2])], minlength=len(found.rank))
    )
    assert sorted(found.rank) == list(range(len(found.rank)))
    assert (np.diff(found.shown[np.argsort(found.rank)]) <= 0).all()


def test_a_mask_has_its_cluster_s_colour():
    photo = np.full((100, 100, 3), 80, np.uint8)
    masks = np.zeros((3, 100, 100), bool)
    masks[0, :, :50], masks[1, :, 60:], masks[2, 40:60, 10:30] = True, True, True  # the last within the first
    clusters = np.array([4, 1, 2])
    found = Clustered(
        [masks], [clusters], np.bincount(clusters, minlength=6), np.zeros(6), np.array([3, 1, 0, 4, 2, 5])
    )
    figure = draw_clusters([photo], [("run", found, list("abcdef"))])
    tile = tiles(figure)[2]
    scale = len(tile) / 100
    for (y, x), cluster in {(20, 20): 4, (50, 80): 1, (50, 20): 2}.items():
        seen = tile[int(y * scale), int(x * scale)]
        np.testing.assert_allclose(seen, blend((80, 80, 80), found.colours[cluster], 0.75), atol=2)
    legend = [text.get_text() for text in figure.axes[2].get_legend().get_texts()]
    assert legend == ["4 e", "1 b", "2 c"]  # 4600, 4000 and 400 pixels
    grey = tile[int(50 * scale), int(55 * scale)]  # under no mask
    assert grey.max() - grey.min() <= 2


@pytest.mark.parametrize("name", ["plain#1", "centred"])
def test_the_nearest_name_is_the_nearest(runs, shown, name):
    """Against every word alone, and the prompts by hand."""
    run = open_run(runs / name)
    words = list(dict.fromkeys([*WORDS.split(", "), *class_list("common-150")]))
    pair = run.pair
    pair.tokenizer.no_padding()
    with torch.no_grad():
        rows = []
        for word in words:
            texts = class_list("common-150").get(word, (word,)) if word not in WORDS.split(", ") else (word,)
            ids = [pair.tokenizer.encode(f"A photo of a {text} in the scene").ids for text in texts]
            rows.append(F.normalize(sum(pair.text(torch.tensor([i]))[0] for i in ids), dim=0))
        rows, clusters = torch.stack(rows), run.model.prompts(pair.text)
        if name == "centred":
            rows, clusters = (F.normalize(v - v.mean(0), dim=-1) for v in (rows, clusters))
        cosines = clusters @ rows.T
    with (shown / f"names-{name}.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert sorted(int(line["cluster"]) for line in table) == list(range(run.config.clusters))
    for line in table:
        own = cosines[int(line["cluster"])]
        best = own.topk(4)
        given = [own[words.index(line[f"name_{i}"])].item() for i in range(1, 5)]
        assert given == pytest.approx(best.values.tolist(), abs=1e-5)
        assert [float(line[f"cosine_{i}"]) for i in range(1, 5)] == pytest.approx(given, abs=1e-4)
        assert len(line["began_as"].split()) == 2
    assert (
        sum(int(line["masks_in_batch"]) for line in table)
        >= sum(int(line["masks_shown"]) for line in table)
        > 0
    )


def test_clusters_with_names_are_nearest_to_themselves(data, tmp_path):
    settings = [f"images={data / 'images'}", f"masks={data / 'masks'}", f"out={tmp_path / 'run'}", "steps=2"]
    settings += ["classes=names", "names=voc-20", "queue=30"]
    train(load_config(TRAINING / "configs" / "tiny.yaml", settings))
    run = open_run(tmp_path / "run")
    assert int(run.model.banked) == 30
    names = list(class_list("voc-20"))
    assert initial_words(run) == names
    rows = embed_words(run, merge_classes(class_list("common-150"), class_list("voc-20")))
    words = with_clusters(run, list(merge_classes(class_list("common-150"), class_list("voc-20"))), rows)
    assert [row[0][0] for row in nearest_words(words, 1)] == names


def test_the_map_keeps_neighbours_and_is_the_same_again():
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(8, dtype=np.float32)[:4], 20, axis=0)
    points = centres + rng.normal(0, 0.05, centres.shape).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    flat = project(points)
    assert np.array_equal(flat, project(points))
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1) + np.where(np.eye(80), np.inf, 0)
    assert (distance.argmin(1) // 20 == np.arange(80) // 20).all()


def test_a_map_of_few_points():
    points = np.eye(5, dtype=np.float32)
    assert np.isfinite(project(points)).all()
    with pytest.raises(PixelClipError, match="t-SNE of 4 points; expected at least 5"):
        project(points[:4])


def test_the_map_labels_classes_and_the_most_used_clusters():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words = WordVectors([f"word{i}" for i in range(20)], vectors[:20], vectors[20:])
    used = np.array([5, 0, 3, 9, 1, 1, 0, 2, 2, 4])
    found = Clustered([], [], used, used, np.argsort(np.argsort(-used, kind="stable")))
    figure = draw_tsne(words, found, ["word3"], [f"near{i}" for i in range(10)])
    (axes,) = figure.axes
    assert [len(points.get_offsets()) for points in axes.collections] == [19, 8, 2, 1]
    texts = [text.get_text() for text in axes.texts]
    assert texts[:2] == ["word3", "3 near3"]  # classes first, then clusters by use
    assert not any(text.startswith(("1 ", "6 ")) for text in texts)  # no mask, no label
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(box.count_overlaps(boxes[:i]) for i, box in enumerate(boxes))


@pytest.mark.usefixtures("few_words")
def test_photos_without_labels_and_a_run_without_clusters(data, tmp_path, capsys):
    settings = [f"images={data / 'images'}", f"masks={data / 'masks'}", "steps=1", "clustering=false"]
    train(load_config(TRAINING / "configs" / "tiny.yaml", [*settings, f"out={tmp_path / 'run'}"]))
    command = ["--root", str(data / "scenes" / "images"), "--classes", WORDS, "--photos", "1"]
    assert pictures.main(["--run", str(tmp_path / "run"), *command, "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"grid.png", "index.html"}
    assert "mIoU" not in (tmp_path / "out" / "index.html").read_text()
    assert str(tmp_path / "out" / "index.html") in capsys.readouterr().out


@pytest.mark.usefixtures("few_words")
def test_other_weights_stand_in_the_column_after(data, runs, tmp_path, monkeypatch):
    run, file = runs / "plain#1", tmp_path / "other.safetensors"
    tuned = load_file(run / "step-00000002.weights.safetensors")
    start = load_model(str(TRAINING / "configs" / "tiny.json"), random_weights=True)
    turned = tuned | {"visual.proj": -tuned["visual.proj"]}  # the nearest word becomes the farthest
    drawn = []
    monkeypatch.setattr(pictures, "save_png", lambda figure, path: drawn.append((path, figure)))
    columns = {}
    for name, weights in {
        "none": {},
        "start": start.network.state_dict(),
        "tuned": tuned,
        "turned": turned,
    }.items():
        command = ["--run", str(run), "--root", str(data / "scenes" / "images"), "--classes", WORDS]
        if weights:
            save_file({key: value.contiguous() for key, value in weights.items()}, file)
            command += ["--weights", str(file)]
        command += ["--photos", "1", "--device", "cpu", "--out", str(tmp_path / name)]
        assert pictures.main(command) == 0
        grid = next(figure for path, figure in drawn if path == tmp_path / name / "grid.png")
        _, columns["before"], columns[name] = tiles(grid)
    assert np.array_equal(columns["start"], columns["before"])
    assert np.array_equal(columns["tuned"], columns["none"])
    assert not np.array_equal(columns["turned"], columns["tuned"])


def test_weights_that_do_not_fit(runs, command, tmp_path, capsys):
    save_file({"visual.proj": torch.zeros(3)}, tmp_path / "other.safetensors")
    more = ["--weights", str(tmp_path / "other.safetensors")]
    assert pictures.main(["--run", str(runs / "plain#1"), *command, *more]) == 1
    assert "other.safetensors" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        pictures.main(["--run", str(runs / "plain#1"), str(runs / "centred"), *command, *more])
    assert "got 2 runs, expected one --run" in capsys.readouterr().err


@pytest.fixture
def command(data, tmp_path):
    places = ["--root", str(data / "images"), "--out", str(tmp_path / "out")]
    return [*places, "--classes", WORDS, "--photos", "1"]


@pytest.mark.usefixtures("few_words")
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--masks", "nowhere"],
            "nowhere is no folder.*photos or masks have moved.*--masks DIR",
        ),
        (["--images", "nowhere"], "nowhere is no folder.*--images DIR"),
        (["--model", "nowhere.json"], "cannot read the model configuration nowhere.json.*--model"),
        (["--checkpoint", "nowhere.pth"], "nowhere.pth.*--checkpoint"),
        (["--model", "pixelclip-lit"], "Did you mean 'pixelclip-lite'"),
        (["--classes", "voc-21"], "Did you mean 'voc-20'"),
        (["--root", "nowhere"], "the folder nowhere does not exist"),
        (["--dataset", "camvid-11"], "got 3 classes; camvid-11 has 11"),
    ],
)
def test_bad_input_is_said_in_a_line(runs, command, tmp_path, capsys, more, message):
    assert pictures.main(["--run", str(runs / "plain#1"), *command, *more]) == 1
    said = capsys.readouterr().err
    assert said.startswith("pictures: ")
    assert re.search(message, said), said
    assert not (tmp_path / "out" / "index.html").exists()


def test_runs_that_cannot_be_opened_or_compared(data, runs, command, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert pictures.main(["--run", str(tmp_path / "empty"), *command]) == 1
    assert "there is no checkpoint in" in capsys.readouterr().err

    content = json.loads((TRAINING / "configs" / "tiny.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps(content | {"embed_dim": 16}))
    other = ["--model", str(tmp_path / "other.json")]
    assert pictures.main(["--run", str(runs / "plain#1"), *command, *other]) == 1
    assert "is of another model: size mismatch for" in capsys.readouterr().err

    settings = [f"images={data / 'images'}", f"masks={data / 'images' / '..' / 'masks'}", "steps=1"]
    train(load_config(TRAINING / "configs" / "tiny.yaml", [*settings, f"out={tmp_path / 'else'}"]))
    both = ["--run", str(runs / "plain#1"), str(tmp_path / "else")]
    assert pictures.main([*both, *command]) == 1
    said = capsys.readouterr().err
    assert "the runs differ in masks" in said
    assert "give --masks for all if it only moved" in said

    for more in ([], ["--dataset", "folder"]):
        with pytest.raises(SystemExit, match="2"):
            pictures.main([*both, *command, *more, "--split", "val"])
    without = [part for part in command if part not in ("--classes", WORDS)]
    assert pictures.main(["--run", str(runs / "plain#1"), *without]) == 1
    assert "photos without labels need --classes" in capsys.readouterr().err


@pytest.mark.slow
def test_the_bundled_model_and_everyday_nouns(data, tmp_path):
    small = ["input_size=96", "mask_size=24", "clusters=8", "steps=1", "batch=2", "workers=0", "device=cpu"]
    small += ["classes=prompts", "names=null"]
    settings = [f"images={data / 'images'}", f"masks={data / 'masks'}", f"out={tmp_path / 'run'}", *small]
    train(load_config(TRAINING / "configs" / "pixelclip-lite.yaml", settings))
    command = ["--root", str(ROOT / "examples" / "photos"), "--classes", "cat, coffee", "--photos", "2"]
    assert pictures.main(["--run", str(tmp_path / "run"), *command, "--out", str(tmp_path / "out")]) == 0
    assert "out of 2878 words" in (tmp_path / "out" / "index.html").read_text()
