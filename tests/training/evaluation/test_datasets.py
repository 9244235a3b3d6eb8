"""Each set's labels, on a miniature of its real layout."""

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from pixelclip_sdk.words.classes import class_list
from training.evaluation.datasets import DATASETS, DatasetError, load_dataset
from training.evaluation.metrics import BACKGROUND, IGNORE_INDEX


def put(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    if mode == "P":  # as VOC's: the pixels are indices of a palette
        image = image.convert("L").copy()
        image.putpalette([value for i in range(256) for value in (i, 255 - i, i // 2)])
    image.save(path)


def photo(path, width=4):
    put(path, np.zeros((1, width, 3)))


def coco_stuff(root, ids):
    photo(root / "images/val2017/000000000139.jpg", len(ids))
    photo(root / "images/train2017/000000000009.jpg", len(ids))
    put(root / "annotations/val2017/000000000139.png", [ids])


def ade20k(root, ids):
    photo(root / "images/validation/ADE_val_00000001.jpg", len(ids))
    put(root / "annotations/validation/ADE_val_00000001.png", [ids])


def cityscapes(root, ids):
    stem = "frankfurt_000000_000294"
    put(root / f"leftImg8bit/val/frankfurt/{stem}_leftImg8bit.png", np.zeros((1, len(ids), 3)))
    for kind in ("labelIds", "instanceIds", "labelTrainIds"):
        put(root / f"gtFine/val/frankfurt/{stem}_gtFine_{kind}.png", [ids if kind == "labelIds" else [99]])


def voc(root, ids):
    photo(root / "JPEGImages/2007_000033.jpg", len(ids))
    photo(root / "JPEGImages/2007_000032.jpg", len(ids))  # of the training part
    put(root / "SegmentationClassAug/2007_000033.png", [ids])
    put(root / "SegmentationClass/2007_000033.png", [[1]])
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/val.txt").write_text("2007_000033\n")


def context(root, ids):
    photo(root / "JPEGImages/2008_000002.jpg", len(ids) + 1)
    photo(root / "JPEGImages/2008_000003.jpg", 1)
    annotations = []
    for i, label in enumerate(ids):
        mask = np.zeros((1, len(ids) + 1), np.uint8, order="F")
        mask[0, i] = 1
        code = coco.encode(mask)
        code["counts"] = code["counts"].decode()
        annotations.append({"image_id": 2008000002, "category_id": label, "segmentation": code})
    images = [
        {
            "file_name": "2008_000002.jpg",
            "image_id": 2008000002,
            "phase": "val",
            "height": 1,
            "width": len(ids) + 1,
        },
        {"file_name": "2008_000003.jpg", "image_id": 2008000003, "phase": "train", "height": 1, "width": 1},
    ]
    content = {"images": images, "annos_segmentation": annotations}
    (root / "trainval_merged.json").write_text(json.dumps(content))


def camvid(root, ids):
    photo(root / "val/images/0016E5_07959.jpg", len(ids))
    put(root / "val/labels/0016E5_07959.png", [ids])


# Set → its maker, ids → names of the classes they mean (None: ignored, or BACKGROUND), an id that it lacks.
SETS = {
    "coco-stuff-171": (
        coco_stuff,
        {
            0: "person",
            10: "fire hydrant",
            12: "stop sign",
            89: "toothbrush",
            91: "banner",
            181: "wood",
            255: None,
        },
        11,
    ),
    "ade20k-150": (ade20k, {0: BACKGROUND, 1: "wall", 2: "building", 13: "person", 150: "flag"}, 151),
    "cityscapes-19": (
        cityscapes,
        {0: None, 3: None, 7: "road", 9: None, 11: "building", 26: "car", 29: None, 33: "bicycle"},
        34,
    ),
    "voc-20": (voc, {0: BACKGROUND, 1: "aeroplane", 8: "cat", 20: "tvmonitor", 255: None}, 21),
    "pascal-context-59": (
        context,
        {2: "aeroplane", 1: None, 284: "person", 397: "diningtable", 420: "tree", 458: "wood", 459: None},
        460,
    ),
    "camvid-11": (camvid, {0: "sky", 5: "tree", 10: "bicyclist", 11: None}, 12),
}


# Ids of things that COCO numbered and never used, from 1: street sign, hat, shoe, eye glasses, plate, mirror,
# window, desk, door, blender, hair brush.
COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}


def test_every_set_is_tested():
    assert {*SETS, "folder"} == set(DATASETS)


@pytest.mark.parametrize("name", SETS)
def test_ids_become_the_classes_they_mean(tmp_path, name):
    make, meaning, _ = SETS[name]
    make(tmp_path, list(meaning))
    data = load_dataset(name, tmp_path)
    assert len(data) == 1
    assert data.classes == class_list(name)
    names = list(data.classes)
    special = {None: IGNORE_INDEX, BACKGROUND: BACKGROUND}
    expected = [special[word] if word in special else names.index(word) for word in meaning.values()]
    truth = data.truth(0)
    assert truth.dtype == np.uint8
    if name == "pascal-context-59":
        expected.append(IGNORE_INDEX)  # its last pixel lies in no region
    assert truth[0].tolist() == expected


@pytest.mark.parametrize("name", SETS)
def test_an_unknown_id_is_an_error_with_file_and_id(tmp_path, name):
    make, meaning, wrong = SETS[name]
    make(tmp_path, [next(iter(meaning)), wrong])
    with pytest.raises(DatasetError, match=rf"(png|jpg).* has the label ids {wrong}; {name} has 0-"):
        load_dataset(name, tmp_path).truth(0)


@pytest.mark.parametrize("name", SETS)
def test_an_empty_folder_names_the_missing_path(tmp_path, name):
    with pytest.raises(DatasetError, match=f"{name}: .*{tmp_path}"):
        load_dataset(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "ids", "ignored"),
    [
        ("cityscapes-19", range(34), 15),
        ("voc-20", range(21), 1),
        ("ade20k-150", range(151), 1),
        # COCO's 91 ids of things have 11 gaps; 91 kinds of stuff follow.
        ("coco-stuff-171", [i for i in range(182) if i + 1 not in COCO_GAPS], 0),
        ("pascal-context-59", range(460), 401),
    ],
)
def test_every_id_has_its_class_and_every_class_its_id(tmp_path, name, ids, ignored):
    """In the order of the list, without gaps or repeats."""
    SETS[name][0](tmp_path, list(ids))
    truth = load_dataset(name, tmp_path).truth(0)[0, : len(ids)]
    assert (truth >= BACKGROUND).sum() == ignored
    scored = truth[truth < BACKGROUND].tolist()
    assert sorted(scored) == list(range(len(class_list(name))))
    if name != "cityscapes-19":  # whose train ids have another order
        assert scored == sorted(scored)


def test_the_lists_have_the_order_of_their_ids():
    """Both sets number their classes by the alphabet: COCO's stuff, and Context's 459 with "table"."""
    stuff = list(class_list("coco-stuff-171"))[80:]
    assert stuff == sorted(stuff)
    names = ["table" if name == "diningtable" else name for name in class_list("pascal-context-59")]
    assert names == sorted(names)


def test_indices_of_a_palette_are_the_ids(tmp_path):
    voc(tmp_path, [0, 1])
    put(tmp_path / "SegmentationClassAug/2007_000033.png", [[0, 1, 20, 255]], "P")
    assert load_dataset("voc-20", tmp_path).truth(0)[0].tolist() == [BACKGROUND, 0, 19, IGNORE_INDEX]


def test_grey_of_few_bits_keeps_its_ids(folder):
    ids = np.array([[0, 1, 3, 2]], np.uint8)
    for bits in (2, 4, 8):
        write_grey_png(folder / "labels/a.png", ids, bits)
        assert load_dataset("folder", folder, classes="a, b, c, d").truth(0).tolist() == ids.tolist()
    write_grey_png(folder / "labels/a.png", ids % 2, 1)
    assert load_dataset("folder", folder, classes="a, b").truth(0).tolist() == (ids % 2).tolist()


def write_grey_png(path, ids, bits):
    """As optimisers of PNGs write few grey levels; Pillow itself writes none of 2 or 4 bits."""
    (row,) = ids
    packed = np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :].ravel()).tobytes()

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", len(row), 1, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" + packed)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


