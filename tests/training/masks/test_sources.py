"""Every source of masks, on what it really reads; DINO with random weights, SAM with a stand-in."""

import io
import json
import struct
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco

from pixelclip_sdk import BackendUnavailableError, CheckpointError, ImageError, ModelNotFoundError
from training.masks.region_maps import RegionMaps, photo_size
from training.masks.sa1b import SA1B
from training.masks.sam import SAM
from training.masks.source import NoMasksError, check_aspect, drop_useless, settings_of, shrink
from training.masks.superpixels import Felzenszwalb, Slic


@pytest.fixture
def cat(tmp_path, photo):
    """A real photo's file, 300×451."""
    file = tmp_path / "cat.png"
    Image.fromarray(photo).save(file)
    return file


def borders(labels):
    """Share of neighbouring pixels that are told apart."""
    return (labels[:, 1:] != labels[:, :-1]).mean()


def test_slic_partitions_the_photo(cat):
    labels = Slic(segments=60)(cat, Path("cat"), 150)
    assert labels.shape == (150, 226)
    assert labels.min() == 1
    assert 30 < labels.max() < 90
    assert np.array_equal(labels, Slic(segments=60)(cat, Path("cat"), 150))


def test_felzenszwalb_follows_edges(cat):
    labels = Felzenszwalb()(cat, Path("cat"), 150)
    assert labels.shape == (150, 226)
    assert labels.min() == 1
    assert min(np.unique(labels, return_counts=True)[1]) >= Felzenszwalb.min_size
    assert borders(Felzenszwalb(scale=1000)(cat, Path("cat"), 150)) < borders(labels)


def test_superpixels_find_what_differs_by_colour(tmp_path, patches):
    Image.fromarray(patches).save(tmp_path / "a.png")
    labels = Felzenszwalb(min_size=20, sigma=0)(tmp_path / "a.png", Path("a"), 64)
    assert len(np.unique(labels)) == 3
    assert len(np.unique(labels[:32])) == 1


def put_map(folder, pixels, mode=None):
    folder.mkdir(exist_ok=True)
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette([value for i in range(256) for value in (255 - i, i, 7)])
    image.save(folder / "cat.png")


