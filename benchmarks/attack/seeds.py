"""Whole files of every kind that is read, small enough to be read thousands of times.

They are made on the spot, from the photos in `examples/`, by the libraries that write such files.
"""

import functools
import io
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelclip_sdk.models import BUNDLED
from pixelclip_sdk.words.vocabulary import Vocabulary

__all__ = ["seeds"]

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
_LITE = BUNDLED / "pixelclip-lite"


@functools.cache
def seeds(kind: str) -> tuple[bytes, ...]:
    """Returns the contents of whole files of a kind; the kinds are the names of `targets.TARGETS`."""
    return tuple(_MAKERS[kind]())


def _photo(height: int = 48, width: int = 64) -> Image.Image:
    with Image.open(_EXAMPLES / "photos" / "chelsea.jpg", formats=["JPEG"]) as image:
        return image.convert("RGB").resize((width, height))


def _pictures() -> list[bytes]:
    photo = _photo()
    grey16 = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 16)
    rgba = photo.copy()
    rgba.putalpha(photo.convert("L"))
    palette = photo.quantize(16)
    icc = _profile()
    turned = Image.Exif()
    turned[0x0112] = 6
    files: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (photo, "JPEG", {"exif": turned, "icc_profile": icc}),
        (photo.convert("CMYK"), "JPEG", {}),
        (photo, "JPEG", {"progressive": True, "quality": 30}),
        (photo, "PNG", {}),
        (rgba, "PNG", {}),
        (palette, "PNG", {"transparency": 3}),
        (grey16, "PNG", {}),
        (photo.convert("1"), "PNG", {}),
        (palette, "GIF", {"save_all": True, "append_images": [palette], "duration": 40}),
        (photo, "BMP", {}),
        (photo, "TIFF", {"compression": "tiff_lzw"}),
        (photo, "TIFF", {"compression": "tiff_deflate"}),
        (grey16, "TIFF", {}),
        (photo, "WEBP", {"quality": 40}),
        (rgba, "WEBP", {"lossless": True}),
        (photo, "PPM", {}),
        (photo, "TGA", {"compression": "tga_rle"}),
        (photo, "JPEG2000", {}),
        (photo, "AVIF", {"speed": 10}),
        (photo, "AVIF", {"save_all": True, "append_images": [photo], "speed": 10}),
        (photo, "MPO", {"save_all": True, "append_images": [photo]}),
    ]
    Image.init()
    return [_encoded(image, name, options) for image, name, options in files if name in Image.SAVE]


def _encoded(image: Image.Image, name: str, options: Mapping[str, Any]) -> bytes:
    stream = io.BytesIO()
    image.save(stream, name, **options)
    return stream.getvalue()


def _profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _videos() -> list[bytes]:
    import av

    photo = np.asarray(_photo())
    made = []
    for suffix, encoder, options in (
        ("mp4", "libx264", {"preset": "ultrafast"}),
        ("mkv", "mpeg4", {}),
        ("avi", "mjpeg", {}),
        ("webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"}),
        ("gif", "gif", {}),
        ("ts", "mpeg2video", {}),
        ("mov", "libx264", {"preset": "ultrafast"}),
        ("flv", "flv", {}),
        ("ogg", "libtheora", {}),
        ("nut", "ffv1", {}),
        ("wmv", "wmv2", {}),
    ):
        if encoder not in av.codecs_available:
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"video.{suffix}")
            with av.open(str(file), "w") as container:
                stream = container.add_stream(encoder, rate=25, options=options)
                stream.width, stream.height = 64, 48
                formats = {"gif": "rgb8", "mjpeg": "yuvj420p"}
                stream.pix_fmt = formats.get(encoder, "yuv420p")
                for shift in range(6):
                    frame = av.VideoFrame.from_ndarray(
                        np.roll(photo, 3 * shift, axis=1).copy(), format="rgb24"
                    )
                    container.mux(stream.encode(frame))
                container.mux(stream.encode())
            made.append(file.read_bytes())
    return made


def _vocabularies() -> list[bytes]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    words = Vocabulary(
        names=("cat", "sofa", "猫", "a b"),
        embeddings=rows,
        synonyms={"cat": ("cat", "kitten")},
        templates=("a photo of a {}",),
        text_hash="0" * 64,
        unused=(2,),
    )
    with tempfile.TemporaryDirectory() as folder:
        return [words.save(Path(folder, "words.npz")).read_bytes()]


