"""The process: start, stop, addresses, token, logs, metrics, documentation."""

import asyncio
import contextlib
import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from pixelclip_sdk.serve.config import ServeConfig
from pixelclip_sdk.serve.server import listen

TOKEN = "a-token-of-24-characters"


def pixelclip(*arguments: str, env: dict | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pixelclip_sdk", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)


def test_it_starts_and_says_where(server):
    assert server.host == "127.0.0.1"
    assert server.ask("GET", "/healthz").json() == {"status": "ok", "waiting": 0, "running": 0}
    page = server.ask("GET", "/")
    assert page.status == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]


def test_a_slow_machine_starts_late_but_starts(start):
    with start(deadline_s=0.001) as server:  # Warming up is not a request.
        assert server.ask("GET", "/healthz").status == 200


def test_small_packets_are_sent_at_once():
    """Otherwise the body of an answer waits 40 ms, until the client has confirmed the head."""

    async def accepted() -> int:
        link = asyncio.get_running_loop().create_future()
        with listen(ServeConfig(port=0)) as listener, socket.create_connection(listener.getsockname()):
            async with await asyncio.start_server(lambda _, writer: link.set_result(writer), sock=listener):
                writer = await link
                connection = writer.get_extra_info("socket")
                set_ = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                writer.close()
                await writer.wait_closed()
        return set_

    assert asyncio.run(accepted())


def test_an_idle_connection_stays_open(server):
    """uvicorn alone closes it after five seconds, and a request that is on its way then is lost."""
    with contextlib.closing(http.client.HTTPConnection(server.host, server.port, timeout=20)) as link:
        link.request("GET", "/healthz")
        link.getresponse().read()
        used = link.sock
        time.sleep(6)
        link.request("GET", "/healthz")
        assert link.getresponse().status == 200
        assert link.sock is used


def test_the_documentation_loads_nothing_from_elsewhere(server):
    page = server.ask("GET", "/docs")
    assert page.status == 200
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    assert len(loaded) == 3
    for address in loaded:
        assert not re.match(r"(\w+:)?//", address)
        assert server.ask("GET", f"/{address}").status == 200
    described = server.ask("GET", "/openapi.json").json()
    assert {"/v1/segment", "/v1/vocabularies", "/v1/models"} <= described["paths"].keys()


