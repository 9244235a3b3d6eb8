"""`pixelclip batch`: what it prints, and that a killed run can be continued."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pixelclip_sdk.cli.main import main

pytest.importorskip("pyarrow")
pytest.importorskip("fsspec")
PHOTOS = Path(__file__).parents[3] / "examples" / "photos"
WORDS = ["--classes", "cat, sofa"]


def test_the_summary_and_json(tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(PHOTOS / "chelsea.jpg", photos)
    (photos / "bad.jpg").write_bytes(b"no picture")
    command = ["batch", str(photos), *WORDS, "--out", str(tmp_path / "out")]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("2 of 2 pictures, 1 with an error; ")
    assert printed.out.endswith(f" a second → {tmp_path / 'out'}\n")
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["pictures"], document["kept"], document["failed"]) == (2, 2, 0)


def test_no_picture_at_all_is_a_failure(tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    assert main(["batch", str(tmp_path / "bad.jpg"), *WORDS, "--out", str(tmp_path / "out")]) == 1
    assert "1 with an error" in capsys.readouterr().out


def test_without_its_extra_the_verb_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert main(["batch", str(PHOTOS), *WORDS, "--out", str(tmp_path / "out")]) == 1
    assert 'Install it: pip install "pixelclip-sdk[batch]"' in capsys.readouterr().err


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("part-*.parquet")}


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_killed_run_is_continued_without_a_gap(tmp_path, spawn, number, photo):
    from PIL import Image

    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(24):
        Image.fromarray(photo[i : i + 240]).save(photos / f"{i}.jpg")
    command = [sys.executable, "-m", "pixelclip_sdk", "batch", str(photos), *WORDS, "--shard-size", "4"]
    process = spawn([*command, "--out", str(tmp_path / "out")], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not content(tmp_path / "out" / "results"):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert len(content(tmp_path / "out" / "results")) < 6
    assert main([*command[3:], "--out", str(tmp_path / "out")]) == 0
    assert main([*command[3:], "--out", str(tmp_path / "whole")]) == 0
    assert content(tmp_path / "out" / "results") == content(tmp_path / "whole" / "results")
    names = {f"part-0000{i}.parquet" for i in range(6)}
    assert {path.name for path in (tmp_path / "out" / "results").iterdir()} == names
    assert {path.name for path in (tmp_path / "out" / "timings").iterdir()} == names
