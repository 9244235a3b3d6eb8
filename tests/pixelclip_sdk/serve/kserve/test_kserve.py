"""The Open Inference Protocol: Triton's own client with a real server process, and bodies that lie."""

import base64
import concurrent.futures
import gzip
import http.client
import json
import re
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
client_module = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
from tritonclient.utils import InferenceServerException, np_to_triton_dtype  # noqa: E402

MODEL = "pixelclip-lite"
PHOTOS = Path(__file__).parents[4] / "examples" / "photos"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    command = [sys.executable, "-m", "pixelclip_sdk", "serve", "--port", "0", "--classes", "cat, wall"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    line = process.stdout.readline()
    assert "http://" in line
    yield line.split("http://")[1].split()[0]
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) in (0, 130)
    process.stdout.close()


@pytest.fixture
def client(server):
    with client_module.InferenceServerClient(server, concurrency=4) as client:
        yield client


@pytest.fixture(scope="module")
def cat() -> bytes:
    return (PHOTOS / "chelsea.jpg").read_bytes()


def inputs(binary: bool = True, **arrays):
    tensors = []
    for name, value in arrays.items():
        array = np.array(value, np.object_) if isinstance(value, list) else value
        tensor = client_module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensors.append(tensor.set_data_from_numpy(array, binary_data=binary))
    return tensors


def post(server: str, body: bytes, headers: dict[str, str] | None = None, model: str = MODEL):
    connection = http.client.HTTPConnection(server, timeout=30)
    try:
        connection.request("POST", f"/v2/models/{model}/infer", body, headers or {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready(MODEL, "2")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata(MODEL)
    assert metadata == client.get_model_metadata(MODEL, "1")
    assert metadata["name"] == MODEL
    assert metadata["versions"] == ["1"]
    assert {"name": "words", "datatype": "BYTES", "shape": [-1]} in metadata["inputs"]
    assert {"name": "labels", "datatype": "UINT8", "shape": [-1, -1, -1]} in metadata["outputs"]
    with pytest.raises(InferenceServerException, match="nothing at this address"):
        client.get_model_config(MODEL)
    with pytest.raises(InferenceServerException, match="no model 'other' is served; expected one of pixel"):
        client.get_model_metadata("other")


def test_files_and_words_as_in_the_sdk(client, lite, cat):
    words = ["cat, kitten", "wall", "floor"]
    answer = client.infer(MODEL, inputs(image=[cat], words=words), request_id="seven")
    expected = lite.with_classes({"cat": ["cat", "kitten"], "wall": "wall", "floor": "floor"}).predict(cat)
    np.testing.assert_array_equal(answer.as_numpy("labels"), expected.labels[None])
    assert answer.as_numpy("names").tolist() == [b"cat", b"wall", b"floor"]
    areas = [expected.areas()[name] for name in expected.names]
    np.testing.assert_allclose(answer.as_numpy("areas"), [areas], rtol=1e-6)
    response = answer.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("seven", MODEL, "1")
    assert answer.as_numpy("confidence") is None  # Only if it is asked for.


def test_words_change_from_request_to_request(client, lite):
    photo = np.stack([np.full((40, 60, 3), value, np.uint8) for value in (30, 220)])
    for words in (["sky", "road"], ["voc-20"], ["door", "window", "wall"]):
        answer = client.infer(MODEL, inputs(pixels=photo, words=words), model_version="1")
        segmenter = lite.with_classes(words if len(words) > 1 else words[0])
        names = [name.decode() for name in answer.as_numpy("names")]
        assert names == list(segmenter.vocabulary.names)
        expected = np.stack([result.labels for result in segmenter.predict_batch(photo)])
        np.testing.assert_array_equal(answer.as_numpy("labels"), expected)


def test_words_may_be_those_of_the_server(client, cat):
    answer = client.infer(MODEL, inputs(image=[cat]))
    assert answer.as_numpy("names").tolist() == [b"cat", b"wall"]


@pytest.mark.parametrize("binary", [True, False])
def test_outputs_are_chosen_and_come_in_both_forms(client, lite, binary):
    photo = np.full((24, 32, 3), 90, np.uint8)
    wanted = [client_module.InferRequestedOutput(n, binary_data=binary) for n in ("names", "confidence")]
    limit = np.array([0.25], np.float32)
    tensors = inputs(binary, pixels=photo, words=["cat", "Möwe"], min_confidence=limit)
    answer = client.infer(MODEL, tensors, outputs=wanted)
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["names", "confidence"]
    assert [name if isinstance(name, str) else name.decode() for name in answer.as_numpy("names")] == [
        "cat",
        "Möwe",
    ]
    expected = lite.with_classes(["cat", "Möwe"]).predict(photo).confidence
    np.testing.assert_allclose(answer.as_numpy("confidence"), expected[None], rtol=1e-6)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_bodies(client, algorithm):
    photo = np.zeros((30, 40, 3), np.uint8)
    answer = client.infer(
        MODEL, inputs(pixels=photo, words=["cat", "dog"]), request_compression_algorithm=algorithm
    )
    assert answer.as_numpy("labels").shape == (1, 30, 40)


def test_asynchronous_requests(client, lite):
    photos = [np.full((20, 20 + i, 3), 60 * i, np.uint8) for i in range(4)]
    words = [["cat", "road"], ["sky", "wall"], ["sofa", "grass"], ["cup", "table"]]
    running = [
        client.async_infer(MODEL, inputs(pixels=photo, words=names))
        for photo, names in zip(photos, words, strict=True)
    ]
    for one, photo, names in zip(running, photos, words, strict=True):
        answer = one.get_result(timeout=30)
        assert [name.decode() for name in answer.as_numpy("names")] == names
        expected = lite.with_classes(names).predict(photo).labels
        np.testing.assert_array_equal(answer.as_numpy("labels")[0], expected)


def test_plain_json_without_a_client(server, cat):
    body = {
        "id": "7",
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(cat).decode()]},
            {"name": "words", "datatype": "BYTES", "shape": [2], "data": ["cat", "wall"]},
        ],
        "outputs": [{"name": "areas"}, {"name": "names"}],
    }
    status, answer = post(server, json.dumps(body).encode())
    assert (status, answer["id"]) == (200, "7")
    areas, names = answer["outputs"]
    assert names == {"name": "names", "datatype": "BYTES", "shape": [2], "data": ["cat", "wall"]}
    assert areas["shape"] == [1, 2]
    assert sum(areas["data"]) == pytest.approx(1)


