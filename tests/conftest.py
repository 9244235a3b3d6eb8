"""Fixtures: pictures of known content, a segmenter without a model, and the bundled one."""

import contextlib
import importlib.util
import signal
import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pixelclip_sdk import Segmenter, Vocabulary
from pixelclip_sdk.backends import fastest
from pixelclip_sdk.backends.fake import FakeBackend
from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.image import load_image
from pixelclip_sdk.models import find_bundle

# A shell lets programs in the background ignore Ctrl-C, and nohup lets them ignore SIGHUP. Their children
# inherit it: tests of these signals would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    """Says how a process that runs tests ended where it ended early: pytest-xdist says only that it did."""
    if error is not None and (process := getattr(node.gateway._io, "popen", None)) is not None:
        print(f"\n{node.gateway.id} ended with {process.wait(10)} (negative: the number of a signal)")


COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
}


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory) -> Iterator[None]:
    """Keeps the tests out of the user's cache folder, and loading a model from timing engines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIXELCLIP_HOME", str(tmp_path_factory.mktemp("cache")))
        # Labels must not depend on a measurement; `backends/test_fastest.py` tests it.
        patch.setattr("pixelclip_sdk.backends.choose.fastest_on_cpu", lambda *_: ("onnx", "a test runs"))
        if importlib.util.find_spec("openvino"):  # Also in the processes that tests start.
            record = fastest.record_file(find_bundle("pixelclip-lite"), None)
            record.write_text('{"backend": "onnx", "why": "a test runs"}')
        yield


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts processes like subprocess.Popen. Those that still run when the test ends are killed.

    `with subprocess.Popen(…)` would wait for them, for ever where a test has failed.
    """
    with contextlib.ExitStack() as stack:

        def start(command: list[str], **options) -> subprocess.Popen:
            process = stack.enter_context(subprocess.Popen(command, text=True, **options))
            stack.callback(process.kill)  # Before it is waited for.
            return process

        yield start


@pytest.fixture(scope="session")
def colour_vocabulary() -> Callable[..., Vocabulary]:
    """Makes a vocabulary of colours, with the embeddings that FakeBackend gives these colours."""

    def make(*names: str) -> Vocabulary:
        rows = np.array([COLOURS[name] for name in names], np.float32) - 127.5
        return Vocabulary(names=list(names), embeddings=rows / np.linalg.norm(rows, axis=1, keepdims=True))

    return make


@pytest.fixture
def fake(colour_vocabulary) -> Segmenter:
    """A segmenter of 64×64 pixels, cells of 8, that knows red, green and blue."""
    spec = InputSpec(height=64, width=64, multiple=8, fixed=True, keep_aspect=False)
    return Segmenter(FakeBackend(stride=8), spec, vocabulary=colour_vocabulary("red", "green", "blue"))


@pytest.fixture
def patches() -> np.ndarray:
    """64×64: red above, green below left, blue below right."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32] = COLOURS["red"]
    image[32:, :32] = COLOURS["green"]
    image[32:, 32:] = COLOURS["blue"]
    return image


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """A video of 30 frames, 64×48, 25 a second: red, green, blue, red, …"""
    pytest.importorskip("av")
    from pixelclip_sdk.video.writer import write_video

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with write_video(path, Fraction(25)) as writer:
        for i in range(30):
            writer.write(np.full((48, 64, 3), list(COLOURS.values())[i % 3], np.uint8))
    return path


@pytest.fixture
def photo() -> np.ndarray:
    """A real photo, 300×451: a cat."""
    return load_image(Path(__file__).parents[1] / "examples" / "photos" / "chelsea.jpg")


@pytest.fixture(scope="session")
def lite() -> Iterator[Segmenter]:
    """The bundled model."""
    with Segmenter.from_pretrained("pixelclip-lite", classes=["cat", "sofa", "grass"]) as segmenter:
        yield segmenter
