"""A real Triton server runs the Python model of a repository, and answers like the SDK.

The server is the one inside PyPI's nvidia-pytriton, whose Python backend reads numpy 1 only. `make test`
installs both: ``pip install --no-deps nvidia-pytriton==0.7.0`` and, into the folder ``triton`` of the
environment, ``pip install --no-deps --target .venv/triton numpy==1.26.4``. Another folder: TRITON_SITE.
"""

import concurrent.futures
import ctypes.util
import importlib.util
import os
import re
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from export.to_triton import write_repository
from pixelclip_sdk.image import load_image
from pixelclip_sdk.models import find_bundle

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"
SITE = Path(os.environ.get("TRITON_SITE", Path(sys.prefix) / "triton"))
INSTANCES = 2


def server_folder() -> Path:
    """The files of the server; its Python package is never imported."""
    spec = importlib.util.find_spec("pytriton")
    folder = Path(spec.submodule_search_locations[0]) / "tritonserver" if spec else Path("/nowhere")
    if not (folder / "bin" / "tritonserver").is_file():
        pytest.skip("no Triton server: pip install --no-deps nvidia-pytriton==0.7.0")
    return folder


def backends(target: Path, server: Path) -> Path:
    """The Python backend with the program that runs models, the one for this version of Python."""
    stub = server / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not stub.is_dir():
        pytest.skip(
            f"the Triton server has no program for Python {sys.version_info[0]}.{sys.version_info[1]}"
        )
    (target / "python").mkdir(parents=True)
    # Links: the programs find their libraries beside their real places.
    for file in (stub / "triton_python_backend_stub", *(server / "backends" / "python").glob("*.[ps][yo]")):
        (target / "python" / file.name).symlink_to(file)
    return target


def start(repository: Path, folder: Path, packages: list[Path]) -> tuple[subprocess.Popen, int]:
    """Start the server in a folder whose packages go before those of the environment."""
    server = server_folder()
    folder.mkdir()
    for package in packages:
        (folder / package.name).symlink_to(package)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(server / "bin" / "tritonserver", "--model-repository", repository),
        *("--backend-directory", backends(folder / "backends", server)),
        *("--http-address", "127.0.0.1", "--http-port", str(port)),
        *("--allow-grpc", "false", "--allow-metrics", "false"),
        # The package has no ONNX Runtime backend.
        *("--model-control-mode", "explicit", "--load-model", "pixelclip-lite"),
    ]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR"),  # libpython, if Python is not the system's.
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
    return process, port


def stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def is_ready(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5).status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    server_folder()
    if ctypes.util.find_library("c") is None or sys.platform != "linux":
        pytest.skip("the Triton server is a program for Linux")
    folder = tmp_path_factory.mktemp("repository") / "models"
    write_repository(find_bundle("pixelclip-lite"), folder)
    file = folder / "pixelclip-lite" / "config.pbtxt"
    text = file.read_text()
    assert "count: 1" in text
    file.write_text(text.replace("count: 1", f"count: {INSTANCES}"))
    return folder


@pytest.fixture(scope="module")
def port(repository, tmp_path_factory) -> Iterator[int]:
    if not (SITE / "numpy").is_dir():
        pytest.skip(f"no numpy 1 for Triton: pip install --no-deps --target {SITE} numpy==1.26.4")
    folder = tmp_path_factory.mktemp("server") / "run"
    packages = [*SITE.glob("numpy*"), ROOT / "pixelclip_sdk"]
    process, number = start(repository, folder, packages)
    try:
        until = time.monotonic() + 60
        while not is_ready(number):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail((folder / "log").read_text(errors="replace")[-3000:])
            time.sleep(0.1)
        yield number
    finally:
        stop(process)


def inputs(**arrays):
    """Tensors for a client: lists of text or bytes, and arrays."""
    from tritonclient.http import InferInput
    from tritonclient.utils import np_to_triton_dtype

    tensors = []
    for name, value in arrays.items():
        array = np.array(value, np.object_) if isinstance(value, list) else value
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensors.append(tensor.set_data_from_numpy(array))
    return tensors


