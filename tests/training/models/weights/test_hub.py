"""The real client against a server of our own that speaks the part of the hub's protocol that it uses."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, Handler, Hub, serve

ROOT = Path(__file__).parents[4]
CONTENT = bytes(range(256)) * 40_000  # 10 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SMALL = b'{"small": "kept in git"}'
# Answers one line with arguments of `fetch` by one line with its result, until there are no more.
FETCH = """
import json, sys, dataclasses
from pixelclip_sdk.errors import CheckpointError
from training.models.weights.hub import fetch
for line in sys.stdin:
    arguments, options = json.loads(line)
    try:
        answer = dataclasses.asdict(fetch(*arguments, **options))
    except CheckpointError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer, default=str), flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[type[Handler]]:
    with serve() as handler:
        yield handler


@pytest.fixture(autouse=True)
def hub(server: type[Handler]) -> Hub:
    server.hub = Hub({"weights/big.pth": CONTENT, "config.json": SMALL})
    return server.hub


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def start(server: type[Handler], home: Path):
    """Starts a process for the client, since it reads its environment when it is imported."""

    def start(code: str = FETCH, **environment: str) -> subprocess.Popen[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
        ours = {"HF_ENDPOINT": f"http://127.0.0.1:{server.port}", "HF_HOME": str(home)}
        ours |= {"PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_TELEMETRY": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env=clean | ours | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="module")
def client(start) -> Iterator[subprocess.Popen[str]]:
    with start() as process:
        yield process


@pytest.fixture
def run(home: Path, start, client):
    """Calls `fetch` in the client's process or, with other code or variables, in one of its own."""
    shutil.rmtree(home / "hub", ignore_errors=True)

    def run(*arguments: str, code: str = FETCH, environment: dict[str, str] | None = None, **options):
        question = json.dumps([arguments, options])
        if code == FETCH and environment is None:
            print(question, file=client.stdin, flush=True)
            return json.loads(client.stdout.readline())
        with start(code, **(environment or {})) as process:
            answer, _ = process.communicate(question, timeout=120)
        return json.loads(answer)

    return run


def blobs(home: Path) -> list[str]:
    """Names of the contents in the cache, whole or not."""
    return sorted(path.name for path in home.glob("hub/models--someone--model/blobs/*"))


def test_a_file_arrives_whole_with_its_provenance(hub, run, home):
    got = run("someone/model", "weights/big.pth")
    assert Path(got["path"]).read_bytes() == CONTENT
    assert got["repository"] == "someone/model"
    assert got["file"] == "weights/big.pth"
    assert got["revision"] == COMMIT
    assert got["sha256"] == SHA256
    assert blobs(home) == [SHA256]
    assert hub.gets() == [None]  # asked at the address that HF_ENDPOINT names, for all of it

    again = run("someone/model", "weights/big.pth", sha256=SHA256.upper())
    assert again == got
    assert len(hub.gets()) == 1  # from the cache


def test_a_small_file_is_checked_against_gits_hash(run, home):
    got = run("someone/model", "config.json")
    assert got["sha256"] == hashlib.sha256(SMALL).hexdigest()
    Path(got["path"]).write_bytes(SMALL.replace(b"git", b"got"))
    assert "config.json of someone/model is damaged" in run("someone/model", "config.json")["error"]
    assert blobs(home) == []


def test_a_broken_connection_is_taken_up_where_it_broke(hub, run):
    chunk = 10 * 1024 * 1024  # the client writes by such chunks; what it has of a further one comes again
    hub.files["weights/big.pth"] = content = CONTENT * 2
    hub.cut_at = chunk + 3_000_000
    got = run("someone/model", "weights/big.pth")
    assert Path(got["path"]).read_bytes() == content
    assert hub.gets() == [None, f"bytes={chunk}-"]


@pytest.mark.parametrize("late", ["as it was", "too long", "damaged"])
def test_a_killed_download_goes_on_in_the_next_process(hub, run, start, home, late):
    chunk = 10 * 1024 * 1024
    hub.files["weights/big.pth"] = content = CONTENT * 2
    name = hashlib.sha256(content).hexdigest()
    part = home / "hub" / "models--someone--model" / "blobs" / f"{name}.part"
    hub.stall_at = chunk + 3_000_000
    with start() as process:
        print(json.dumps([["someone/model", "weights/big.pth"], {}]), file=process.stdin, flush=True)
        deadline = time.monotonic() + 60
        while (not part.exists() or part.stat().st_size < chunk) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    hub.go_on.set()
    assert blobs(home) == [part.name]
    assert part.stat().st_size == chunk
    if late == "too long":
        part.write_bytes(content + b"more")
    elif late == "damaged":
        part.write_bytes(b"x" * chunk)
    got = run("someone/model", "weights/big.pth")
    assert hub.gets() == [None, None if late == "too long" else f"bytes={chunk}-"]
    if late == "damaged":
        assert "is damaged" in got["error"]
        assert blobs(home) == []
        got = run("someone/model", "weights/big.pth")
    assert Path(got["path"]).read_bytes() == content
    assert blobs(home) == [name]


def test_damaged_content_is_refused_and_not_kept(hub, run, home):
    hub.damage = True
    error = run("someone/model", "weights/big.pth")["error"]
    assert "weights/big.pth of someone/model is damaged" in error
    assert SHA256 in error
    assert "run again" in error
    assert blobs(home) == []

    hub.damage = False
    assert run("someone/model", "weights/big.pth")["sha256"] == SHA256


def test_a_cached_file_that_went_bad_is_found_out_offline_too(run):
    path = Path(run("someone/model", "weights/big.pth")["path"])
    with path.open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"\xff\xfe")
    assert "is damaged" in run("someone/model", "weights/big.pth", offline=True)["error"]
    assert not path.is_symlink()
    assert "is not in the cache" in run("someone/model", "weights/big.pth", offline=True)["error"]