@pytest.mark.parametrize("kind", ["uint8", "P", "uint16", "RGB"])
def test_region_maps_of_every_kind(tmp_path, cat, kind):
    values = np.zeros((300, 451), np.uint8)  # 0 is a region like another, as in BSDS500
    values[:, 100:], values[200:, 300:] = 3, 200
    pixels = values if kind in ("uint8", "P") else values.astype(np.uint16) * 300
    if kind == "RGB":
        pixels = np.stack([values * 0, values, values // 2], axis=-1)
    put_map(tmp_path / "maps", pixels, kind)
    labels = RegionMaps(tmp_path / "maps")(cat, Path("cat"), 512)
    assert np.unique(labels).tolist() == [1, 2, 3]
    for value in (0, 3, 200):
        assert len(np.unique(labels[values == value])) == 1
    without = RegionMaps(tmp_path / "maps", background=0)(cat, Path("cat"), 512)
    assert np.array_equal(without == 0, values == 0)
    assert np.array_equal(RegionMaps(tmp_path / "maps")(cat, Path("cat"), 100), shrink(labels, 100))


def test_region_maps_that_do_not_fit_are_refused(tmp_path, cat):
    source = RegionMaps(tmp_path / "maps")
    with pytest.raises(NoMasksError, match=r"there is no .*cat\.png"):
        source(cat, Path("cat"), 64)
    put_map(tmp_path / "maps", np.zeros((451, 300), np.uint8))
    with pytest.raises(ImageError, match="masks of 451×300 for a photo of 300×451"):
        source(cat, Path("cat"), 64)
    put_map(tmp_path / "maps", np.zeros((151, 226), np.uint8))  # half the size, rounded up
    assert source(cat, Path("cat"), 512).shape == (151, 226)
    (tmp_path / "maps/cat.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"cat\.png cannot be read"):
        source(cat, Path("cat"), 64)


def test_transparent_pixels_of_a_map_have_no_region(tmp_path, cat):
    values = np.zeros((300, 451), np.uint8)
    values[:, 100:], values[200:, 300:] = 3, 200
    clear = np.where(np.arange(451) < 50, 0, 255)[None].repeat(300, 0).astype(np.uint8)
    for channels in ([values, clear], [values * 0, values, values // 2, clear]):
        put_map(tmp_path / "maps", np.stack(channels, axis=-1))
        labels = RegionMaps(tmp_path / "maps")(cat, Path("cat"), 512)
        assert np.array_equal(labels == 0, clear == 0)
        for value in (0, 3, 200):
            assert len(np.unique(labels[(values == value) & (clear > 0)])) == 1
        assert len(np.unique(labels)) == 4


@pytest.mark.parametrize("kind", ["L", "1", "RGB", "LA"])
def test_a_folder_of_masks(tmp_path, cat, overlapping, kind):
    """As segment-anything's amg.py writes them: a folder a photo, a PNG a mask, and a table beside them."""
    folder = tmp_path / "maps" / "b" / "cat"
    folder.mkdir(parents=True)
    (folder / "metadata.csv").write_text("id,area\n")
    for i, mask in enumerate(overlapping):
        Image.fromarray(mask.astype(np.uint8) * 255).convert(kind).save(folder / f"{i}.png")
    source = RegionMaps(tmp_path / "maps")
    assert np.array_equal(source(cat, Path("b/cat"), 300), overlapping)
    assert source(cat, Path("b/cat"), 100).shape == (3, 100, 150)
    Image.new("L", (300, 451)).save(folder / "3.png")
    with pytest.raises(ImageError, match=r"3\.png has masks of 451×300 for a photo of 300×451"):
        source(cat, Path("b/cat"), 300)
    Image.new("L", (226, 150)).save(folder / "3.png")
    with pytest.raises(ImageError, match="cat has masks of several sizes"):
        source(cat, Path("b/cat"), 300)
    for file in folder.glob("*.png"):
        file.unlink()
    with pytest.raises(NoMasksError, match="cat has no masks"):
        source(cat, Path("b/cat"), 300)


def test_a_photo_s_size_is_as_it_is_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert photo_size(tmp_path / "a.jpg") == (40, 20)


def sa1b_file(folder, masks, *, packed=True):
    """A JSON as SA-1B's."""
    annotations = []
    for i, mask in enumerate(masks):
        code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        counts = code["counts"].decode()
        if not packed:
            flat = mask.flatten(order="F")
            edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
            counts = np.diff([0, *edges, flat.size]).tolist()
            counts = [0, *counts] if flat[0] else counts
        annotations.append(
            {
                "id": i,
                "segmentation": {"size": list(mask.shape), "counts": counts},
                "bbox": [0, 0, 1, 1],
                "area": int(mask.sum()),
                "predicted_iou": 0.9,
                "stability_score": 0.97,
                "point_coords": [[1, 1]],
                "crop_box": [0, 0, mask.shape[1], mask.shape[0]],
            }
        )
    height, width = masks[0].shape
    image = {"image_id": 1, "width": width, "height": height, "file_name": "cat.jpg"}
    (folder / "cat.json").write_text(json.dumps({"image": image, "annotations": annotations}))


@pytest.fixture
def overlapping():
    masks = np.zeros((3, 300, 451), bool)
    masks[0, :200, :300], masks[1, 50:, 100:], masks[2, 0, 0] = True, True, True
    return masks


@pytest.mark.parametrize("packed", [True, False])
def test_sa1b_masks_are_decoded(tmp_path, cat, overlapping, packed):
    sa1b_file(tmp_path, overlapping, packed=packed)
    assert np.array_equal(SA1B(tmp_path)(cat, Path("cat"), 300), overlapping)
    small = SA1B(tmp_path)(cat, Path("cat"), 100)
    assert small.shape == (3, 100, 150)
    assert np.array_equal(small[0], np.pad(np.ones((67, 100), bool), ((0, 33), (0, 50))))


def test_the_list_that_amg_writes_is_decoded(tmp_path, cat, overlapping):
    """segment-anything's amg.py --convert-to-rle: the annotations without what is around them in SA-1B."""
    sa1b_file(tmp_path, overlapping)
    annotations = json.loads((tmp_path / "cat.json").read_text())["annotations"]
    (tmp_path / "cat.json").write_text(json.dumps(annotations))
    assert np.array_equal(SA1B(tmp_path)(cat, Path("cat"), 300), overlapping)


def test_sa1b_masks_of_a_photo_that_was_shrunk(tmp_path, cat, overlapping):
    sa1b_file(tmp_path, np.repeat(np.repeat(overlapping, 2, axis=1), 2, axis=2))
    assert SA1B(tmp_path)(cat, Path("cat"), 600).shape == (3, 600, 902)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no annotation of SA-1B, or damaged"),
        ('"text"', "no annotation of SA-1B, or damaged: TypeError"),
        ("[3]", "cannot be decoded: TypeError"),
        ('{"image": {}}', "KeyError.*annotations"),
        ('{"annotations": null}', "annotations are NoneType; expected a list"),
        ('[{"segmentation": {"size": [0, 0], "counts": ""}}]', "cannot be decoded: ValueError.*0×0 pixels"),
        ('{"annotations": [{}]}', "cannot be decoded: KeyError"),
        (
            '{"annotations": [{"segmentation": {"size": [300, 451], "counts": "0123"}}]}',
            "the runs sum up to 7",
        ),
        ('{"annotations": [{"segmentation": {"size": [2, 2], "counts": [1, 9]}}]}', "the runs sum up to 10"),
        (
            '[{"segmentation": {"size": [65536, 65537], "counts": [4295032832]}}]',
            "65536×65537; expected at most",
        ),
        (
            '{"annotations": [{"segmentation": {"size": [6, 2], "counts": [1, 11]}}]}',
            "masks of 6×2 for a photo",
        ),
    ],
)
def test_damaged_files_of_sa1b_are_named(tmp_path, cat, content, message):
    (tmp_path / "cat.json").write_text(content)
    with pytest.raises(ImageError, match=rf"cat\.json .*{message}"):
        SA1B(tmp_path)(cat, Path("cat"), 300)


def test_sa1b_without_masks(tmp_path, cat):
    with pytest.raises(NoMasksError, match=r"there is no .*cat\.json"):
        SA1B(tmp_path)(cat, Path("cat"), 300)
    for content in ('{"annotations": []}', "[]"):
        (tmp_path / "cat.json").write_text(content)
        with pytest.raises(NoMasksError, match="has no masks"):
            SA1B(tmp_path)(cat, Path("cat"), 300)


@pytest.fixture(scope="module")
def dino_weights(tmp_path_factory):
    """A checkpoint of DINO's layout with random weights."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224.dino", pretrained=False, num_classes=0)
    file = tmp_path_factory.mktemp("dino") / "dino.pth"
    torch.save(model.state_dict(), file)
    return file, model.eval()


@torch.no_grad()
def test_dino_features_are_timms(dino_weights, photo):
    from training.masks.dino import _features

    file, model = dino_weights
    image = np.ascontiguousarray(photo[:224, :224])
    found = _features(image, 224, file)
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    tokens = model.forward_features((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    np.testing.assert_allclose(found, tokens[0, 1:].unflatten(0, (14, 14)).numpy(), atol=1e-4)


def test_dino_sees_a_strip_of_a_photo_smaller(dino_weights):
    from training.masks.dino import _features

    strip = np.zeros((2, 600, 3), np.uint8)
    assert _features(strip, 96, dino_weights[0]).shape[:2] == (1, 4 * 96 // 16)


def test_dino_masks_are_of_patches(dino_weights, cat):
    from training.masks.dino import DinoKMeans

    source = DinoKMeans(clusters=5, image_side=96, checkpoint=dino_weights[0])
    labels = source(cat, Path("cat"), 512)
    assert labels.shape == (6, 9)
    assert set(np.unique(labels)) <= set(range(1, 6))
    assert np.array_equal(labels, source(cat, Path("cat"), 512))


def test_k_means_tells_groups_apart_and_bears_equal_patches():
    from training.masks.dino import cluster

    truth = np.arange(24).reshape(4, 6) % 3
    features = np.eye(3, dtype=np.float32)[truth] * 9 + np.random.default_rng(0).normal(0, 0.1, (4, 6, 3))
    found = cluster(features.astype(np.float32), 3)
    assert len({(a, b) for a, b in zip(truth.ravel(), found.ravel(), strict=True)}) == 3
    assert np.unique(cluster(np.ones((4, 6, 3), np.float32), 16)).tolist() == [1]
    assert cluster(np.ones((1, 2, 3), np.float32), 16).shape == (1, 2)


def test_other_weights_are_no_dino(tmp_path, cat):
    from training.masks.dino import DinoKMeans

    torch.save({"weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"DINO's weights from .*other\.pth cannot be used"):
        DinoKMeans(checkpoint=tmp_path / "other.pth")(cat, Path("cat"), 512)


@pytest.mark.parametrize(
    ("model", "package"), [("vit_b", "segment-anything"), ("sam2.1_hiera_t.yaml", "sam2")]
)
def test_sam_says_what_to_install(cat, model, package, monkeypatch):
    for name in ("segment_anything", "sam2"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendUnavailableError, match=f"pip install {package}"):
        SAM(model, Path("sam.pth"))(cat, Path("cat"), 64)


def test_sam_s_answer_becomes_masks(cat, photo, overlapping, monkeypatch):
    """With a stand-in of the package's documented interface: the real one cannot be had here."""

    class Generator:
        def __init__(self, model):
            assert model == "vit_x of weights.pth"

        def generate(self, image):
            assert np.array_equal(image, photo)
            return [{"segmentation": mask, "area": mask.sum(), "predicted_iou": 1.0} for mask in overlapping]

    def build(checkpoint):
        if checkpoint == "other.pth":
            raise RuntimeError("Error(s) in loading state_dict for Sam: Missing key(s)")
        return types.SimpleNamespace(to=lambda device: f"vit_x of {checkpoint}")  # noqa: ARG005

    package = types.ModuleType("segment_anything")
    package.SamAutomaticMaskGenerator, package.sam_model_registry = Generator, {"vit_x": build}
    monkeypatch.setitem(sys.modules, "segment_anything", package)
    assert np.array_equal(SAM("vit_x", Path("weights.pth"))(cat, Path("cat"), 300), overlapping)
    with pytest.raises(ModelNotFoundError, match="SAM has no model 'vit_y'; expected vit_x, or"):
        SAM("vit_y", Path("weights.pth"))(cat, Path("cat"), 300)
    with pytest.raises(CheckpointError, match=r"as vit_x with the weights other\.pth: .*Missing key"):
        SAM("vit_x", Path("other.pth"))(cat, Path("cat"), 300)


def test_tidy_drops_what_teaches_nothing(overlapping):
    size = overlapping.shape[1:]
    masks = np.concatenate([overlapping, np.zeros((1, *size), bool), np.ones((1, *size), bool)])
    assert np.array_equal(drop_useless(masks), overlapping)
    for bad in (masks[3:], masks[:0]):
        with pytest.raises(NoMasksError, match="are empty or cover the whole photo"):
            drop_useless(bad)


def test_tidy_numbers_regions_from_one_and_keeps_zero():
    labels = drop_useless(np.array([[0, 70000], [9, 9]]))
    assert labels.dtype == np.uint16
    assert labels.tolist() == [[0, 2], [1, 1]]
    assert drop_useless(np.array([[7, 70000]])).tolist() == [[1, 2]]
    assert drop_useless(np.array([[0, 4]])).tolist() == [[0, 1]]
    with pytest.raises(NoMasksError, match="one region covers the whole photo"):
        drop_useless(np.full((2, 2), 4))
    with pytest.raises(NoMasksError, match="has no region"):
        drop_useless(np.zeros((2, 2), int))
    with pytest.raises(NoMasksError, match="65536 regions"):
        drop_useless(np.arange(65536).reshape(256, 256))


def test_shrinking_takes_the_nearest_pixel():
    labels = np.arange(24).reshape(4, 6)
    assert shrink(labels, 2).tolist() == [[7, 9, 11], [19, 21, 23]]
    assert shrink(labels, 4) is labels
    assert np.array_equal(shrink(labels[None], 2)[0], shrink(labels, 2))


@pytest.mark.parametrize("photo", [(1500, 2250), (300, 451), (399, 1597), (1597, 399), (64, 64)])
@pytest.mark.parametrize("side", [30, 100, 640])
def test_aspects_bear_rounding_and_patches_but_no_turn(photo, side):
    scale = side / min(photo)
    rounded = tuple(round(length * scale) for length in photo)
    patches = tuple(int(length * scale // 16) for length in photo)  # DINO's grid
    assert check_aspect(photo, rounded) == ""
    assert check_aspect(photo, patches) == ""
    if photo[0] != photo[1] and side > 30:
        assert "expected the same aspect" in check_aspect(photo, rounded[::-1])
        assert "expected the same aspect" in check_aspect(photo, patches[::-1])


def test_where_weights_lie_is_no_setting():
    first, second = (SAM("vit_b", Path(place), "abc") for place in ("a.pth", "b.pth"))
    assert settings_of(first) == settings_of(second) == {"model": "vit_b", "sha256": "abc"}
    assert settings_of(RegionMaps(Path("maps"))) == {"maps": str(Path.cwd() / "maps"), "background": None}


def test_a_region_map_of_another_shape_is_refused_before_it_is_decoded(tmp_path):
    """A file of some hundred bytes may state a hundred million pixels."""
    Image.new("RGB", (64, 48)).save(tmp_path / "photo.png")
    stream = io.BytesIO()
    Image.new("L", (1, 1)).save(stream, "PNG")
    head = bytearray(stream.getvalue())
    head[16:24] = struct.pack(">II", 48, 2_000_000)
    head[29:33] = struct.pack(">I", zlib.crc32(head[12:29]))
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "photo.png").write_bytes(head)
    with pytest.raises(ImageError, match="expected the same aspect"):
        RegionMaps(tmp_path / "maps")(tmp_path / "photo.png", Path("photo"), 32)