def with_inputs(*tensors: dict, **more) -> bytes:
    return json.dumps({"inputs": list(tensors), **more}).encode()


def pixels(shape: object, data: object, **more) -> dict:
    return {"name": "pixels", "datatype": "UINT8", "shape": shape, "data": data, **more}


def binary(size: object, shape: object = (1,), name: str = "image", datatype: str = "BYTES") -> dict:
    parameters = {"binary_data_size": size}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}


GOOD = pixels([1, 1, 3], [1, 2, 3])
LARGE = "1" * 400
NAN = {"name": "threshold", "datatype": "FP32", "shape": [1], "data": [float("nan")]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"inputs": [], "id": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "inputs is missing"),
        (b'{"inputs": [1]}', "an input is not a JSON object"),
        (b'{"inputs": [], "id": 7}', "id is not text"),
        (with_inputs(), "neither of the inputs"),
        (with_inputs(GOOD, GOOD), "came twice"),
        (with_inputs({**GOOD, "name": "picture"}), "'picture' is not known; expected image, pixels"),
        (with_inputs({**GOOD, "name": ["\ud800"]}), "is not known"),
        (with_inputs({**GOOD, "datatype": "INT8"}), "expected UINT8"),
        (with_inputs({**GOOD, "datatype": "\ud800"}), "expected UINT8"),
        (with_inputs(pixels([1, -1, 3], [1, 2, 3])), "the shape of pixels"),
        (with_inputs(pixels([1, 1.0, 3], [1, 2, 3])), "the shape of pixels"),
        (with_inputs(pixels([True, 1, 3], [1, 2, 3])), "the shape of pixels"),
        (with_inputs(pixels([2**31, 2**31, 3], [1, 2, 3])), "the shape of pixels"),
        (with_inputs(pixels([2**30, 2**30, 3], [1, 2, 3])), "has 3 values"),
        (with_inputs(pixels([1] * 9, [1])), "the shape of pixels"),
        (with_inputs(pixels(None, [1])), "shape of the input pixels is missing"),
        (with_inputs(pixels([3], [1, 2, 3])), "expected \\[N, H, W, 3\\]"),
        (with_inputs(pixels([0, 1, 3], [])), "expected \\[N, H, W, 3\\]"),
        (with_inputs(pixels([1, 1, 3], [1, 2])), "has 2 values; its shape \\[1, 1, 3\\] has 3"),
        (with_inputs(pixels([1, 1, 3], [1, 2, 256])), "whole numbers from 0 to 255"),
        (with_inputs(pixels([1, 1, 3], [1, 2, -1])), "whole numbers from 0 to 255"),
        (with_inputs(pixels([1, 1, 3], [1, 2, 0.5])), "whole numbers from 0 to 255"),
        (with_inputs(pixels([1, 1, 3], [1, 2, LARGE])), "whole numbers from 0 to 255"),
        (with_inputs(pixels([1, 1, 3], [1, [2], 3])), "whole numbers from 0 to 255"),
        (with_inputs(pixels([1, 1, 3], {})), "data of the input pixels is missing"),
        (with_inputs(pixels([1, 1, 3], [1, 2, 3], parameters=7)), "parameters is not a JSON object"),
        (with_inputs(GOOD, NAN), "threshold is nan"),
        (with_inputs(GOOD, {**NAN, "data": ["0.5"]}), "not numbers"),
        (with_inputs(GOOD, {**NAN, "data": [10**400]}), "not numbers"),
        (with_inputs(GOOD, {**NAN, "data": [1e300]}), "threshold is inf"),
        (with_inputs(GOOD, {**NAN, "data": [0, 0], "shape": [2]}), "has 2 values; expected one"),
        (with_inputs({**binary(0), "data": ["a"], "parameters": {}}), "image files in base64"),
        (with_inputs({**binary(0), "data": ["/etc/hostname"], "parameters": {}}), "image"),
        (with_inputs({**binary(0), "data": ["aGk="], "parameters": {}}), "is not an image"),
        (with_inputs({**GOOD, "parameters": {"shared_memory_region": "x"}}), "shared memory"),
        (with_inputs({**GOOD, "parameters": {"binary_data_size": 3}}), "expected one of them"),
        (with_inputs(GOOD, outputs=[{"name": "masks"}]), "the output 'masks' is not known; expected labels"),
        (with_inputs(GOOD, outputs=[{"name": "labels", "parameters": {"classification": 2}}]), "classific"),
        (with_inputs(GOOD, outputs=[{"name": "labels", "parameters": {"binary_data": 1}}]), "true or false"),
        (with_inputs(GOOD, outputs={}), None),
        (with_inputs(binary(4)), "has 4 bytes, but 0 are left"),
        (with_inputs(binary(-4)), "expected a number of bytes"),
        (with_inputs(binary("4")), "expected a number of bytes"),
        (with_inputs(binary("\ud800")), "expected a number of bytes"),
    ],
)
def test_a_wrong_body_is_the_client_s_mistake(server, body, message):
    status, answer = post(server, body)
    if message is None:  # No outputs are all of them.
        assert status == 200
        return
    assert status == 400
    assert list(answer) == ["error"]
    assert re.search(message, answer["error"]), answer