def test_metrics_are_those_of_prometheus(server, cat):
    assert server.form([("image", "cat.jpg", cat)]).status == 200
    assert server.ask("GET", "/nowhere").status == 404
    reply = server.ask("GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    lines = dict(re.findall(r"^(\S+) (\S+)$", reply.body.decode(), re.M))
    assert float(lines['pixelclip_frames_total{model="pixelclip-lite",stream="http"}']) >= 1
    assert float(lines['pixelclip_requests_total{method="POST",route="/v1/segment",status="200"}']) >= 1
    assert float(lines['pixelclip_errors_total{code="not_found"}']) >= 1
    stages = set(re.findall(r'pixelclip_stage_seconds_count\{model="[^"]+",stage="(\w+)"\}', str(lines)))
    assert stages >= {"decode", "inference", "encode"}
    assert float(lines["pixelclip_waiting"]) == 0


def test_logs_are_json_with_the_id_that_the_client_sent(server):
    assert (
        server.ask("GET", "/healthz", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    )
    other = server.ask("GET", "/v1/models").headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", other)
    time.sleep(0.1)
    lines = {record.get("id"): record for record in server.records() if record.get("event") == "request"}
    assert (lines["mine-1"]["path"], lines["mine-1"]["status"]) == ("/healthz", 200)
    assert lines[other]["method"] == "GET"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", lines[other]["time"])


def test_unknown_addresses_and_methods_are_json_too(server):
    missing, wrong = server.ask("GET", "/v1/nothing"), server.ask("DELETE", "/v1/models")
    assert (missing.status, missing.code) == (404, "not_found")
    assert (wrong.status, wrong.code, wrong.headers["allow"]) == (405, "method_not_allowed", "GET")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_lets_running_requests_end(start, cat, number):
    with start("--classes", "cat, sofa") as server:
        replies = []
        body, kind = server.multipart([("images", f"{i}.jpg", cat) for i in range(8)])

        def ask():
            replies.append(server.ask("POST", "/v1/segment", body, {"Content-Type": kind}))

        thread = threading.Thread(target=ask)
        thread.start()
        while server.ask("GET", "/healthz").json()["running"] == 0:
            assert thread.is_alive()
        assert server.stop(number) == 0
        thread.join()
        assert replies[0].status == 200
        assert len(replies[0].json()["results"]) == 8
        with pytest.raises(ConnectionError):
            server.ask("GET", "/healthz")


def test_a_taken_port_and_numbers_that_are_none(server):
    taken = pixelclip("--port", str(server.port))
    assert taken.returncode == 1
    assert taken.stderr.startswith(f"pixelclip: cannot listen on 127.0.0.1, port {server.port}: ")
    none = pixelclip("--port", "70000")
    assert none.returncode == 1
    assert "port 70000" in none.stderr
    assert "Traceback" not in none.stderr + taken.stderr


def test_other_machines_need_a_token(tmp_path):
    refused = pixelclip("--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 1
    assert "--insecure" in refused.stderr
    weak = tmp_path / "token"
    weak.write_text("short\n")
    refused = pixelclip("--token-file", str(weak))
    assert refused.returncode == 1
    assert "at least 16" in refused.stderr
    refused = pixelclip("--token-file", "the-token-itself")
    assert refused.returncode == 1
    assert "takes a file; the token itself can be in the variable PIXELCLIP_TOKEN" in refused.stderr


@pytest.fixture(scope="module")
def guarded(start):
    with start("--host", "0.0.0.0", env={"PIXELCLIP_TOKEN": TOKEN}) as server:
        yield server


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer \xe4\xf6\xfc"},
        {"Authorization": "Bearer " + "x" * 10_000},
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/v1/nothing"])
def test_without_the_token_nothing_is_answered(guarded, header, path):
    reply = guarded.ask("GET", path, headers=header)
    assert (reply.status, reply.code, reply.headers["www-authenticate"]) == (401, "unauthorized", "Bearer")
    assert TOKEN not in reply.body.decode()


def test_with_the_token_everything_is(guarded):
    for scheme in ("Bearer", "bearer"):
        header = {"Authorization": f"{scheme} {TOKEN}", "Host": "segment.example.com"}
        assert guarded.ask("GET", "/v1/models", headers=header).status == 200
        assert guarded.ask("GET", "/metrics", headers=header).status == 200


def test_the_address_that_it_prints_can_be_opened(guarded):
    assert guarded.host == "localhost"


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/healthz"])
def test_the_page_and_the_health_need_no_token(guarded, path):
    assert guarded.ask("GET", path).status == 200


@pytest.mark.parametrize(
    "path", ["/static/../v1/models", "/static/%2e%2e/v1/models", "//v1/models", "/V1/models"]
)
def test_no_spelling_goes_around_the_token(guarded, path):
    assert guarded.ask("GET", path).status in (401, 404)


@pytest.mark.parametrize("host", ["evil.example.com", "127.evil.example.com", "127.0.0.1.evil.example.com"])
def test_a_name_that_only_looks_local_is_refused(server, host):
    """A page whose name points to this machine would else use a server without a token."""
    assert server.ask("GET", "/v1/models", headers={"Host": host}).status == 403


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.2", "[::1]:80", "LOCALHOST"])
def test_names_of_this_machine_are_answered(server, host):
    assert server.ask("GET", "/v1/models", headers={"Host": host}).status == 200


@pytest.mark.parametrize("host", ["[::1", "a b", "\xe4", "@", ":"])
def test_what_is_no_address_is_the_client_s_mistake(server, host):
    assert 400 <= server.ask("GET", "/v1/models", headers={"Host": host}).status < 404 or host in ("@", ":")


@pytest.mark.parametrize("origin", ["http://evil.example.com", "null", "http://127.0.0.1:1", "[", ""])
def test_pages_of_other_sites_are_refused(server, origin):
    reply = server.ask("POST", "/v1/vocabularies", b'{"words": "cat"}', {"Origin": origin})
    assert reply.status in (400, 403)
    own = {"Origin": f"http://{server.host}:{server.port}", "Content-Type": "application/json"}
    allowed = server.ask("POST", "/v1/vocabularies", b'{"words": "cat, sofa"}', own)
    assert allowed.status == 200
    assert "access-control-allow-origin" not in {name.lower() for name in allowed.headers}


def test_a_second_model_is_chosen_by_name(start, cat, lite, tmp_path):
    import json
    import shutil

    other = tmp_path / "other"
    shutil.copytree(lite.bundle.path, other)
    manifest = json.loads((other / "bundle.json").read_text())
    (other / "bundle.json").write_text(json.dumps({**manifest, "name": "other"}))
    with start("--model", "pixelclip-lite", "--model", str(other), "--classes", "cat, sofa") as server:
        models = server.ask("GET", "/v1/models").json()["models"]
        assert [(model["name"], model["default"]) for model in models] == [
            ("pixelclip-lite", True),
            ("other", False),
        ]
        for name in ("pixelclip-lite", "other"):
            value = {"image": server.encoded(cat), "model": name}
            assert server.post("/v1/segment", value).json()["model"] == name
        assert server.post("/v1/segment", {"image": server.encoded(cat), "model": "x"}).status == 404


def test_the_same_model_twice_is_refused():
    refused = pixelclip("--model", "pixelclip-lite", "--model", "pixelclip-lite")
    assert refused.returncode == 1
    assert "the same name" in refused.stderr


def test_it_listens_on_ipv6():
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    command = [sys.executable, "-m", "pixelclip_sdk", "serve", "--host", "::1", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert re.match(r"open http://\[::1\]:\d+ in a browser", process.stdout.readline())
    finally:
        process.terminate()
        assert process.wait(30) == 0
        process.stdout.close()
