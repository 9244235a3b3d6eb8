"""A real server process and clients of its live connections."""

import contextlib
import io
import json
import signal
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")
websockets_client = pytest.importorskip("websockets.sync.client", reason="the extra serve is not installed")

PHOTOS = Path(__file__).parents[4] / "examples" / "photos"
PROTOCOL = "pixelclip.v1"

_CODE = """
import json, sys
from pixelclip_sdk import Segmenter
from pixelclip_sdk.serve.config import Limits, ServeConfig
from pixelclip_sdk.serve.server import serve
options = json.loads(sys.argv[1])
limits = Limits(**options.pop("limits", {}))
segmenter = Segmenter.from_pretrained(classes=options.pop("classes", None), threads=1)
serve({"pixelclip-lite": segmenter}, ServeConfig(limits=limits, **options), announce=print)
"""


class Server:
    """A server process. Keyword arguments are those of ServeConfig; `limits` is a dict, `classes` words."""

    def __init__(self, **options: Any) -> None:
        self.sources: dict[str, str] = options.get("sources", {})
        command = [sys.executable, "-u", "-c", _CODE, json.dumps({"port": 0, **options})]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        try:
            self.url = self.process.stdout.readline().strip()
            assert self.url, "the server did not start"
            self.port = int(self.url.rpartition(":")[2])
            self.wait_ready()
        except BaseException:  # Nobody else knows of the process.
            self.process.kill()
            raise

    def wait_ready(self) -> None:
        for _ in range(200):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/healthz", timeout=5):
                return
            time.sleep(0.05)
        raise AssertionError("the server is not ready")

    def client(self, **options: Any) -> "Client":
        return Client(self, **options)

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.partition("{")[0].split()[0] == name)

    def resources(self) -> tuple[int, int]:
        """Threads and open files."""
        folder = Path("/proc") / str(self.process.pid)
        return len(list((folder / "task").iterdir())), len(list((folder / "fd").iterdir()))

    def readers(self, source: str) -> int:
        """How often the server has the file of `source` open at this moment."""
        count = 0
        for link in (Path("/proc") / str(self.process.pid) / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                count += link.readlink() == Path(self.sources[source])
        return count

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()


class Client:
    """One live connection."""

    def __init__(self, server: Server, **options: Any) -> None:
        url = f"ws://127.0.0.1:{server.port}/v1/live"
        options = {"subprotocols": [PROTOCOL], "max_size": None, "open_timeout": 20, **options}
        self._stack = contextlib.ExitStack()
        self.socket = self._stack.enter_context(websockets_client.connect(url, **options))
        with contextlib.ExitStack() as undo:
            undo.push(self._stack)
            self.hello = json.loads(self.socket.recv(20))
            undo.pop_all()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def send(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def settings(self, **settings: Any) -> dict[str, Any]:
        """Sends settings and returns the answer, skipping results."""
        self.send(type="settings", **settings)
        while True:
            answer = self.receive()
            if answer["type"] != "result":
                return answer

    def send_frame(self, number: int, image: bytes, time_ms: int = 0) -> None:
        self.socket.send(struct.pack(">II", number, time_ms) + image)

    def receive(self) -> dict[str, Any]:
        """The next message; the parts of a result as arrays."""
        message = self.socket.recv(30)
        if isinstance(message, str):
            return json.loads(message)
        (size,) = struct.unpack_from(">I", message)
        result, at = json.loads(message[4 : 4 + size]), 4 + size
        for part in result["parts"]:
            data = message[at : at + part["bytes"]]
            at += part["bytes"]
            with Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]) as picture:
                assert picture.format == part["type"].removeprefix("image/").upper()
                result[part["name"]] = np.asarray(picture)
        assert at == len(message)
        return result

    def segment(self, image: bytes, number: int = 1, time_ms: int = 0) -> dict[str, Any]:
        self.send_frame(number, image, time_ms)
        return self.receive()


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def make_server() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(**options: Any) -> Server:
        servers.append(Server(**options))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def server(clip) -> Iterator[Server]:
    """A server with a video of red, green and blue, and a source that is not there."""
    server = Server(sources={"clip": str(clip), "gone": str(clip.with_name("nothing.mp4"))})
    yield server
    server.stop()


@pytest.fixture
def client(server) -> Iterator[Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def cat() -> bytes:
    return (PHOTOS / "chelsea.jpg").read_bytes()


@pytest.fixture(scope="session")
def coffee() -> bytes:
    return (PHOTOS / "coffee.jpg").read_bytes()


@pytest.fixture(name="wait_until", scope="session")
def wait_until_fixture() -> Callable[..., None]:
    return wait_until
