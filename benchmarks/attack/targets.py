"""How a file of each kind is read, as a user's program would.

A reader returns for a file that it can read, and raises PixelClipError for one that it cannot. Anything else
is a fault.
"""

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.attack.seeds import seeds
from pixelclip_sdk.bundle import Bundle
from pixelclip_sdk.models import BUNDLED

__all__ = ["TARGETS", "Target", "bundle_of"]

_FRAMES = 12


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of file: its suffix, and the function that reads a file."""

    suffix: str
    read: Callable[[Path], object]


def _picture(file: Path) -> None:
    from pixelclip_sdk.image import load_image

    load_image(file)
    load_image(file.read_bytes())


def _video(file: Path) -> None:
    from pixelclip_sdk.video.sources import open_source

    with contextlib.closing(open_source(file)) as source:
        for number, frame in enumerate(source):
            assert frame.image.dtype == np.uint8
            if number == _FRAMES:
                break


def _vocabulary(file: Path) -> None:
    from pixelclip_sdk.words.vocabulary import Vocabulary

    repr(Vocabulary.load(file))


def _classes(file: Path) -> None:
    from pixelclip_sdk.words.vocabulary import parse_classes, read_classes

    parse_classes(read_classes(file))


def _manifest(file: Path) -> None:
    folder = file.parent / "manifest"
    if not folder.exists():
        folder.mkdir()
        for name in json.loads(seeds("manifest")[0])["files"]:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).symlink_to(BUNDLED / "pixelclip-lite" / name)
    shutil.copyfile(file, folder / "bundle.json")
    bundle = Bundle.open(folder)
    bundle.to_json()
    repr(bundle)


def _tokenizer(file: Path) -> None:
    from benchmarks.attack.graphs import text_encoder
    from pixelclip_sdk.words.text_encoder import TextEncoder

    encoder = TextEncoder(
        bundle_of(file.parent, {"tokenizer.json": file.read_bytes(), "text_encoder.onnx": text_encoder()})
    )
    encoder.check_words(["cat", "sofas"])
    encoder.encode(["a photo of a cat", "sofas"])
    encoder.unfamiliar_words(["qwxzy"])


def bundle_of(parent: Path, files: Mapping[str, bytes]) -> Bundle:
    """Returns a bundle of these files in the folder ``bundle``, with a manifest that fits them."""
    folder = parent / "bundle"
    folder.mkdir(exist_ok=True)
    manifest = json.loads(seeds("manifest")[0])
    files = {"image_encoder.onnx": b"", **files}
    manifest["files"] = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    }
    manifest["embedding_dim"] = 8
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return Bundle.open(folder)


def _sidecar(file: Path) -> None:
    from pixelclip_sdk.backends.engine import EngineInfo
    from pixelclip_sdk.backends.limits import Limits

    info = EngineInfo.read(file.with_suffix(".plan"))
    info.rebuild_command(file, file.parent)
    Limits.of(info, 384)


def _masks(file: Path) -> None:
    from training.masks.format import read_masks

    read_masks(file)
    half = np.linspace(0, 0.99, 8)
    read_masks(file, at=(half, half))


def _beside_a_photo(file: Path, read) -> None:
    photo = file.parent / "photo.png"
    if not photo.exists():
        Image.new("RGB", (64, 48)).save(photo)
    read(photo, Path(file.stem), 32)


def _annotation(file: Path) -> None:
    from training.masks.sa1b import SA1B

    _beside_a_photo(file, SA1B(file.parent))


def _map(file: Path) -> None:
    from training.masks.region_maps import RegionMaps

    _beside_a_photo(file, RegionMaps(file.parent))


def _checkpoint(file: Path) -> None:
    from training.models.weights.reader import read_checkpoint

    read_checkpoint(file)


def _settings(file: Path) -> None:
    from training.runs.config import load_config

    repr(load_config(file))


def _graph(file: Path) -> None:
    from pixelclip_sdk.backends.onnx import OnnxBackend

    with OnnxBackend(file, embedding_dim=8, multiple=8, threads=1) as backend:
        backend.logits(np.zeros((1, 16, 24, 3), np.uint8), np.eye(2, 8, dtype=np.float32))
        backend.features(np.zeros((1, 16, 24, 3), np.uint8))


def _bag(file: Path) -> None:
    from pixelclip_sdk.ros.bag import BagReader
    from pixelclip_sdk.ros.images import decode_image

    with BagReader(file) as reader:
        for image in reader.images(reader.choose([])):
            decode_image(image.message)


def _bag_metadata(file: Path) -> None:
    folder = file.parent / "folder"
    folder.mkdir(exist_ok=True)
    (folder / "bag.mcap").write_bytes(seeds("mcap")[0])
    shutil.copyfile(file, folder / "metadata.yaml")
    _bag(folder)


def _parquet(file: Path) -> None:
    from pixelclip_sdk.batch.inputs import find_pictures, read_picture

    for picture in find_pictures([file])[:_FRAMES]:
        read_picture(picture)


TARGETS: Mapping[str, Target] = {
    "picture": Target(".jpg", _picture),
    "video": Target(".mp4", _video),
    "vocabulary": Target(".npz", _vocabulary),
    "classes": Target(".yaml", _classes),
    "manifest": Target(".json", _manifest),
    "tokenizer": Target(".json", _tokenizer),
    "sidecar": Target(".json", _sidecar),
    "masks": Target(".npz", _masks),
    "annotation": Target(".json", _annotation),
    "map": Target(".png", _map),
    "checkpoint": Target(".pth", _checkpoint),
    "settings": Target(".yaml", _settings),
    "graph": Target(".onnx", _graph),
    "mcap": Target(".mcap", _bag),
    "sqlite": Target(".db3", _bag),
    "ros1": Target(".bag", _bag),
    "bag": Target(".yaml", _bag_metadata),
    "parquet": Target(".parquet", _parquet),
}