def test_an_expected_hash_that_differs_is_an_error_and_the_file_stays(run, home):
    error = run("someone/model", "weights/big.pth", sha256="0" * 64)["error"]
    assert SHA256 in error
    assert "expected 000" in error
    assert COMMIT in error
    assert blobs(home) == [SHA256]


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


def test_the_first_file_that_exists_is_taken(run):
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
        ("no such name", "main", "'no such name' is not a repository of the hub; expected OWNER/NAME"),
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
    assert "the hash of weights/big.pth of someone/model is not known" in error
    assert SHA256 in error
    assert run("someone/model", "weights/big.pth", sha256=SHA256)["sha256"] == SHA256
    assert "is damaged" in run("someone/model", "weights/big.pth", sha256="0" * 64)["error"]


def test_a_cache_without_links(run):
    """As on a file system without symbolic links: the hub is asked for the hash."""
    environment = {"HF_HUB_DISABLE_SYMLINKS": "1"}
    path = Path(run("someone/model", "weights/big.pth", environment=environment)["path"])
    assert not path.is_symlink()
    path.write_bytes(CONTENT[:-1])
    assert "is damaged" in run("someone/model", "weights/big.pth", environment=environment)["error"]
    assert not path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are of Unix")
def test_a_disk_without_room(run, home):
    """A limit on the size of files stands in for a full disk: writing fails in the middle, as there."""
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
    error = run("someone/model", "weights/big.pth", code=limit + FETCH)["error"]
    assert "cannot be kept in the cache" in error
    assert "HF_HOME" in error
    assert blobs(home) == []


def test_without_a_connection_it_fails_at_once_and_names_the_address(run):
    start = time.monotonic()
    error = run("someone/model", "a.safetensors", "b.pth", environment={"HF_ENDPOINT": "http://127.0.0.1:9"})[
        "error"
    ]
    assert time.monotonic() - start < 15  # Most of it imports; huggingface_hub alone retries for 28 s.
    assert "cannot download a.safetensors or b.pth of someone/model from http://127.0.0.1:9" in error
    assert "download http://127.0.0.1:9/someone/model/resolve/main/a.safetensors elsewhere" in error
    assert "--checkpoint FILE (train.py: checkpoint=FILE)" in error
    run("someone/model", "weights/big.pth")
    got = run("someone/model", "weights/big.pth", environment={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert got["sha256"] == SHA256


def test_no_file_named(run):
    assert "no file of someone/model was named" in run("someone/model")["error"]


def test_another_file_than_at_the_first_use_is_refused_until_the_record_is_removed(hub, run, home):
    record = home / "hub" / "models--someone--model" / "first-use.json"
    run("someone/model", "weights/big.pth")
    assert json.loads(record.read_text()) == {
        "main weights/big.pth": {"sha256": SHA256, "commit": COMMIT},
    }
    shutil.rmtree(home / "hub" / "models--someone--model" / "snapshots")  # As after a new download elsewhere.
    hub.files["weights/big.pth"] = other = CONTENT[::-1]
    sha256 = hashlib.sha256(other).hexdigest()
    for offline in (False, True):
        error = run("someone/model", "weights/big.pth", offline=offline)["error"]
        assert f"its SHA-256 was {SHA256}" in error
        assert f"now it is {sha256}" in error
        assert f"remove {record}" in error
    # A pinned hash or commit needs no record.
    assert run("someone/model", "weights/big.pth", sha256=sha256)["sha256"] == sha256
    assert run("someone/model", "weights/big.pth", revision=COMMIT)["sha256"] == sha256
    record.unlink()
    assert run("someone/model", "weights/big.pth")["sha256"] == sha256
    assert json.loads(record.read_text())["main weights/big.pth"]["sha256"] == sha256


def test_a_record_that_cannot_be_read_is_refused(run, home):
    run("someone/model", "weights/big.pth")
    record = home / "hub" / "models--someone--model" / "first-use.json"
    record.write_text("{")
    assert f"{record} cannot be read" in run("someone/model", "weights/big.pth")["error"]


@pytest.mark.parametrize("content", ["[]", "3", '{"main weights/big.pth": {}}', '{"other": null}'])
def test_a_record_of_another_form_is_refused(run, home, content):
    run("someone/model", "weights/big.pth")
    record = home / "hub" / "models--someone--model" / "first-use.json"
    record.write_text(content)
    error = run("someone/model", "weights/big.pth")["error"]
    assert f"{record} cannot be read: it does not have a hash and a commit for each file" in error