def ask(port: int, outputs: list[str] | None = None, **arrays) -> dict[str, np.ndarray]:
    from tritonclient.http import InferenceServerClient, InferRequestedOutput

    wanted = outputs and [InferRequestedOutput(name) for name in outputs]
    with InferenceServerClient(f"127.0.0.1:{port}") as client:
        answer = client.infer("pixelclip-lite", inputs(**arrays), outputs=wanted)
    return {output["name"]: answer.as_numpy(output["name"]) for output in answer.get_response()["outputs"]}


def differ(labels: np.ndarray, expected: np.ndarray) -> float:
    """The share of pixels that differ: another numpy rounds otherwise."""
    assert labels.shape == expected.shape
    assert labels.dtype == expected.dtype
    return float((labels != expected).mean())


@pytest.fixture(scope="module")
def cat() -> bytes:
    return (PHOTOS / "chelsea.jpg").read_bytes()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["cat", "wall", "blanket"], ["cat", "wall", "blanket"]),
        (["sofa, couch", "pet, cat, kitten"], ["sofa", "pet"]),
        (["voc-20"], None),
        (["Kätzchen", "dog", "blanket"], ["Kätzchen", "dog", "blanket"]),
    ],
)
def test_files_and_words_as_in_the_sdk(port, lite, cat, words, names):
    answer = ask(port, image=[cat], words=[word.encode() for word in words])
    classes = {parts[0]: parts for parts in (word.split(", ") for word in words)}
    expected = lite.with_classes(words[0] if names is None else classes).predict(cat)
    assert [name.decode() for name in answer["names"]] == list(expected.names) == (names or [*expected.names])
    assert differ(answer["labels"][0], expected.labels) < 1e-3
    areas = [expected.areas()[name] for name in expected.names]
    np.testing.assert_allclose(answer["areas"], [areas], atol=1e-3)
    assert answer["confidence"].dtype == np.float32
    np.testing.assert_allclose(np.median(answer["confidence"]), np.median(expected.confidence), atol=1e-3)


def test_pixels_of_several_images(port, lite):
    photo = load_image(PHOTOS / "coffee.jpg")
    pixels = np.stack([photo, photo[::-1], photo[:, ::-1]])
    words = ["cup", "table", "spoon"]
    answer = ask(port, ["labels", "names"], pixels=pixels, words=words)
    assert sorted(answer) == ["labels", "names"]  # Others are not computed.
    for labels, image in zip(answer["labels"], pixels, strict=True):
        assert differ(labels, lite.with_classes(words).predict(np.ascontiguousarray(image)).labels) < 1e-3
    assert len({labels.tobytes() for labels in answer["labels"]}) == 3


def test_the_guide_s_client_runs(port, cat, lite, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "triton.md").read_text(encoding="utf-8")
    code = re.search(r"^```py\n(.*?InferenceServerClient.*?)^```", page, re.M | re.S)[1]
    assert "localhost:8000" in code
    (tmp_path / "photo.jpg").write_bytes(cat)
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(code.replace("localhost:8000", f"127.0.0.1:{port}"), found)
    found["client"].close()
    expected = lite.with_classes({"cat": "cat", "sofa": ["sofa", "couch"], "wall": "wall"}).predict(cat)
    assert differ(found["labels"], expected.labels) < 1e-3
    assert found["names"] == ["cat", "sofa", "wall"]
    assert sum(found["shares"].values()) == pytest.approx(1)


