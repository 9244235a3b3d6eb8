"""The attack on every commit: a small part of what `make fuzz` and `make soak` do for hours."""

import io
import json
import pickle
import signal
import subprocess
import sys
import threading
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from benchmarks.attack.child import damaged_file, read_one
from benchmarks.attack.fuzz import run_child
from benchmarks.attack.graphs import (
    broken_image_encoders,
    broken_text_encoders,
    endless_image_encoder,
    endless_text_encoder,
    image_encoder,
)
from benchmarks.attack.kill import is_killed_cleanly
from benchmarks.attack.memory import commanded, segmented, written
from benchmarks.attack.seeds import seeds
from benchmarks.attack.soak import soak_stream
from benchmarks.attack.targets import TARGETS, bundle_of
from benchmarks.harness.results import ROOT
from pixelclip_sdk import BackendError, PixelClipError, Segmenter
from pixelclip_sdk.backends.onnx import OnnxBackend
from pixelclip_sdk.cli.outputs import FORMATS
from pixelclip_sdk.words.text_encoder import TextEncoder

PIECES = [("picture", first, 2500) for first in range(0, 10_000, 2500)]
PIECES += [("video", 0, 500)]
PIECES += [
    (kind, 0, 850)
    for kind in ("vocabulary", "manifest", "tokenizer", "sidecar", "masks", "annotation", "graph")
]
PIECES += [(kind, 0, 300) for kind in TARGETS if kind not in {kind for kind, *_ in PIECES}]


@pytest.mark.parametrize(("kind", "first", "count"), PIECES)
def test_a_damaged_file_is_read_or_refused(kind, first, count):
    found = run_child(kind, first, count, seed=0)
    assert found["faults"] == []
    assert found["read"] + found["refused"] == count
    assert found["read"] > 0, "the damage is so large that nothing but the first check is tried"


def test_damage_can_be_repeated():
    assert damaged_file("picture", 5, 0) == damaged_file("picture", 5, 0)
    assert damaged_file("picture", 5, 0) != damaged_file("picture", 6, 0)


def test_a_fault_and_a_waste_of_time_are_found(tmp_path, monkeypatch):
    """What `read_one` reports for a reader that fails, and for one that is slow."""
    file = tmp_path / "file"

    def burn(_):
        end = time.process_time() + 1.2
        while time.process_time() < end:
            pass

    monkeypatch.setattr("benchmarks.attack.child.MAX_READ_CPU_S", 1.0)
    for reader, said in ((lambda _: 1 / 0, "ZeroDivisionError"), (burn, "s of a CPU")):
        target = TARGETS["picture"].__class__(".jpg", reader)
        monkeypatch.setattr("benchmarks.attack.child.TARGETS", {"picture": target})
        one = read_one("picture", file)
        assert one["outcome"] == "fault"
        assert said in one["error"]