PHOTOS = {
    "coco-stuff-171": 5000,
    "ade20k-150": 2000,
    "pascal-context-59": 5105,
    "cityscapes-19": 500,
    "voc-20": 1449,
    "camvid-11": 101,
}


@pytest.mark.parametrize("name", SETS)
def test_an_incomplete_data_set_is_logged(tmp_path, caplog, name):
    SETS[name][0](tmp_path, [next(iter(SETS[name][1]))])
    data = load_dataset(name, tmp_path)
    assert (len(data), data.expected) == (1, PHOTOS[name])
    assert f"has 1 photos here; the complete split has {PHOTOS[name]}" in caplog.text


def test_complete_sets_and_other_splits_are_not_logged(tmp_path, caplog):
    for index in range(101):
        photo(tmp_path / f"val/images/{index}.jpg")
        put(tmp_path / f"val/labels/{index}.png", [[0] * 4])
    assert load_dataset("camvid-11", tmp_path).expected == 101
    (tmp_path / "val").rename(tmp_path / "train")
    assert load_dataset("camvid-11", tmp_path, split="train").expected is None
    assert caplog.text == ""


def test_voc_without_the_augmented_labels(tmp_path, caplog):
    voc(tmp_path, [0, 1])
    assert load_dataset("voc-20", tmp_path).label_files == "SegmentationClassAug/{stem}.png"
    assert "SegmentationClass/" not in caplog.text
    put(tmp_path / "SegmentationClass/2007_000033.png", [[20, 255]], "P")
    (tmp_path / "SegmentationClassAug/2007_000033.png").unlink()
    with pytest.raises(DatasetError, match=r"1 files are missing, the first is .*ClassAug"):
        load_dataset("voc-20", tmp_path)  # a folder with holes is no other set
    (tmp_path / "SegmentationClassAug").rmdir()
    data = load_dataset("voc-20", tmp_path)
    assert data.label_files == "SegmentationClass/{stem}.png"
    assert data.truth(0)[0].tolist() == [19, IGNORE_INDEX]
    assert "no SegmentationClassAug/{stem}.png in" in caplog.text