@pytest.mark.parametrize(
    ("tensor", "data", "message"),
    [
        (binary(8), struct.pack("<I", 900) + b"abcd", "an item has 900 bytes, and 4 are left"),
        (binary(3), b"abc", "cut off at byte 0"),
        (binary(4), struct.pack("<I", 0) + b"more", "4 bytes at the end of the body belong to no input"),
        (binary(8), struct.pack("<II", 0, 0), "has 2 values; its shape \\[1\\] has 1"),
        (binary(2, (1, 1, 3), "pixels", "UINT8"), b"ab", "has 2 bytes; its shape \\[1, 1, 3\\] has 3"),
        (binary(0, (0,)), b"", "image is empty"),
        (binary(2**62), b"abc", "are left of the body"),
        (binary(4, (1,), "words"), struct.pack("<I", 0), "neither of the inputs"),
    ],
)
def test_wrong_bytes_are_the_client_s_mistake(server, tensor, data, message):
    head = with_inputs(tensor)
    headers = {"Inference-Header-Content-Length": str(len(head))}
    status, answer = post(server, head + data, headers)
    assert status == 400
    assert re.search(message, answer["error"]), answer


@pytest.mark.parametrize("length", ["-1", "abc", "999999", "9" * 5000, "1e3", "³"])
def test_a_wrong_length_of_the_json_is_refused(server, length):
    headers = {"Inference-Header-Content-Length": length.encode("utf-8").decode("latin-1")}
    status, answer = post(server, with_inputs(GOOD), headers)
    assert status == 400
    assert "Inference-Header-Content-Length" in answer["error"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([b"\xff\xfe", b"cat"], "item 0 of the input words is not UTF-8"),
        ([b"cat", b"Cat"], "repeated"),
        ([b"cat, dog"], "one class, which would get every pixel"),
        ([b"voc-21"], "Did you mean 'voc-20'"),
        ([b"../../etc/passwd"], None),  # A word like any other.
        ([b"voc_0123456789"], None),
        ([b"word %d" % i for i in range(10_000)], "10000 items; expected 1 to 255"),
        ([b"everyday-nouns"], "more than|words with synonyms|at most"),
        ([b"x" * 500, b"cat"], "500 characters"),
    ],
)
def test_words_that_cannot_be_used(client, words, message):
    tensors = inputs(pixels=np.zeros((8, 8, 3), np.uint8), words=words)
    if message is None:
        assert client.infer(MODEL, tensors).as_numpy("names").tolist() == words
        return
    with pytest.raises(InferenceServerException, match=message) as caught:
        client.infer(MODEL, tensors)
    assert caught.value.status() in ("400", "413")


