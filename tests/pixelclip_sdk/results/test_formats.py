"""Formats of other tools: what they read back is the mask, pixel by pixel."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelclip_sdk import BackendUnavailableError
from pixelclip_sdk.results import formats


@pytest.fixture
def result(labels, make_result):
    return make_result(labels)


@pytest.fixture
def folder(result, tmp_path):
    """A folder with the image, image.png."""
    (tmp_path / "images").mkdir()
    Image.fromarray(result.image).save(tmp_path / "images" / "image.png")
    return tmp_path


def regions_of(result) -> list[tuple[int, bytes]]:
    """Label and mask of every region."""
    return [(region.label, region.mask().tobytes()) for region in result.regions(min_area=0)]


def in_detections(detections, classes: list[str], result) -> list[tuple[int, bytes]]:
    labels = [result.names.index(classes[i]) for i in detections.class_id]
    return [(label, mask.tobytes()) for label, mask in zip(labels, detections.mask, strict=True)]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_coco_is_read_by_pycocotools(result, folder):
    coco = pytest.importorskip("pycocotools.coco")
    path = folder / "annotations.json"
    path.write_text(json.dumps(result.to_coco("image.png", min_area=0)))
    data = coco.COCO(str(path))
    read = [
        (a["category_id"] - 1, data.annToMask(a).astype(bool).tobytes())
        for a in data.loadAnns(data.getAnnIds())
    ]
    assert read == regions_of(result)
    for annotation, region in zip(data.dataset["annotations"], result.regions(min_area=0), strict=True):
        x, y, width, height = annotation["bbox"]
        assert (x, y, x + width, y + height) == region.box
        assert annotation["area"] == region.area
    assert [c["name"] for c in data.loadCats(data.getCatIds())] == list(result.names)
    assert data.loadImgs(1)[0] == {
        "id": 1,
        "file_name": "image.png",
        "height": result.orig_shape[0],
        "width": result.orig_shape[1],
    }


def test_coco_is_read_by_supervision(result, folder, supervision):
    path = folder / "annotations.json"
    path.write_text(json.dumps(result.to_coco("image.png", min_area=0)))
    data = supervision.DetectionDataset.from_coco(str(folder / "images"), str(path), force_masks=True)
    (detections,) = data.annotations.values()
    assert in_detections(detections, data.classes, result) == regions_of(result)
    assert detections.xyxy.tolist() == [list(region.box) for region in result.regions(min_area=0)]


def test_yolo_is_read_by_supervision(result, folder, supervision):
    (folder / "labels").mkdir()
    (folder / "labels" / "image.txt").write_text(result.to_yolo_seg(min_area=0))
    (folder / "data.yaml").write_text(formats.yolo_data(result.names))
    data = supervision.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml")
    )
    (detections,) = data.annotations.values()
    assert data.classes == list(result.names)
    assert in_detections(detections, data.classes, result) == regions_of(result)


def test_labelme_is_read_by_supervision(result, folder, supervision):
    (folder / "annotations").mkdir()
    content = json.dumps(result.to_labelme("../images/image.png", min_area=0))
    (folder / "annotations" / "image.json").write_text(content)
    data = supervision.DetectionDataset.from_labelme(str(folder / "images"), str(folder / "annotations"))
    (detections,) = data.annotations.values()
    assert in_detections(detections, data.classes, result) == regions_of(result)


def test_yolo_and_labelme_drawn_by_pillow_are_the_masks(result):
    """Both ways to get a pixel from a fraction: rounding and cutting off. labelme draws as this test does."""
    height, width = result.orig_shape
    shapes = result.to_labelme("image.png", min_area=0)["shapes"]
    lines = result.to_yolo_seg(min_area=0).splitlines()
    for region, shape, line in zip(result.regions(min_area=0), shapes, lines, strict=True):
        label, *numbers = line.split()
        assert (int(label), shape["label"]) == (region.label, region.name)
        points = np.array(numbers, np.float32).reshape(-1, 2) * np.array([width, height], np.float32)
        for polygon in (shape["points"], np.round(points), np.trunc(points)):
            canvas = Image.new("1", (width, height))
            ImageDraw.Draw(canvas).polygon([tuple(map(float, p)) for p in polygon], fill=1, outline=1)
            np.testing.assert_array_equal(np.asarray(canvas), region.mask())


def test_supervision_detections(result, supervision):
    detections = result.to_supervision(min_area=0)
    assert isinstance(detections, supervision.Detections)
    assert in_detections(detections, list(result.names), result) == regions_of(result)
    assert detections.data["class_name"].tolist() == [region.name for region in result.regions(min_area=0)]
    assert ((detections.confidence >= 0) & (detections.confidence <= 1)).all()
    chosen = result.to_supervision(min_area=0, classes=result.names[0])
    assert set(chosen.class_id.tolist()) <= {0}


def test_without_supervision_the_error_names_the_package(make_result, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(BackendUnavailableError, match="pip install supervision"):
        make_result(np.zeros((2, 2), np.uint8)).to_supervision()


def test_nothing_found(make_result, request):
    result = make_result(np.full((3, 4), 255, np.uint8))
    assert result.to_coco("a.png")["annotations"] == []
    assert result.to_labelme("a.png")["shapes"] == []
    assert result.to_yolo_seg() == ""
    assert result.summary()["regions"] == []
    assert result.summary()["unknown_area"] == 1
    assert len(request.getfixturevalue("supervision").Detections.empty()) == len(result.to_supervision()) == 0


def test_ids_go_on_for_several_images(make_result):
    result = make_result(np.array([[0, 1]], np.uint8))
    second = result.to_coco("b.png", image_id=2, first_id=8)["annotations"]
    assert [(a["id"], a["image_id"]) for a in second] == [(8, 2), (9, 2)]


def test_the_summary_is_json(make_result):
    result = make_result(np.array([[0, 0, 1, 255]], np.uint8), ["Kätzchen", "sofa"])
    assert json.loads(result.to_json()) == result.summary()
    assert "Kätzchen" in result.to_json()
    summary = result.summary()
    for region in summary["regions"]:
        assert 0 <= region.pop("confidence") <= 1
    assert summary == {
        "size": [1, 4],
        "areas": {"Kätzchen": 0.5, "sofa": 0.25},
        "unknown_area": 0.25,
        "regions": [
            {
                "name": "Kätzchen",
                "label": 0,
                "area": 2,
                "box": [0, 0, 2, 1],
                "centroid": [0.5, 0.0],
                "score": 0.0,
            },
            {
                "name": "sofa",
                "label": 1,
                "area": 1,
                "box": [2, 0, 3, 1],
                "centroid": [2.0, 0.0],
                "score": 0.0,
            },
        ],
        "speed_ms": {"total": 1.0},
        "frame": None,
    }


ODD = ["it's", 'a "b": c # d', "- x", "猫", "\\n", "a\x85b", "yes", "1.0", "\U0001f431", "{x}", "tab\there"]


def test_odd_names_in_yaml():
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(formats.yolo_data(ODD)) == {
        "train": "images",
        "val": "images",
        "nc": len(ODD),
        "names": dict(enumerate(ODD)),
    }


def test_formats_of_many_names_and_a_large_picture(make_result):
    """4 096 names at 3840×2160, and every region in all formats."""
    names = [f"n{i}" for i in range(4096)]
    labels = np.arange(2160)[:, None] // 180 * 340 + np.arange(3840) // 240
    result = make_result(labels, names)
    coco = result.to_coco("a.png", min_area=0)
    assert len(coco["annotations"]) == 12 * 16
    assert len(coco["categories"]) == 4096
    assert len(result.to_labelme("a.png", min_area=0)["shapes"]) == len(coco["annotations"])
    assert result.to_yolo_seg(min_area=0).count("\n") == len(coco["annotations"])
    assert result.to_coco("a.png", min_area=0.006)["annotations"] == []