def test_another_split(tmp_path):
    camvid(tmp_path, [0])
    (tmp_path / "val").rename(tmp_path / "train")
    assert load_dataset("camvid-11", tmp_path, split="train").split == "train"
    with pytest.raises(
        DatasetError, match=r"no photos at .* This folder has the splits train: choose one with --split\."
    ):
        load_dataset("camvid-11", tmp_path)
    photo(tmp_path / "others/images/a.jpg")  # photos without labels are not a split
    with pytest.raises(DatasetError, match=r"has the splits train: choose"):
        load_dataset("camvid-11", tmp_path)


@pytest.fixture
def folder(tmp_path):
    photo(tmp_path / "images/a.jpg")
    put(tmp_path / "labels/a.png", [[0, 1, 255, 0]])
    return tmp_path


def test_a_folder(folder):
    data = load_dataset("folder", folder, classes="cat, sofa")
    assert list(data.classes) == ["cat", "sofa"]
    assert data.truth(0)[0].tolist() == [0, 1, IGNORE_INDEX, 0]
    with pytest.raises(DatasetError, match="label ids 1; folder has 0, 255"):
        load_dataset("folder", folder, classes="cat").truth(0)
    with pytest.raises(DatasetError, match="needs the names"):
        load_dataset("folder", folder)
    with pytest.raises(DatasetError, match="255 classes; expected at most 254"):
        load_dataset("folder", folder, classes=[f"thing {i}" for i in range(255)])