def test_bombs_and_damaged_compression(server):
    for encoding, packed in (
        ("gzip", gzip.compress(bytes(40 << 20))),
        ("deflate", zlib.compress(bytes(40 << 20))),
    ):
        assert len(packed) < 100_000
        status, answer = post(server, packed, {"Content-Encoding": encoding})
        assert (status, "when it is unpacked" in answer["error"]) == (413, True)
    whole = gzip.compress(with_inputs(GOOD))
    assert post(server, whole, {"Content-Encoding": "gzip"})[0] == 200
    for packed in (whole[:-9], whole + b"more", b"no gzip", b""):
        assert post(server, packed, {"Content-Encoding": "gzip"})[0] == 400
    assert post(server, whole, {"Content-Encoding": "br"})[0] == 415


def test_unpacked_bodies_are_counted_until_they_are_answered(server):
    """All requests together may have 256 MB; these have 320 MB, one after another."""
    packed = gzip.compress(bytes(20 << 20))
    for _ in range(16):
        status, answer = post(server, packed, {"Content-Encoding": "gzip"})
        assert (status, "not JSON" in answer["error"]) == (400, True)


def test_what_is_too_large_gets_413(client, server, cat):
    with pytest.raises(InferenceServerException, match="takes at most 16"):
        client.infer(MODEL, inputs(image=[cat] * 17, words=["cat", "wall"]))
    wanted = [client_module.InferRequestedOutput("labels", binary_data=False)]
    with pytest.raises(InferenceServerException, match="ask for them with binary_data"):
        client.infer(MODEL, inputs(pixels=np.zeros((2100, 2100, 3), np.uint8)), outputs=wanted)
    status, answer = post(server, b"", {"Content-Length": str(1 << 40)})
    assert (status, list(answer)) == (413, ["error"])


def test_addresses_that_do_not_exist(server):
    for model in ("other", "..%2F..", "pixelclip-lite/versions/2"):
        status, answer = post(server, with_inputs(GOOD), model=model)
        assert status == 404
        assert isinstance(answer["error"], str)


def test_several_clients_get_their_own_words(server, lite):
    photo = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    words = [["cat", "wall"], ["cup", "table", "spoon"], ["floor", "dog"], ["sky", "road", "car"]]
    expected = [lite.with_classes(names).predict(photo).labels for names in words]

    def ask(number: int) -> None:
        with client_module.InferenceServerClient(server) as client:
            for turn in range(6):
                i = (number + turn) % len(words)
                answer = client.infer(MODEL, inputs(pixels=photo, words=words[i]))
                assert [name.decode() for name in answer.as_numpy("names")] == words[i]
                np.testing.assert_array_equal(answer.as_numpy("labels")[0], expected[i])

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(6)))