def test_limits_make_pixels_unknown(port, lite, cat):
    words = ["cat", "car"]
    for name, value in (("min_confidence", 0.6), ("threshold", 0.1)):
        answer = ask(port, image=[cat], words=words, **{name: np.array([value], np.float32)})
        expected = lite.with_classes(words).predict(cat, **{name: value})
        assert differ(answer["labels"][0], expected.labels) < 1e-3
        assert 0 < (answer["labels"] == 255).mean() < 1
    one = ask(port, image=[cat], words=["cat, kitten"], min_confidence=np.array([0.6], np.float32))
    assert [name.decode() for name in one["names"]] == ["cat"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": [b"no image"]}, "is not an image"),
        ({"image": [b""]}, "image"),
        ({"image": [b"/etc/hostname"]}, "is not an image"),
        ({}, "neither of the inputs image"),
        ({"pixels": np.zeros((1, 0, 4, 3), np.uint8)}, "pixels|shape"),
        ({"pixels": np.zeros((1, 4, 4, 4), np.uint8)}, "shape"),
        ({"pixels": np.zeros((1, 4, 4, 3), np.float32)}, "data-type"),
        ({"words": [b"\xff\xfe", b"cat"]}, "item 0 of the input words is not UTF-8"),
        ({"words": [b"cat", b"CAT"]}, "repeated"),
        ({"words": [b"cat, kitten", b"cat"]}, "repeated"),
        ({"words": [b"cat", b" "]}, "empty"),
        ({"words": [b"cat, dog"]}, "one class, which would get every pixel"),
        ({"words": [b"voc-21"]}, "Did you mean 'voc-20'"),
        ({"words": [b"word %d" % i for i in range(256)]}, "256 items; expected 1 to 255"),
        ({"threshold": np.array([np.nan], np.float32)}, "threshold is nan"),
        ({"min_confidence": np.array([2], np.float32)}, "min_confidence is 2.0"),
        ({"threshold": np.array([0, 1], np.float32)}, "shape"),
    ],
)
def test_what_cannot_be_used_is_an_error(port, cat, arrays, message):
    from tritonclient.utils import InferenceServerException

    filled = {"words": [b"cat", b"dog"], **arrays}
    if arrays and "pixels" not in arrays:
        filled = {"image": [cat], **filled}
    with pytest.raises(InferenceServerException, match=message) as caught:
        ask(port, **filled)
    assert caught.value.status() in ("400", "[400]", "StatusCode.INVALID_ARGUMENT")
    assert is_ready(port)


def test_sizes_that_differ_are_an_error(port, cat):
    from tritonclient.utils import InferenceServerException

    coffee = (PHOTOS / "coffee.jpg").read_bytes()
    with pytest.raises(InferenceServerException, match="expected one size"):
        ask(port, image=[cat, coffee], words=["cat", "cup"])


def test_several_clients_get_their_own_words(port, lite):
    """Two instances answer; bad requests among the good ones harm nobody."""
    from tritonclient.utils import InferenceServerException

    vocabularies = [["cat", "wall"], ["cup", "table", "spoon"], ["floor", "person", "cat", "dog"]]
    photos = [load_image(PHOTOS / name)[:300, :400] for name in ("chelsea.jpg", "coffee.jpg")]
    expected = {
        (word, photo): lite.with_classes(vocabularies[word]).predict(np.ascontiguousarray(photos[photo]))
        for word in range(3)
        for photo in range(2)
    }

    def client(number: int) -> int:
        done = 0
        for turn in range(4):
            word, photo = (number + turn) % 3, (number * 3 + turn) % 2
            if (number + turn) % 5 == 4:
                with pytest.raises(InferenceServerException, match="is not an image"):
                    ask(port, image=[b"bad"], words=vocabularies[word])
                continue
            answer = ask(port, pixels=photos[photo][None], words=vocabularies[word])
            assert [name.decode() for name in answer["names"]] == vocabularies[word]
            assert differ(answer["labels"][0], expected[word, photo].labels) < 1e-3
            done += 1
        return done

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(client, range(6))) == 20


def test_numpy_2_in_an_old_triton_is_an_error_and_not_a_wrong_result(repository, tmp_path):
    """This server's Python backend reads arrays of numpy 2 wrongly."""
    assert np.__version__[0] >= "2"
    process, _ = start(repository, tmp_path / "run", [ROOT / "pixelclip_sdk"])
    try:
        assert process.wait(60) != 0
    finally:
        stop(process)
    log = (tmp_path / "run" / "log").read_text(errors="replace")
    assert f"this Triton cannot read arrays of numpy {np.__version__}; take Triton 24.11 or newer" in log
