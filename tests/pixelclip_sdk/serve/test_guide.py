"""The commands, code and names of docs/serve.md, with a real server."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
from pixelclip_sdk.serve.config import Limits

GUIDE = (Path(__file__).parents[3] / "docs" / "serve.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.M | re.S)


@pytest.fixture
def folder(tmp_path, cat, monkeypatch):
    (tmp_path / "photo.jpg").write_bytes(cat)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("code", blocks("py"))
def test_the_python_code_runs(server, code):
    code = code.replace(":8000", f":{server.port}")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "'cat'" in result.stdout


@pytest.mark.parametrize("command", [line for block in blocks("sh") for line in block.splitlines()])
def test_the_commands_run(server, folder, command):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = command.replace(":8000", f":{server.port}").replace(
        "curl ", "curl --fail --silent --show-error "
    )
    result = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60)
    assert result.returncode == 0, result.stderr
    written = re.search(r" -o (\S+)", command)
    answer = (folder / written[1]).read_bytes() if written else result.stdout
    assert answer[:2] == b"\xff\xd8" if ".jpg " in command.partition(" -o ")[2] else b"names" in answer


def test_the_metrics_exist(server, cat):
    assert server.form([("image", "a", cat)]).status == 200
    text = server.ask("GET", "/metrics").body.decode()
    named = set(re.findall(r"`(pixelclip_\w+)`", GUIDE))
    assert len(named) >= 12
    exposed = set(re.findall(r"^# TYPE (\w+) ", text, re.M))
    assert named <= exposed
    assert {
        name for name in exposed if name.startswith("pixelclip_") and not name.endswith("_created")
    } == named


def test_the_limits_are_those_of_the_server():
    limits, table = Limits(), GUIDE.partition("## Limits")[2].partition("The command has")[0]
    assert limits.body_bytes == 32 << 20
    assert limits.buffered_bytes == 256 << 20
    assert "32 MiB; 256 MiB" in table
    assert f"| {limits.message_bytes >> 20} MiB |" in table
    assert f"{limits.pixels // 1_000_000} million" in table
    assert f"| {limits.workers}; {limits.waiting} |" in table
    assert f"| {limits.deadline_s:g} s, {limits.head_s:g} s, {limits.body_s:g} s |" in table
    assert f"| {limits.connections}; {limits.viewers} |" in table
    for value in (limits.images, limits.words, limits.messages_per_s, limits.vocabularies):
        assert f"| {value:g}" in table