def test_ignored_ids_of_a_folder_shift_the_classes(folder):
    put(folder / "labels/a.png", [[0, 1, 255, 20]])
    with pytest.raises(DatasetError, match=r"label ids 20; .* If they are those of voc-20, give --ignore 0$"):
        load_dataset("folder", folder, classes="voc-20").truth(0)
    data = load_dataset("folder", folder, classes="voc-20", ignore=[0])
    assert data.truth(0)[0].tolist() == [BACKGROUND, 0, IGNORE_INDEX, 19]
    data = load_dataset("folder", folder, classes="voc-20", ignore=[0, 1])  # several ids are no background
    assert data.truth(0)[0].tolist() == [IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 18]
    data = load_dataset("folder", folder, classes="a, b, c", ignore=[20])  # above the classes: no shift
    assert data.truth(0)[0].tolist() == [0, 1, IGNORE_INDEX, IGNORE_INDEX]


@pytest.mark.parametrize("name", ["coco-stuff-171", "cityscapes-19", "ade20k-150", "voc-20", "camvid-11"])
def test_labels_as_distributed_in_a_folder(tmp_path, name):
    """The error names the ids to ignore; with them the classes are those of the data set's own layout."""
    make, meaning, _ = SETS[name]
    ids = [label for label in meaning if label != 255]
    photo(tmp_path / "images/a.jpg", len(ids))
    put(tmp_path / "labels/a.png", [ids])
    with pytest.raises(DatasetError, match=f"If they are those of {name}, give --ignore [0-9 ]+$") as caught:
        load_dataset("folder", tmp_path, classes=name).truth(0)
    ignore = [int(number) for number in str(caught.value).rpartition("--ignore ")[2].split()]
    make(tmp_path / "own", ids)
    own = load_dataset(name, tmp_path / "own")
    found = load_dataset("folder", tmp_path, classes=name, ignore=ignore)
    assert found.truth(0).tolist() == own.truth(0).tolist()


@pytest.mark.parametrize(
    ("classes", "asked"),
    [
        ("voc-20", True),
        ({name: [name, "thing"] for name in class_list("voc-20")}, True),  # the same names with synonyms
        ("ade20k-150", True),
        ("cityscapes-19", False),  # 0 is the first of its train ids
        ([f"thing {i}" for i in range(20)], False),
    ],
)
def test_labels_with_a_background_are_not_taken_for_the_first_class(folder, classes, asked):
    """Labels of VOC without a television (20) have no id that is out of range."""
    for name in "bc":
        photo(folder / f"images/{name}.jpg")
        put(folder / f"labels/{name}.png", [[8, 12, 0, 15]])
    data = load_dataset("folder", folder, classes=classes)
    if asked:
        first = next(iter(data.classes))
        message = rf"3 of 3 label files have the id 0, which would be '{first}'\. Is 0 the .* --ignore 0"
        with pytest.raises(DatasetError, match=message):
            list(data.check_labels())
    else:
        assert len(list(data.check_labels())) == 3
    assert len(list(load_dataset("folder", folder, classes=classes, ignore=[255]).check_labels())) == 3
    put(folder / "labels/b.png", [[8, 12, 1, 15]])
    put(folder / "labels/c.png", [[8, 12, 1, 15]])
    assert len(list(load_dataset("folder", folder, classes=classes).check_labels())) == 3  # a rare class


def test_ignored_ids_of_a_data_set(tmp_path):
    camvid(tmp_path, [0, 1, 11])
    data = load_dataset("camvid-11", tmp_path, ignore=[0])
    assert data.truth(0)[0].tolist() == [IGNORE_INDEX, 1, IGNORE_INDEX]


