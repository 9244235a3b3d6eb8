"""`pixelclip predict --format`: whole runs, read back by the libraries of the formats."""

import importlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pixelclip_sdk import Segmenter
from pixelclip_sdk.cli.main import main
from pixelclip_sdk.image import load_image

NAMES = ["coffee cup", "spoon", "wooden table"]
CLASSES = ["--classes", ", ".join(NAMES)]


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two photos in folders of the same parent."""
    photo = load_image(Path(__file__).parents[3] / "examples" / "photos" / "coffee.jpg")
    for name, step in (("one/b.png", 2), ("two/a.jpg", 3)):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True)
        Image.fromarray(photo[::step, ::step]).save(path)
    return tmp_path / "in"


@pytest.fixture
def run(photos, tmp_path):
    """Runs the command on both photos, and returns the folder with the results."""

    def predict(*arguments: str, code: int = 0) -> Path:
        files = [str(photos / "one" / "b.png"), str(photos / "two" / "a.jpg")]
        assert main(["predict", *files, *CLASSES, "--out", str(tmp_path / "out"), *arguments]) == code
        return tmp_path / "out"

    return predict


@pytest.fixture(scope="module")
def lite() -> Iterator[Segmenter]:
    with Segmenter.from_pretrained(classes=NAMES) as segmenter:
        yield segmenter


@pytest.fixture(scope="session")
def supervision():
    with warnings.catch_warnings(action="ignore"):  # It warns where OpenCV is missing.
        try:
            return importlib.import_module("supervision")
        except ImportError:
            pytest.skip("supervision is not installed")


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def masks(lite, photo: Path) -> list[tuple[str, bytes]]:
    """What the readers should find in a photo."""
    return [(region.name, region.mask().tobytes()) for region in lite.predict(photo).regions()]


def check(data, lite, photos: Path) -> None:
    """A data set of supervision has the regions of both photos."""
    assert {Path(image).name for image in data.annotations} == {"a.jpg", "b.png"}
    for image, detections in data.annotations.items():
        read = [data.classes[i] for i in detections.class_id]
        expected = masks(lite, next(photos.rglob(Path(image).name)))
        assert expected
        assert [(name, mask.tobytes()) for name, mask in zip(read, detections.mask, strict=True)] == expected


def test_the_default_is_pictures_and_facts(run):
    assert files(run()) == [
        f"{stem}{end}" for stem in "ab" for end in (".json", ".labels.png", ".overlay.png")
    ]


def test_facts_have_the_regions(run, lite, photos):
    facts = json.loads((run("--format", "json") / "b.json").read_text())
    assert facts["regions"] == [
        region.summary() for region in lite.predict(photos / "one" / "b.png").regions()
    ]
    assert "overlay" not in facts
    assert "labels" not in facts


@pytest.mark.parametrize(
    ("chosen", "written"),
    [
        ("png", ["a.labels.png", "a.overlay.png", "b.labels.png", "b.overlay.png"]),
        ("json", ["a.json", "b.json"]),
        ("coco", ["coco/annotations.json"]),
        ("labelme", ["labelme/a.json", "labelme/b.json"]),
        (
            " YOLO-seg ,coco,",
            [
                "coco/annotations.json",
                "yolo-seg/data.yaml",
                "yolo-seg/images/a.jpg",
                "yolo-seg/images/b.png",
                "yolo-seg/labels/a.txt",
                "yolo-seg/labels/b.txt",
            ],
        ),
    ],
)
def test_only_what_was_asked_for_is_written(run, chosen, written):
    assert files(run("--format", chosen)) == written


def test_coco_is_one_file_with_all_images(run, lite, photos, supervision):
    data = json.loads((run("--format", "coco") / "coco" / "annotations.json").read_text())
    assert [(image["id"], image["file_name"]) for image in data["images"]] == [
        (1, "one/b.png"),
        (2, "two/a.jpg"),
    ]
    assert data["info"]["images_folder"] == str(photos)
    assert [a["id"] for a in data["annotations"]] == list(range(1, len(data["annotations"]) + 1))
    assert {a["image_id"] for a in data["annotations"]} == {1, 2}
    path = str(run("--format", "coco") / "coco" / "annotations.json")
    read = supervision.DetectionDataset.from_coco(str(photos), path, force_masks=True)
    check(read, lite, photos)


def test_yolo_is_a_data_set(run, lite, photos, supervision):
    folder = run("--format", "yolo-seg") / "yolo-seg"
    assert (folder / "images" / "a.jpg").read_bytes() == (photos / "two" / "a.jpg").read_bytes()
    read = supervision.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml")
    )
    assert read.classes == NAMES
    check(read, lite, photos)


def test_labelme_leads_to_the_images(run, lite, photos, supervision, tmp_path):
    folder = run("--format", "labelme") / "labelme"
    content = json.loads((folder / "b.json").read_text())
    assert content["imagePath"] == "../../in/one/b.png"
    assert (folder / content["imagePath"]).samefile(photos / "one" / "b.png")
    together = tmp_path / "together"
    together.mkdir()
    for photo in photos.rglob("*.*"):
        (together / photo.name).write_bytes(photo.read_bytes())
    check(supervision.DetectionDataset.from_labelme(str(together), str(folder)), lite, photos)


def test_labels_of_other_classes_are_not_mixed(run, capsys, tmp_path, photos):
    folder = run("--format", "yolo-seg")
    run("--format", "yolo-seg")
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    command = [
        "predict",
        str(photos / "one" / "b.png"),
        "--out",
        str(tmp_path / "out"),
        "--format",
        "yolo-seg",
    ]
    assert main([*command, "--classes", "spoon, coffee cup"]) == 1
    assert "is of a run with other classes" in capsys.readouterr().err
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before


def test_after_an_interruption_coco_has_the_images_until_then(run, monkeypatch):
    predict = Segmenter.predict

    def interrupted(self, image, **options):
        if str(image).endswith("a.jpg"):
            raise KeyboardInterrupt
        return predict(self, image, **options)

    monkeypatch.setattr(Segmenter, "predict", interrupted)
    data = json.loads((run("--format", "coco", code=130) / "coco" / "annotations.json").read_text())
    assert [image["file_name"] for image in data["images"]] == ["one/b.png"]
    assert data["annotations"]


def test_no_image_no_file(tmp_path, capsys):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    arguments = ["--out", str(tmp_path / "out"), "--format", "coco,yolo-seg"]
    assert main(["predict", str(bad), *CLASSES, *arguments]) == 1
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().out == "0 of 1 images; 1 failed, see above\n"


def test_an_image_without_regions_is_in_the_files(tmp_path, photo):
    Image.fromarray(photo[::4, ::4]).save(tmp_path / "a.png")
    arguments = ["--threshold", "0.99", "--out", str(tmp_path / "out"), "--format", "coco,labelme,yolo-seg"]
    assert main(["predict", str(tmp_path / "a.png"), *CLASSES, *arguments]) == 0
    data = json.loads((tmp_path / "out" / "coco" / "annotations.json").read_text())
    assert (len(data["images"]), data["annotations"]) == (1, [])
    assert (tmp_path / "out" / "yolo-seg" / "labels" / "a.txt").read_text() == ""
    assert json.loads((tmp_path / "out" / "labelme" / "a.json").read_text())["shapes"] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [("pgn", "Did you mean 'png'"), ("", "no format"), ("png,xml", "'xml'; expected some of png")],
)
def test_other_formats_are_wrong_usage(run, capsys, text, said):
    with pytest.raises(SystemExit, match="2"):
        run("--format", text)
    assert said in capsys.readouterr().err