def _classes() -> list[bytes]:
    texts = [
        (_EXAMPLES / "classes.txt").read_text(encoding="utf-8"),
        "0: cat\n1: sofa\n2: dog\n",
        "cat, kitten\nsofa, couch\n# comment\nrug\n",
        '{"cat": ["cat", "kitten"], "sofa": "sofa"}',
        '["cat", "sofa", "a, b"]',
        "{0: cat, 1: sofa}",
        "path: x\nnames:\n  0: cat\n  1: sofa\nnc: 2\n",
        "names: [cat, sofa]\n",
        "- cat\n- 2024-01-01\n",
        "cat:128,0,0::\nsofa:0,0,0::\n",
        "n02123045 tabby, tabby cat\nn02123159 tiger cat\n",
        "cat . sofa . rug .",
        "cat 0\nsofa 1\n",
        "cat\tkitten\nsofa\tcouch\n",
    ]
    return [text.encode() for text in texts]


def _manifests() -> list[bytes]:
    return [(_LITE / "bundle.json").read_bytes()]


def _tokenizers() -> list[bytes]:
    """A tokenizer of the same parts as the bundled one, with a few words."""
    content = json.loads((_LITE / "tokenizer.json").read_text(encoding="utf-8"))
    keep = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "cat", "##s", "sofa", "photo", "of")
    content["model"]["vocab"] = {word: number for number, word in enumerate(keep)}
    for added in content["added_tokens"]:
        added["id"] = keep.index(added["content"])
    for name, token in content.get("post_processor", {}).get("special_tokens", {}).items():
        token["ids"] = [keep.index(name)]
    return [json.dumps(content, indent=1).encode(), json.dumps(content).encode()]


def _sidecars() -> list[bytes]:
    tensors = [
        _tensor("image", "input", "uint8", [-1, -1, -1, 3], [[1, 32, 32, 3], [1, 64, 64, 3], [4, 96, 96, 3]]),
        _tensor("text", "input", "float32", [-1, 384], [[1, 384], [20, 384], [256, 384]]),
        _tensor("logits", "output", "float32", [-1, -1, -1, -1], None),
        _tensor("features", "output", "float32", [-1, -1, -1, 384], None),
    ]
    sidecar = {
        "schema_version": 1,
        "model": "pixelclip-lite",
        "flavor": "tensorrt-rtx",
        "tensorrt_version": "1.3.0",
        "compute_capability": "8.0, 8.6, 12.0+",
        "gpu": "",
        "system": "Linux x86_64",
        "precision": "fp16",
        "layers": {"fp16": 40, "fp32": 3},
        "stored_as": "fp16",
        "tensors": tensors,
        "onnx_sha256": "0" * 64,
        "plan_size": 4,
        "plan_sha256": "0" * 64,
        "options": {"batch": [1, 1, 4], "classes": 256, "input_size": None, "precision": "fp16"},
    }
    return [json.dumps(sidecar, indent=1).encode()]


def _tensor(name: str, mode: str, dtype: str, shape: list[int], profile: Any) -> dict[str, Any]:
    return {"name": name, "mode": mode, "dtype": dtype, "shape": shape, "profile": profile}


