import json

import pytest

from benchmarks.check import main


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command on two contents, with more arguments; gives its exit code."""

    def command(before, after, *more):
        paths = [tmp_path / "before.json", tmp_path / "after.json"]
        for path, content in zip(paths, (before, after), strict=True):
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.setattr("sys.argv", ["check.py", *map(str, paths), *more])
        try:
            return main()
        except SystemExit as error:
            return error.code

    return command


def result(cpu="one", **ratios):
    return {"ratios": ratios, "environment": {"cpu": cpu}}


def test_fallen_ratios_come_first_and_are_sorted(run, capsys):
    assert run(result(b=1.0, a=1.0, d=1.0, c=1.0), result(b=0.1, a=0.1, c=1.0)) == 1
    names = [line.split()[1] for line in capsys.readouterr().out.splitlines()[2:5]]
    assert names == ["a", "b", "c"]


def test_what_fell_by_more_than_the_tolerance_fails_by_name(run, capsys):
    before = result(encoder=2.0, decode=1.0, labels=10.0)
    assert run(before, result(encoder=1.5, decode=0.81, labels=30.0)) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[2].split() == ["|", "encoder", "|", "2.000", "|", "1.500", "|", "-25.0%", "|", "WORSE", "|"]
    assert [line.split()[1] for line in shown[3:5]] == ["decode", "labels"]
    assert not any("WORSE" in line for line in shown[3:5])
    assert shown[5] == "1 of 3 ratios fell by more than 20%"


def test_the_tolerance_is_a_share(run):
    before, after = result(a=2.0), result(a=1.5)
    assert run(before, after, "--tolerance", "0.3") == 0
    assert run(before, after, "--tolerance", "0.25") == 0
    assert run(before, after, "--tolerance", "0.24") == 1
    assert run(before, before, "--tolerance", "0") == 0
    assert run(before, after, "--tolerance", "20") == 2


def test_missing_and_new_ratios_are_reported_and_do_not_fail(run, capsys):
    assert run(result(a=1.0, gone=2.0), result(a=1.0, come=2.0)) == 0
    shown = capsys.readouterr().out
    assert "missing in the newer result: gone" in shown
    assert "new: come" in shown
    assert "processors" not in shown


def test_another_processor_is_reported(run, capsys):
    assert run(result(a=1.0), result("two", a=1.0)) == 0
    assert "different processors, ratios may differ: one, now two" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (result(a=1.0), result(b=1.0), "no ratio in common"),
        (result(a=1.0), {"ms": 3}, 'after.json has no "ratios"'),
        (result(a=0), result(a=1.0), "before.json: the ratio 'a' is 0"),
        (result(a=1.0), result(a=float("nan")), "the ratio 'a' is nan"),
        ("{", result(a=1.0), "before.json cannot be read as JSON"),
    ],
)
def test_nothing_to_compare_is_not_success(run, capsys, before, after, message):
    assert run(before, after) == 2
    assert message in capsys.readouterr().err
