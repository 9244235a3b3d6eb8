"""Real pipelines, in processes of their own: GStreamer uses the Python of the system."""

import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pixelclip_sdk import BackendUnavailableError, Segmenter
from pixelclip_sdk.gstreamer.__main__ import variables

PYTHON = "/usr/bin/python3"
HEIGHT, WIDTH, FPS = 100, 150, 25  # Rows of 450 bytes: GStreamer pads them to 452.


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """The environment that the guide sets up, with a registry of its own."""
    if not shutil.which("gst-launch-1.0"):
        pytest.skip("GStreamer is not installed")
    try:
        found = {name: ":".join(folders) for name, folders in variables().items()}
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    for name in ("python", "app", "rawparse", "videotestsrc"):
        if subprocess.run(["gst-inspect-1.0", "--plugin", name], capture_output=True).returncode:
            pytest.skip(f"GStreamer has no plugin {name}")
    return {**os.environ, **found, "GST_REGISTRY": str(tmp_path_factory.mktemp("gst") / "registry.bin")}


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Six real frames `(6, 100, 150, 3)`: a crop that moves over the photo of a cat."""
    from pixelclip_sdk.image import load_image

    photo = load_image(Path(__file__).parents[3] / "examples" / "photos" / "chelsea.jpg")
    return np.stack([photo[50 : 50 + HEIGHT, 10 * i : 10 * i + WIDTH] for i in range(6)])


@pytest.fixture(scope="module")
def raw(frames, tmp_path_factory) -> Path:
    """The frames as GStreamer lays them out."""
    file = tmp_path_factory.mktemp("raw") / "frames.rgb"
    file.write_bytes(np.pad(frames.reshape(len(frames), HEIGHT, -1), ((0, 0), (0, 0), (0, 2))).tobytes())
    return file


def launch(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = ["gst-launch-1.0", "-m", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)


def play(environment: dict[str, str], scenario: str, file: Path) -> dict:
    command = [PYTHON, str(Path(__file__).with_name("player.py")), scenario, str(file)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=250)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    return json.loads(result.stdout)


def parsed(raw: Path) -> list[str]:
    form = ["format=rgb", f"width={WIDTH}", f"height={HEIGHT}", f"framerate={FPS}/1"]
    return ["filesrc", f"location={raw}", "!", "rawvideoparse", *form, "!"]


def test_a_pipeline_gives_what_the_sdk_gives(environment, frames, raw, tmp_path):
    with Segmenter.from_pretrained(classes="cat, sofa, grass") as segmenter:
        timed = [(i / FPS, frame) for i, frame in enumerate(frames)]
        expected = list(segmenter.stream(timed, smooth=0.3))
    for output, channels, stride in (("mask", 1, 152), ("overlay", 3, 452)):
        out = tmp_path / output
        element = ["pixelclip", "classes=cat, sofa, grass", f"output={output}"]
        result = launch(environment, *parsed(raw), *element, "!", "filesink", f"location={out}")
        assert result.returncode == 0, result.stderr
        rows = np.fromfile(out, np.uint8).reshape(len(frames), HEIGHT, stride)[..., : WIDTH * channels]
        for row, one in zip(rows, expected, strict=True):
            picture = one.labels if output == "mask" else np.asarray(one.plot(legend="inside"))
            np.testing.assert_array_equal(row, picture.reshape(HEIGHT, -1))
    said = re.findall(r"pixelclip, timestamp=\(guint64\)(\d+),.*shares=\(double\)< (.*?) >", result.stdout)
    assert [int(pts) for pts, _ in said] == [i * 10**9 // FPS for i in range(len(frames))]
    for (_, shares), one in zip(said, expected, strict=True):
        areas = one.areas()
        assert [float(share) for share in shares.split(",")] == [areas[name] for name in one.names]


def test_words_change_and_seeking_works_while_a_pipeline_plays(environment, raw):
    result = play(environment, "words", raw)
    stamps = [frame["pts"] for frame in result["frames"]]
    assert stamps == [i * 10**9 // FPS for i in range(6)]
    assert {frame["duration"] for frame in result["frames"]} == {10**9 // FPS}
    assert {(frame["format"], frame["bytes"]) for frame in result["frames"]} == {("RGB", 452 * HEIGHT)}
    assert [frame["pts"] for frame in result["again"]] == stamps
    assert result["errors"] == []
    twice, limit = result["warnings"]
    assert "classes stays as it was" in twice
    assert "'cat' is repeated" in twice
    assert "min-confidence is 'a lot'" in limit
    assert result["kept"] == "cat, sofa, grass"
    names = [shares["names"] for shares in result["shares"]]
    assert names[0] == ["cat", "sofa"]
    assert names[5:] == [["cat", "sofa", "grass"]] * 7
    assert result["shares"][5]["unknown"] < 1e-9
    # Nothing has a confidence of 1; frames that were inside before the limit have the old one.
    assert result["shares"][-1]["unknown"] == 1


def test_live_pictures_are_shown_in_time_and_stopping_ends(environment, raw):
    result = play(environment, "live", raw)
    assert result["errors"] == result["warnings"] == []
    assert {(frame["format"], frame["bytes"]) for frame in result["frames"]} == {("GRAY8", 152 * HEIGHT)}
    assert result["latency"] >= 3 * 10**8  # Three frames of a tenth of a second.
    stamps = [shares["pts"] for shares in result["shares"]]
    assert all(later - earlier >= 3 * 10**8 for earlier, later in itertools.pairwise(stamps))
    assert (result["first"]["format"], result["first"]["width"]) == ("RGB", 320)
    assert result["stopped"]["errors"] == []
    # The engine of a pipeline that played was closed: an error, not a crash.
    assert "closed" in result["broken"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((), 'no classes; expected words, e.g. classes="cat, sofa"'),
        (("classes=cat, sofa", "model=no-such-model"), "no-such-model"),
        (("classes=cat, sofa", "output=both"), "output is 'both'; expected overlay or mask"),
        (("classes=cat, cat",), "'cat' is repeated"),
        (("classes=cat, sofa", "min-confidence=7"), "min-confidence is '7'"),
    ],
)
def test_settings_that_cannot_be_used_are_errors_of_the_pipeline(environment, settings, message):
    result = launch(
        environment, "videotestsrc", "num-buffers=1", "!", "pixelclip", *settings, "!", "fakesink"
    )
    assert result.returncode != 0
    assert "ERROR: from element /GstPipeline:pipeline0/" in result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_without_the_sdk_the_error_says_so(environment):
    *_, bindings = environment["PYTHONPATH"].split(":")
    bare = {**environment, "PYTHONPATH": bindings, "PATH": "/usr/bin:/bin"}
    result = launch(
        bare, "videotestsrc", "num-buffers=1", "!", "pixelclip", "classes=cat,sofa", "!", "fakesink"
    )
    assert result.returncode != 0
    assert "cannot import PixelCLIP SDK: No module named 'pixelclip_sdk'. Set PYTHONPATH" in result.stderr
