import sys

import pytest

from benchmarks.all import commands
from benchmarks.harness.results import (
    ACCURACIES,
    COMMANDS,
    DECISIONS,
    RESULTS,
    ROOT,
    command_line,
    command_of,
    command_parser,
    load_results,
    store,
)
from pixelclip_sdk import Bundle
from pixelclip_sdk.models import BUNDLED


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["benchmarks/latency.py", "--runs", "200"], "benchmarks/latency.py --runs 200"),
        ([str(ROOT / "benchmarks" / "video.py"), "--draw"], "benchmarks/video.py --draw"),
        (["x.py", "--camvid", "/data/camvid", "--rounds=6"], "x.py --camvid CAMVID --rounds 6"),
        (["x.py", "--json", str(RESULTS / "a.json")], "x.py --json benchmarks/results/a.json"),
        (
            ["x.py", "--named=/a/b", "/a/1.jpg", "/a/2.jpg", "--runs", "3"],
            "x.py --named NAMED PHOTOS --runs 3",
        ),
        (["x.py", "--model", "pixelclip-lite"], "x.py --model pixelclip-lite"),
    ],
)
def test_commands_name_no_place_of_this_machine(arguments, expected, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert command_line(arguments) == f"python {expected}"


def test_a_result_has_the_command_that_made_it(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["benchmarks/latency.py", "--runs", "7", "--json", "out.json"])
    store(tmp_path / "lite-latency.json", {"runs": 7, "environment": {"gpu": "none"}})
    expected = "python benchmarks/latency.py --runs 7 --json out.json"
    results = load_results(tmp_path)
    content = results["lite-latency"]
    assert (content["command"], content["runs"]) == (expected, 7)
    assert content["environment"]["threads"] >= 1
    assert content["environment"]["gpu"] == "none"
    assert command_of(results, "lite-latency") == expected
    assert command_of(results, "lite-video") == COMMANDS["lite-video"]


def test_without_a_file_nothing_is_stored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = command_parser("First line.\n\nMore.", runs=7).parse_args([])
    assert (options.json, options.runs) == (None, 7)
    store(options.json, {"runs": 7})
    assert not list(tmp_path.iterdir())


def test_all_commands_run_files_that_are_there_with_the_folders_that_were_given(tmp_path):
    made = commands({"PHOTOS": tmp_path / "photos", "CAMVID": tmp_path / "camvid"}, python="py")
    assert made.keys() == (COMMANDS.keys() | ACCURACIES.keys() | DECISIONS.keys()) - {"gpu-latency"}
    for name, (python, file, *rest) in made.items():
        assert python == "py"
        assert (ROOT / file).is_file()
        assert rest[-2:] == ["--json", f"benchmarks/results/{name}.json"]
        assert not {"PHOTOS", "CAMVID"} & set(rest)
    assert str(tmp_path / "camvid") in made["scaling"]


@pytest.mark.parametrize("name", ACCURACIES)
def test_accuracies_are_those_of_the_bundle_that_ships(name):
    files = Bundle.open(BUNDLED / "pixelclip-lite").files
    assert load_results(RESULTS)[name]["files"] == {file: entry["sha256"] for file, entry in files.items()}