def npz(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def header(dtype: str, shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def empty_gif(side: int) -> bytes:
    """A GIF of a few bytes that states a large size."""
    stream = io.BytesIO()
    Image.new("P", (1, 1)).save(stream, "GIF")
    data = bytearray(stream.getvalue())
    data[6:10] = side.to_bytes(2, "little") * 2
    return bytes(data)


def large_palette_png() -> bytes:
    stream = io.BytesIO()
    Image.new("P", (9459, 9459)).save(stream, "PNG", transparency=0)
    return stream.getvalue()


def manifest(**changes: object) -> bytes:
    return json.dumps({**json.loads(seeds("manifest")[0]), **changes}).encode()


def sparse_checkpoint() -> bytes:
    return pickle.dumps({"a": [0] * 10}, protocol=2)


NESTED = b"[" * 900 + b"]" * 900
SMALL = {
    "PostScript named photo.jpg": ("picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
    "GIF of 65535² pixels": ("picture", empty_gif(65535)),
    "video of 12000² pixels": ("video", empty_gif(12000)),
    "vocabulary of 4 GB": (
        "vocabulary",
        npz(meta=b"", embeddings=header("<f4", (4096, 2**18)) + bytes(2**22)),
    ),
    "vocabulary with objects": ("vocabulary", npz(meta=header("|O", (1,)), embeddings=b"")),
    "masks of 8 GB": ("masks", npz(masks=header("|u1", (2**33,)) + bytes(2**20), shape=header("<i8", (3,)))),
    "masks that are no arrays": ("masks", npz(labels=b"hello")),
    "a mask of 8 GB": ("annotation", b'[{"segmentation": {"size": [65536, 65537], "counts": [4295032832]}}]'),
    "a mask of infinite size": ("annotation", b'[{"segmentation": {"size": [1e999, 2], "counts": [2]}}]'),
    "a run of a million bits": (
        "annotation",
        json.dumps([{"segmentation": {"size": [48, 64], "counts": "o" * 10**6}}]).encode(),
    ),
    "nested annotations": ("annotation", b"[" * 100_000),
    "a pickle without tensors": ("checkpoint", sparse_checkpoint()),
    "settings with a date that does not exist": ("settings", b"images: 2024-99-99\n"),
    "settings with 5000 digits": ("settings", b"steps: " + b"9" * 5000),
    "settings with a float too large": (
        "settings",
        b"images: a\nmasks: b\nout: c\nlr_encoder: " + b"9" * 400,
    ),
    "nested settings": ("settings", b"[" * 1000),
    "settings with open brackets": ("settings", b"images: " + b"[" * 5000),
    "a bag whose count is a text": ("bag", seeds("bag")[0].replace(b"message_count: 3", b"message_count: x")),
    "a bag whose topic has no name": ("bag", seeds("bag")[0].replace(b"name: /camera", b"name: null")),
    "a bag with open brackets": ("bag", b"rosbag2_bagfile_information: " + b"[" * 5000),
    "settings with nested lines": ("settings", b"- " * 5000),
    "nested sources of a bundle": ("manifest", manifest(sources="X").replace(b'"X"', NESTED)),
    "5000 digits in a bundle": ("manifest", manifest(grid="X").replace(b'"X"', b"[" + b"9" * 5000 + b"]")),
    "an infinite temperature": ("manifest", manifest(confidence={"temperature": float("inf")})),
    "a tensor of an engine without a name": ("sidecar", seeds("sidecar")[0].replace(b'"logits"', b"[1]")),
    "a million spaces in a class": ("classes", b"a" + b" " * 10**6 + b"b, c"),
    "a tokenizer with an id too large": (
        "tokenizer",
        seeds("tokenizer")[0].replace(b'"max_length": 128', b'"max_length": 0'),
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_small_file_costs_little(name, tmp_path):
    """Whatever it states: it is read or refused, within a second and 1 GB."""
    kind, content = SMALL[name]
    file = tmp_path / f"file{TARGETS[kind].suffix}"
    file.write_bytes(seeds(kind)[0])
    assert read_one(kind, file)["outcome"] != "refused"  # Loads libraries.
    file.write_bytes(content)
    one = read_one(kind, file)
    assert one["outcome"] != "fault", one["error"]
    if "spaces" not in name:
        assert one["outcome"] == "refused", f"{name} was read"


def test_memory_of_a_large_palette_picture_with_transparency(tmp_path):
    """At most 4 bytes a pixel: 3 of the result, 1 of Pillow."""
    file = tmp_path / "file.png"
    file.write_bytes(large_palette_png())
    one = read_one("picture", file)
    assert "Error" not in one["error"]
    assert one["grown_mb"] < 4.2 * 9459**2 / 1e6


def run_image_encoder(file, content, **options):
    file.write_bytes(content)
    text = np.eye(2, 8, dtype=np.float32)
    with OnnxBackend(file, embedding_dim=8, multiple=8, threads=1, **options) as backend:
        images = np.zeros((1, 16, 24, 3), np.uint8)
        return backend.logits(images, text), backend.features(images)


def test_an_image_encoder_that_breaks_its_contract_is_refused(tmp_path):
    logits, features = run_image_encoder(tmp_path / "model.onnx", image_encoder())
    assert (logits.shape, features.shape) == ((1, 2, 2, 3), (1, 2, 3, 8))
    broken = broken_image_encoders()
    assert len(broken) >= 40
    for name, content in broken.items():
        with pytest.raises(PixelClipError):
            pytest.fail(f"{name}: {run_image_encoder(tmp_path / 'model.onnx', content)}")


def test_a_text_encoder_that_breaks_its_contract_is_refused(tmp_path):
    for name, content in broken_text_encoders().items():
        files = {"tokenizer.json": seeds("tokenizer")[0], "text_encoder.onnx": content}
        with pytest.raises(PixelClipError):
            pytest.fail(f"{name}: {TextEncoder(bundle_of(tmp_path, files)).encode(['cat', 'sofa'])}")


def test_a_model_that_never_returns_is_ended_by_its_deadline(tmp_path):
    with pytest.raises(BackendError, match=r"longer than deadline_s=0\.3"):
        run_image_encoder(tmp_path / "model.onnx", endless_image_encoder(), deadline_s=0.3)
    run_image_encoder(tmp_path / "model.onnx", image_encoder(), deadline_s=60)


def test_a_text_encoder_that_never_returns_is_ended_by_its_deadline(tmp_path):
    files = {"tokenizer.json": seeds("tokenizer")[0], "text_encoder.onnx": endless_text_encoder()}
    with pytest.raises(BackendError, match=r"text encoder took longer than deadline_s=0\.3 on 2 texts"):
        TextEncoder(bundle_of(tmp_path, files), deadline_s=0.3).encode(["cat", "sofa"])


def test_a_deadline_is_a_number_of_seconds():
    for wrong in (0, -1, "1", float("nan"), float("inf")):
        with pytest.raises(BackendError, match="deadline_s is"):
            Segmenter.from_pretrained(deadline_s=wrong)
    with Segmenter.from_pretrained(classes="cat, sofa", deadline_s=60) as segmenter:
        assert segmenter.predict(np.zeros((48, 64, 3), np.uint8)).labels.shape == (48, 64)


ENDLESS = """
import sys
from pathlib import Path
import numpy as np
from pixelclip_sdk.backends.onnx import OnnxBackend
from pixelclip_sdk.support.command import run_command

def body():
    backend = OnnxBackend(Path(sys.argv[1]), embedding_dim=8, multiple=8, threads=1)
    print("started", flush=True)
    backend.logits(np.zeros((1, 16, 16, 3), np.uint8), np.eye(2, 8, dtype=np.float32))
    return 0

sys.exit(run_command("name", body))
"""


def test_a_second_ctrl_c_ends_a_model_that_never_returns(tmp_path, spawn):
    file = tmp_path / "model.onnx"
    file.write_bytes(endless_image_encoder())
    process = spawn([sys.executable, "-c", ENDLESS, str(file)], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout.readline() == "started\n"
    time.sleep(0.3)  # It has to be in the model.
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_threads_share_a_segmenter_under_a_storm_of_words_until_it_is_closed():
    """Results of the same words are equal to the bit; a closed segmenter gives errors of the tree only."""
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    segmenter = Segmenter.from_pretrained(classes="cat, sofa")
    vocabularies = [segmenter.embed(words) for words in ("cat, sofa", "sofa, cat, cup", "sky, road")]
    expected = {}
    for words in vocabularies:
        segmenter.set_classes(words)
        expected[words.names] = segmenter.predict(image).labels.copy()
    errors, results = [], []

    def work(number):
        try:
            while True:
                segmenter.set_classes(vocabularies[number % 3])
                results.append(segmenter.predict(image))
        except BackendError:
            return  # It was closed.
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while len(results) < 40 and not errors:
        time.sleep(0.01)
    segmenter.close()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert errors == []
    for result in results:
        np.testing.assert_array_equal(result.labels, expected[result.names])


def test_a_camera_that_breaks_off_gives_every_frame_once_in_order_at_its_time():
    found = soak_stream(6)
    assert (found["twice"], found["out_of_order"]) == (0, 0)
    assert found["largest_clock_error_s"] < found["frame_s"]
    assert found["frames"] > 0


def test_what_a_killed_command_leaves_is_whole():
    whole = is_killed_cleanly("predict", None)
    assert (whole["exit_code"], whole["broken"]) == (0, [])
    assert whole["files"] >= 6
    killed = is_killed_cleanly("predict", 0.8 * whole["seconds"])
    assert killed["broken"] == []


@pytest.mark.parametrize("name", ["JPEG, turned", "PNG, alpha"])
def test_memory_of_predict_grows_as_the_limits_of_pictures_assume(name, tmp_path):
    """A twelfth of the largest picture: what it adds to the process must be about a twelfth of the most."""
    pixels = written(name, tmp_path / "picture", 81_000_000 // 12)
    one = segmented(tmp_path / "picture")
    assert one["outcome"] == "segmented"
    assert one["added_mb"] < 8.0 * pixels / 1e6 + 40


def test_what_a_pixel_costs_the_command_that_writes_every_format(tmp_path):
    """9 bytes: 4 are the picture, 1 its label, 4 the overlay. Without strips it is 22; with them 4 to 7."""
    peaks, pixels = [], []
    for size in (1_000_000, 8_000_000):
        pixels.append(written("JPEG", tmp_path / "picture.jpg", size))
        found = commanded(tmp_path / "picture.jpg", ",".join(FORMATS))
        assert found["exit_code"] == 0
        peaks.append(found["peak_mb"])
    assert 0 < peaks[1] - peaks[0] < 12 * (pixels[1] - pixels[0]) / 1e6


def test_a_picture_that_is_too_large_costs_no_memory(tmp_path):
    # A PNG file may have EXIF data behind its pixels; Pillow decodes it to look there.
    Image.new("P", (11_000, 9_400)).save(tmp_path / "picture", "PNG")
    one = segmented(tmp_path / "picture")
    assert "too many pixels" in one["outcome"]
    assert one["added_mb"] < 50