def _masks() -> list[bytes]:
    from training.masks.format import write_masks

    squares = np.zeros((3, 30, 41), bool)
    squares[0, :10], squares[1, 5:20, 8:30], squares[2, 25:, 40:] = True, True, True
    regions = (np.arange(30 * 41).reshape(30, 41) // 200).astype(np.uint16)
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for masks in (squares, regions):
            write_masks(Path(folder, "masks.npz"), masks)
            made.append(Path(folder, "masks.npz").read_bytes())
    return made


def _annotations() -> list[bytes]:
    annotation = {"segmentation": {"size": [48, 64], "counts": "0`R12Z"}, "area": 6}
    runs = {"segmentation": {"size": [48, 64], "counts": [1000, 20, 2052]}, "area": 20}
    mask = np.zeros((48, 64), np.uint8, order="F")
    mask[10:20, 5:30] = 1
    from pycocotools import mask as coco

    code = coco.encode(mask)
    annotation["segmentation"] = {"size": [48, 64], "counts": code["counts"].decode()}
    both = [annotation, runs]
    return [
        json.dumps({"image": {"height": 48, "width": 64}, "annotations": both}).encode(),
        json.dumps(both).encode(),
    ]


def _maps() -> list[bytes]:
    regions = (np.arange(48 * 64).reshape(48, 64) // 500).astype(np.uint8)
    palette = Image.fromarray(regions)
    colours = Image.merge("RGB", [palette, palette.point(lambda v: v * 3), palette])
    files = [palette, palette.convert("P"), colours, Image.fromarray(regions.astype(np.uint16))]
    return [_encoded(image, "PNG", {}) for image in files]


def _checkpoints() -> list[bytes]:
    import torch
    from safetensors.torch import save

    state = {"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3), "n": torch.tensor(2)}
    made = [save(state)]
    for content, new in (({"model": state, "iteration": 3}, True), (state, True), (state, False)):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=new)
        made.append(stream.getvalue())
    return made


def _settings() -> list[bytes]:
    text = (
        "# a run\nimages: photos\nmasks: masks\nout: run\nmodel: clip-vit-b16\nsteps: 100\nlr_encoder: 2e-6\n"
        'templates: ["A photo of a {}", "a {}"]\ndevice: cpu\nlong_side: null\nvary: true\n'
    )
    return [text.encode()]


def _graphs() -> list[bytes]:
    from benchmarks.attack.graphs import image_encoder, text_encoder

    return [image_encoder(), text_encoder()]


def _bag(storage: str = "mcap", compression: str = "NONE") -> dict[str, bytes]:
    """The files of a bag of three images, by their suffixes: raw images, or JPEG files in a database."""
    from rosbags import rosbag1, rosbag2
    from rosbags.typesys import Stores, get_typestore

    ros1 = storage == "ros1"
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    types, photo = store.types, _photo(12, 16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bag.bag" if ros1 else "bag")
        if ros1:
            writer = rosbag1.Writer(path)
            if compression != "NONE":
                writer.set_compression(rosbag1.Writer.CompressionFormat[compression])
        else:
            writer = rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin[storage.upper()])
            writer.set_compression(rosbag2.CompressionMode[compression], rosbag2.CompressionFormat.ZSTD)
        serialize = store.serialize_ros1 if ros1 else store.serialize_cdr
        with writer:
            name = "sensor_msgs/msg/CompressedImage" if storage == "sqlite3" else "sensor_msgs/msg/Image"
            topic = writer.add_connection("/camera", name, typestore=store)
            for moment in range(3):
                stamp = types["builtin_interfaces/msg/Time"](sec=1, nanosec=moment)
                header = types["std_msgs/msg/Header"](
                    **({"seq": moment} if ros1 else {}), stamp=stamp, frame_id="camera"
                )
                content = photo.tobytes() if name.endswith("/Image") else _encoded(photo, "JPEG", {})
                data = np.frombuffer(content, np.uint8)
                message = (
                    types[name](
                        header=header,
                        height=12,
                        width=16,
                        encoding="rgb8",
                        is_bigendian=0,
                        step=48,
                        data=data,
                    )
                    if name.endswith("/Image")
                    else types[name](header=header, format="jpeg", data=data)
                )
                writer.write(topic, 10**9 + moment, serialize(message, name))
        files = [path] if ros1 else list(path.iterdir())
        return {file.suffix: file.read_bytes() for file in files}


def _mcaps() -> list[bytes]:
    return [_bag("mcap", compression)[".mcap"] for compression in ("NONE", "STORAGE")]


def _parquets() -> list[bytes]:
    import pyarrow
    from pyarrow import parquet

    photos = [_encoded(_photo(12, 16), name, {}) for name in ("JPEG", "PNG", "BMP")]
    made = []
    for columns in ({"bytes": photos, "path": ["a.jpg", "b/b.png", "c.bmp"]}, {"image": photos}):
        for compression in ("snappy", "zstd"):
            stream = io.BytesIO()
            parquet.write_table(pyarrow.table(columns), stream, compression=compression)
            made.append(stream.getvalue())
    return made


_MAKERS: Mapping[str, Callable[[], list[bytes]]] = {
    "picture": _pictures,
    "video": _videos,
    "vocabulary": _vocabularies,
    "classes": _classes,
    "manifest": _manifests,
    "tokenizer": _tokenizers,
    "sidecar": _sidecars,
    "masks": _masks,
    "annotation": _annotations,
    "map": _maps,
    "checkpoint": _checkpoints,
    "settings": _settings,
    "graph": _graphs,
    "mcap": _mcaps,
    "sqlite": lambda: [_bag("sqlite3")[".db3"]],
    "ros1": lambda: [_bag("ros1")[".bag"], _bag("ros1", "BZ2")[".bag"]],
    "bag": lambda: [_bag()[".yaml"]],
    "parquet": _parquets,
}
