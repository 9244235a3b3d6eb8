"""The code in the README and the guides runs, as it stands there."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk.cli.main import main
from pixelclip_sdk.video.writer import write_video

ROOT = Path(__file__).parents[1]
WITH_ROS = importlib.util.find_spec("rosbags") is not None
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, code) of every fenced block in a language."""
    found = []
    for page in PAGES:
        for code in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            found.append((page.name, code))
    return found


def python_blocks() -> list:
    """The blocks of `blocks`; those that embed thousands of nouns are slow tests."""
    return [
        pytest.param(page, code, marks=[pytest.mark.slow] if ".suggest(" in code else [])
        for page, code in blocks("python")
    ]


def write_bag(path: Path, pictures: list[np.ndarray]) -> None:
    """A bag with a topic of images, ``/camera/image_raw``."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    from pixelclip_sdk.ros.typestore import typestore

    types, name = typestore().types, "sensor_msgs/msg/Image"
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection("/camera/image_raw", name, typestore=typestore())
        for i, picture in enumerate(pictures):
            stamp = types["builtin_interfaces/msg/Time"](sec=i, nanosec=0)
            message = types[name](
                header=types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera"),
                height=picture.shape[0],
                width=picture.shape[1],
                encoding="rgb8",
                is_bigendian=0,
                step=3 * picture.shape[1],
                data=picture.ravel(),
            )
            writer.write(topic, i * 10**9, typestore().serialize_cdr(message, name))


@pytest.fixture
def workplace(tmp_path, photo, monkeypatch):
    """An empty folder with the photos and the video that the documentation talks of."""
    Image.fromarray(photo).save(tmp_path / "photo.jpg")
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.asarray(photo)[::2, ::2]).save(tmp_path / "photos" / "other.png")
    with write_video(tmp_path / "video.mp4") as writer:
        for i in range(5):
            writer.write(np.ascontiguousarray(photo[:240, i : 320 + i]))
    if WITH_ROS:
        write_bag(tmp_path / "drive", [np.ascontiguousarray(photo[:240, i : 320 + i]) for i in range(3)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(("page", "code"), python_blocks())
def test_python_blocks_run(page, code):
    # A block that needs more than the SDK says so in its first line.
    if needed := re.match("# pip install (.+)\n", code):
        for package in needed[1].split():
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed")
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, f"{page}:\n{code}\n{result.stderr}"


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_run(example, tmp_path):
    command = [sys.executable, "-W", "error", str(example)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def commands() -> list[str]:
    """Every `pixelclip …` line of the shell blocks, in order.

    A server runs until it is stopped; those of its guide are tested in `pixelclip_sdk/serve/test_guide.py`.
    """
    installed = {"serve": False, "bag": WITH_ROS, "batch": importlib.util.find_spec("pyarrow") is not None}
    left_out = "|".join(verb for verb, runs in installed.items() if not runs)
    lines = [line.partition("#")[0].strip() for _, code in blocks("bash") for line in code.splitlines()]
    return [line for line in lines if re.match(f"pixelclip (?!{left_out})", line)]


@pytest.mark.usefixtures("workplace")
def test_pixelclip_commands_run_in_their_order(capsys):
    found = commands()
    assert len(found) >= 5
    for command in found:
        assert main(shlex.split(command)[1:]) == 0, f"{command}\n{capsys.readouterr().err}"
