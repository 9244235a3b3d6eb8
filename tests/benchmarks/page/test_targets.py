import json

import pytest

from benchmarks.harness.stored import RESULTS, Results
from benchmarks.page.targets import TARGETS, Target, rows


def test_limits_are_the_most_or_the_least():
    least, most = Target("a", "r", float, 3), Target("a", "r", float, 3, most=True)
    assert [least.reached(value) for value in (2.9, 3, 3.1)] == [False, True, True]
    assert [most.reached(value) for value in (2.9, 3, 3.1)] == [True, True, False]
    assert (least.asked, most.asked) == ("at least 3.00×", "at most 3.00×")


@pytest.mark.parametrize(("inference", "verdict"), [(7.5, "reached"), (7.4, "**missed**")])
def test_a_verdict_is_of_the_number_in_the_result(tmp_path, inference, verdict):
    stages = {"inference": {"p50": inference}, "total": {"p50": 10.0}}
    (tmp_path / "lite-latency.json").write_text(json.dumps({"stages": stages}))
    table = {row[0].partition(":")[0]: row for row in rows(Results(tmp_path))}
    row = table["everything but the encoder, pixelclip-lite, 640×480, 20 classes"]
    assert row[1:] == [f"{1 - inference / 10:.1%}", verdict, "lite-latency"]
    others = [other for other in table.values() if other is not row]
    assert all(other[1:3] == ["–", "not measured"] for other in others)
    assert len(rows(Results(tmp_path))) == len(TARGETS)


def test_what_another_processor_reached_stands_beside(tmp_path):
    for folder, share in ((tmp_path, 8.0), (tmp_path / "other", 6.0)):
        folder.mkdir(exist_ok=True)
        stages = {"inference": {"p50": share}, "total": {"p50": 10.0}}
        (folder / "lite-latency.json").write_text(json.dumps({"stages": stages}))
    results = Results(tmp_path)
    assert [*results.kept()] == ["other"]
    table = {row[0].partition(":")[0]: row for row in rows(results, [*results.kept().values()])}
    row = table.pop("everything but the encoder, pixelclip-lite, 640×480, 20 classes")
    assert row[1:] == ["20.0%", "reached", "40.0% **missed**", "lite-latency"]
    assert all(other[1:4] == ["–", "not measured", "–"] for other in table.values())


def test_every_number_is_found_in_this_repositorys_results():
    missing = [target for target, row in zip(TARGETS, rows(Results(RESULTS)), strict=True) if row[1] == "–"]
    assert not missing