def test_all_labels_are_checked_and_the_error_counts_the_files(folder):
    for name in "bcd":
        photo(folder / f"images/{name}.jpg")
        put(folder / f"labels/{name}.png", [[0, 1, 7, 5 if name == "c" else 0]])
    data = load_dataset("folder", folder, classes="cat, sofa")
    message = (
        r"b\.png and 2 other label files have the label ids 5, 7; folder has 0-1, 255\. .* --ignore 5 7$"
    )
    with pytest.raises(DatasetError, match=message):
        list(data.check_labels())
    assert len(list(load_dataset("folder", folder, classes="cat, sofa", ignore=[5, 7]).check_labels())) == 4


def test_sizes_are_checked_with_the_orientation_of_the_photo(folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    Image.new("RGB", (4, 1)).save(folder / "images/a.jpg", exif=exif)
    data = load_dataset("folder", folder, classes="cat, sofa")
    with pytest.raises(DatasetError, match=r"a\.jpg is \(4, 1\), its labels are \(1, 4\)"):
        list(data.check_labels())
    put(folder / "labels/a.png", [[0], [1], [255], [0]])
    assert len(list(data.check_labels())) == 1
    assert data.pair(0)[0].shape == (4, 1, 3)


def test_a_missing_list_names_the_other_splits(tmp_path):
    voc(tmp_path, [0])
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("2007_000032\n")
    with pytest.raises(DatasetError, match=r"cannot read .*test\.txt: .* has the splits train, val: choose"):
        load_dataset("voc-20", tmp_path, split="test")


def test_files_that_are_not_images_are_skipped(folder):
    for name in ("Thumbs.db", "._a.jpg"):
        (folder / "images" / name).write_bytes(b"x")
    assert len(load_dataset("folder", folder, classes="cat, sofa")) == 1


def test_ids_beyond_a_byte_are_wrong_ids(folder):
    Image.fromarray(np.array([[0, 300, 1, 0]], np.uint16)).save(folder / "labels/a.png")
    with pytest.raises(DatasetError, match="label ids 300"):
        load_dataset("folder", folder, classes="cat, sofa").truth(0)


def test_other_names_for_the_classes(tmp_path):
    camvid(tmp_path, [0])
    words = {name: [name, f"a {name}"] for name in class_list("camvid-11")}
    assert load_dataset("camvid-11", tmp_path, classes=words).classes["sky"] == ("sky", "a sky")
    with pytest.raises(DatasetError, match="got 1 classes; camvid-11 has 11"):
        load_dataset("camvid-11", tmp_path, classes="sky")


def test_missing_and_damaged_label_files_are_named(folder):
    data = load_dataset("folder", folder, classes="cat, sofa")
    label = folder / "labels/a.png"
    put(label, np.zeros((2, 2, 3)))
    with pytest.raises(DatasetError, match=r"a\.png has pixels uint8 \(2, 2, 3\)"):
        data.truth(0)
    label.write_bytes(label.read_bytes()[:40])
    with pytest.raises(DatasetError, match=r"cannot read .*a\.png"):
        data.truth(0)
    label.unlink()
    with pytest.raises(DatasetError, match=r"1 files are missing, the first is .*a\.png"):
        load_dataset("folder", folder, classes="cat, sofa")


def test_damaged_codes_of_pascal_context_are_named(tmp_path):
    context(tmp_path, [2])
    file = tmp_path / "trainval_merged.json"
    content = json.loads(file.read_text())
    content["annos_segmentation"][0]["segmentation"]["size"] = [9, 9]
    file.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"cannot decode a region of 2008_000002\.jpg in"):
        load_dataset("pascal-context-59", tmp_path).truth(0)
    file.write_text("{}")
    with pytest.raises(DatasetError, match=r"cannot read .*trainval_merged\.json: KeyError"):
        load_dataset("pascal-context-59", tmp_path)


def test_an_unknown_set(tmp_path):
    with pytest.raises(DatasetError, match="unknown data set 'voc'; expected one of ade20k-150, camvid-11"):
        load_dataset("voc", tmp_path)
