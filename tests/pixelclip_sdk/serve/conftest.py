"""A real server process, and a client that can also send what no client should."""

import base64
import contextlib
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# A server with other limits than those of the command.
_WITH_LIMITS = """
import contextlib, json, sys
from pixelclip_sdk import Segmenter
from pixelclip_sdk.serve.config import Limits, ServeConfig
from pixelclip_sdk.serve.server import serve
from pixelclip_sdk.support.signals import interruptible
with contextlib.suppress(KeyboardInterrupt), interruptible(), Segmenter.from_pretrained() as segmenter:
    serve(
        {"pixelclip-lite": segmenter},
        ServeConfig(port=0, limits=Limits(**json.loads(sys.argv[1]))),
        announce=lambda address: print("open", address, flush=True),
    )
"""
_TIMEOUT_S = 30


class Reply:
    """An answer."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json()["error"]["code"]

    @property
    def message(self) -> str:
        return self.json()["error"]["message"]

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:500]!r}"


class Server:
    """A server process of this test."""

    def __init__(self, command: list[str], env: Mapping[str, str]) -> None:
        self.log: list[str] = []
        started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        assert self.process.stdout is not None
        try:
            line = self.process.stdout.readline()
            found = re.search(r"http://(\S+):(\d+)", line)
            assert found, f"{line!r} {self.log}"
            self.host, self.port = found[1], int(found[2])
            assert self.ask("GET", "/healthz").status == 200  # It answers when it is ready.
        except BaseException:  # Nobody else knows of the process, and its log would keep the tests waiting.
            self.process.kill()
            raise
        self.start_s = time.monotonic() - started

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = _TIMEOUT_S,
    ) -> Reply:
        """One request over a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=timeout)) as client:
            client.request(method, path, body, dict(headers or {}))
            response = client.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())

    def post(self, path: str, value: Any, headers: Mapping[str, str] | None = None) -> Reply:
        """A request with JSON."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.ask("POST", path, body, {"Content-Type": "application/json", **(headers or {})})

    def form(
        self, fields: list[tuple[str, str | None, bytes]], headers: Mapping[str, str] | None = None
    ) -> Reply:
        """A form for /v1/segment: name, file name or None, content."""
        body, kind = self.multipart(fields)
        return self.ask("POST", "/v1/segment", body, {"Content-Type": kind, **(headers or {})})

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=_TIMEOUT_S)

    def talk(self, data: bytes, *, timeout: float = _TIMEOUT_S) -> bytes:
        """Send bytes; return what comes until the server closes the connection."""
        with self.connect() as link:
            link.settimeout(timeout)
            # It may answer and close before it has read everything.
            with contextlib.suppress(ConnectionError):
                link.sendall(data)
            return self.received(link)

    def facts(self) -> dict[str, int]:
        """Resident memory in MB, threads and file descriptors of the process."""
        folder = Path(f"/proc/{self.process.pid}")
        status = (folder / "status").read_text()
        return {
            "memory_mb": int(status.partition("VmRSS:")[2].split()[0]) // 1024,
            "threads": int(status.partition("Threads:")[2].split()[0]),
            "files": len(list((folder / "fd").iterdir())),
        }

    @staticmethod
    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    @staticmethod
    def decoded(data: str | bytes) -> np.ndarray:
        """The pixel values of a PNG file, also in base64."""
        png = data if isinstance(data, bytes) else base64.b64decode(data)
        return np.asarray(Image.open(io.BytesIO(png), formats=["PNG"]))

    @staticmethod
    def received(link: socket.socket) -> bytes:
        """What a connection still sends, until it is closed or its time is up."""
        parts = []
        with contextlib.suppress(ConnectionError, TimeoutError):
            while part := link.recv(1 << 16):
                parts.append(part)
        return b"".join(parts)

    @staticmethod
    def multipart(fields: list[tuple[str, str | None, bytes]]) -> tuple[bytes, str]:
        """A form as bytes, and its content type. Fields are a name, a file name or None, and the content."""
        lines = []
        for name, file, content in fields:
            more = "" if file is None else f'; filename="{file}"'
            lines += [b"--limit", f'Content-Disposition: form-data; name="{name}"{more}'.encode()]
            lines += [b"", content]
        return b"\r\n".join([*lines, b"--limit--", b""]), "multipart/form-data; boundary=limit"

    def records(self) -> list[dict[str, Any]]:
        """The log so far; every line is JSON."""
        return [json.loads(line) for line in list(self.log)]

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(30)
        finally:
            self.process.kill()
        self._reader.join(30)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


@contextlib.contextmanager
def running(command: list[str], env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server that must end well: no fault in its log, exit code 0."""
    server = Server(command, env or {})
    try:
        yield server
    finally:
        code = server.stop()
    faults = [record for record in server.records() if record["level"] not in ("info", "warning")]
    assert not faults
    assert code == 0


@pytest.fixture(scope="module")
def start() -> Callable[..., contextlib.AbstractContextManager[Server]]:
    """Starts `pixelclip serve` with options, or a server with limits."""

    def start(*options: str, env: Mapping[str, str] | None = None, **limits: float) -> Any:
        command = ["-c", _WITH_LIMITS, json.dumps(limits)]
        if not limits:
            command = ["-m", "pixelclip_sdk", "serve", "--port", "0", *options]
        return running(command, env)

    return start


@pytest.fixture(scope="module")
def server(start) -> Iterator[Server]:
    """A server with the limits of the command, and words."""
    with start("--classes", "cat, sofa, grass") as server:
        yield server


@pytest.fixture(scope="session")
def cat() -> bytes:
    """A real photo as a JPEG file."""
    return (Path(__file__).parents[3] / "examples" / "photos" / "chelsea.jpg").read_bytes()
