"""The real client against a server of our own that speaks the part of the hub's protocol that it uses."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = bytes(range(256)) * 40_000  # 10 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SMALL = b'{"small": "kept in git"}'
FETCH = """
import json, sys, dataclasses
from pixelclip_sdk.errors import CheckpointError
from training.encoders.hub import fetch
arguments, options = json.loads(sys.argv[1])
try:
    print(json.dumps(dataclasses.asdict(fetch(*arguments, **options)), default=str))
except CheckpointError as error:
    print(json.dumps({"error": str(error)}))
"""


@dataclass
class Hub:
    """What the server holds, how it misbehaves, and what it was asked."""

    files: dict[str, bytes] = field(
        default_factory=lambda: {"weights/big.pth": CONTENT, "config.json": SMALL}
    )
    cut_at: int | None = None  # close the connection once, after so many bytes of a content
    damage: bool = False  # send another byte in the middle
    status: int | None = None  # answer everything with that
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range
    port: int = 0

    def gets(self) -> list[str | None]:
        """The Range of every GET of a content."""
        return [part for method, path, part in self.asked if method == "GET" and "/content/" in path]


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:  # noqa: N802
        self.do_GET()

    def do_GET(self) -> None:  # noqa: N802
        hub = self.hub
        hub.asked.append((self.command, self.path, self.headers.get("Range")))
        parts = self.path.strip("/").split("/")
        if hub.status:
            self.answer(hub.status, hub.headers)
        elif parts[0] == "content":
            self.content(hub.files["/".join(parts[1:])])
        elif parts[:2] != ["someone", "model"]:
            self.answer(404, {"X-Error-Code": "RepoNotFound"})
        elif parts[3] not in ("main", COMMIT):
            self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        elif (file := "/".join(parts[4:])) not in hub.files:
            self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            self.resolve(file, hub.files[file])

    def resolve(self, file: str, body: bytes) -> None:
        """Large files are somewhere else, and the redirection tells their hash; small ones are here."""
        if len(body) < 1000:
            name = hashlib.sha1(b"blob %d\0%s" % (len(body), body)).hexdigest()
            sent = body.replace(b"git", b"got") if self.hub.damage else body
            self.answer(200, {"X-Repo-Commit": COMMIT, "ETag": f'"{name}"', **self.hub.headers}, sent)
            return
        headers = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{hashlib.sha256(body).hexdigest()}"',
            "X-Linked-Size": str(len(body)),
            # Another host name, as the hub's: the client must not ask it for the metadata.
            "Location": f"http://localhost:{self.hub.port}/content/{file}",
        }
        self.answer(302, headers | self.hub.headers)

    def content(self, body: bytes) -> None:
        if self.hub.damage:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.cut_at is not None:
            self.wfile.write(body[start : self.hub.cut_at])
            self.hub.cut_at = None
            self.close_connection = True
        else:
            self.wfile.write(body[start:])


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.port = server.server_port
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


@pytest.fixture
def run(hub: Hub, tmp_path: Path):
    """Fetches in a process of its own, since the client reads its environment when it is imported."""

    def fetch(*arguments: str, environment: dict[str, str] | None = None, code: str = FETCH, **options):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
        result = subprocess.run(
            [sys.executable, "-c", code, json.dumps([arguments, options])],
            env=clean
            | {"HF_ENDPOINT": f"http://127.0.0.1:{hub.port}", "HF_HOME": str(tmp_path / "home")}
            | {"PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_TELEMETRY": "1"}
            | (environment or {}),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return fetch


def blobs(tmp_path: Path) -> list[str]:
    """Names of the contents in the cache, whole or not."""
    return sorted(path.name for path in tmp_path.glob("home/hub/models--someone--model/blobs/*"))


def test_a_file_arrives_whole_with_its_provenance(hub, run, tmp_path):
    got = run("someone/model", "weights/big.pth")
    assert Path(got["path"]).read_bytes() == CONTENT
    assert got["repository"] == "someone/model"
    assert got["file"] == "weights/big.pth"
    assert got["revision"] == COMMIT
    assert got["sha256"] == SHA256
    assert blobs(tmp_path) == [SHA256]
    assert hub.gets() == [None]  # asked at the address that HF_ENDPOINT names, for all of it

    again = run("someone/model", "weights/big.pth", sha256=SHA256.upper())
    assert again == got
    assert len(hub.gets()) == 1  # from the cache


def test_a_small_file_is_checked_against_gits_hash(hub, run, tmp_path):
    got = run("someone/model", "config.json")
    assert got["sha256"] == hashlib.sha256(SMALL).hexdigest()
    Path(got["path"]).write_bytes(SMALL.replace(b"git", b"got"))
    assert "config.json of someone/model is damaged" in run("someone/model", "config.json")["error"]
    assert blobs(tmp_path) == []


def test_a_broken_connection_is_taken_up_where_it_broke(hub, run):
    chunk = 10 * 1024 * 1024  # the client writes by such chunks; what it has of a further one comes again
    hub.files["weights/big.pth"] = content = CONTENT * 2
    hub.cut_at = chunk + 3_000_000
    got = run("someone/model", "weights/big.pth")
    assert Path(got["path"]).read_bytes() == content
    assert hub.gets() == [None, f"bytes={chunk}-"]


def test_damaged_content_is_refused_and_not_kept(hub, run, tmp_path):
    hub.damage = True
    error = run("someone/model", "weights/big.pth")["error"]
    assert "weights/big.pth of someone/model is damaged" in error
    assert SHA256 in error
    assert "run again" in error
    assert blobs(tmp_path) == []

    hub.damage = False
    assert run("someone/model", "weights/big.pth")["sha256"] == SHA256


def test_a_cached_file_that_went_bad_is_found_out_offline_too(hub, run, tmp_path):
    path = Path(run("someone/model", "weights/big.pth")["path"])
    with path.open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"\xff\xfe")
    assert "is damaged" in run("someone/model", "weights/big.pth", offline=True)["error"]
    assert not path.is_symlink()
    assert "is not in the cache" in run("someone/model", "weights/big.pth", offline=True)["error"]


def test_an_expected_hash_that_differs_is_an_error_and_the_file_stays(hub, run, tmp_path):
    error = run("someone/model", "weights/big.pth", sha256="0" * 64)["error"]
    assert SHA256 in error
    assert "expected 000" in error
    assert COMMIT in error
    assert blobs(tmp_path) == [SHA256]


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_offline(hub, run, how):
    environment = {"HF_HUB_OFFLINE": "1"} if how == "variable" else None
    options = {"offline": True} if how == "argument" else {}
    error = run("someone/model", "weights/big.pth", environment=environment, **options)["error"]
    assert "weights/big.pth of someone/model at revision main is not in the cache" in error
    assert "offline mode is on" in error
    assert hub.asked == []

    online = run("someone/model", "weights/big.pth")
    hub.asked.clear()
    assert run("someone/model", "weights/big.pth", environment=environment, **options) == online
    assert hub.asked == []


def test_the_first_file_that_exists_is_taken(hub, run):
    names = ("new.safetensors", "weights/big.pth")
    assert run("someone/model", *names)["file"] == "weights/big.pth"
    assert run("someone/model", *names, offline=True)["file"] == "weights/big.pth"
    error = run("someone/model", "new.safetensors", "newer.safetensors")["error"]
    assert "someone/model has no file new.safetensors or newer.safetensors at revision main" in error


@pytest.mark.parametrize(
    ("repository", "revision", "message"),
    [
        ("someone/other", "main", "has no repository someone/other, or it is private (HTTP 404)"),
        ("someone/model", "v2", "someone/model has no revision 'v2'"),
        ("no such name", "main", "'no such name' is no repository of the hub; expected OWNER/NAME"),
    ],
)
def test_what_is_not_there(run, repository, revision, message):
    assert message in run(repository, "weights/big.pth", revision=revision)["error"]


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (401, {}, "HF_TOKEN"),
        (403, {}, "refuses weights/big.pth of someone/model (HTTP 403)"),
        (403, {"X-Error-Code": "GatedRepo"}, "accept its terms"),
    ],
)
def test_what_needs_a_login(hub, run, status, headers, message):
    hub.status, hub.headers = status, headers
    assert message in run("someone/model", "weights/big.pth")["error"]


def test_a_server_that_tells_no_hash(hub, run):
    hub.headers = {"X-Linked-Etag": '"v1"'}
    error = run("someone/model", "weights/big.pth")["error"]
    assert "nothing says what weights/big.pth of someone/model should hash to" in error
    assert SHA256 in error
    assert run("someone/model", "weights/big.pth", sha256=SHA256)["sha256"] == SHA256


def test_a_cache_without_links(hub, run, tmp_path):
    """As on a file system without symbolic links: the hub is asked for the hash."""
    environment = {"HF_HUB_DISABLE_SYMLINKS": "1"}
    path = Path(run("someone/model", "weights/big.pth", environment=environment)["path"])
    assert not path.is_symlink()
    path.write_bytes(CONTENT[:-1])
    assert "is damaged" in run("someone/model", "weights/big.pth", environment=environment)["error"]
    assert not path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are of Unix")
def test_a_disk_without_room(hub, run, tmp_path):
    """A limit on the size of files stands in for a full disk: writing fails in the middle as it does there."""
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
    error = run("someone/model", "weights/big.pth", code=limit + FETCH)["error"]
    assert "cannot be kept in the cache" in error
    assert "HF_HOME" in error
    assert blobs(tmp_path) == []


@pytest.mark.slow
def test_no_connection(hub, run):
    """The client tries for half a minute before it gives up."""
    error = run("someone/model", "a.safetensors", "b.pth", environment={"HF_ENDPOINT": "http://127.0.0.1:9"})[
        "error"
    ]
    assert "cannot fetch a.safetensors or b.pth of someone/model from http://127.0.0.1:9" in error
    assert "--checkpoint" in error
    run("someone/model", "weights/big.pth")
    got = run("someone/model", "weights/big.pth", environment={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert got["sha256"] == SHA256


def test_no_file_named(run):
    assert "no file of someone/model was named" in run("someone/model")["error"]
