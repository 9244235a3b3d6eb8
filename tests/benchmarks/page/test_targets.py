import pytest

from benchmarks.harness.results import RESULTS, load_other_machines, load_results
from benchmarks.page.targets import TARGETS, Target, find, rows

SHARE = "pixelclip-lite, 640×480, 20 classes, encoder's share of the time: at least 75.0%"


def latency(inference):
    return {"lite-latency": {"stages": {"inference": {"p50": inference}, "total": {"p50": 10.0}}}}


def test_limits_are_the_most_or_the_least():
    least, most = Target("a", "r", (), 3), Target("a", "r", (), 3, most=True)
    assert [least.reached(value) for value in (2.9, 3, 3.1)] == [False, True, True]
    assert [most.reached(value) for value in (2.9, 3, 3.1)] == [True, True, False]
    assert (least.asked, most.asked) == ("at least 3.00×", "at most 3.00×")


def test_a_path_leads_through_dicts_and_to_the_matching_entry_of_a_list():
    content = {"cases": [{"name": "a", "rows": {"ms": 1}}, {"name": "b", "rows": {"ms": 2}}]}
    assert find(content, ("cases", {"name": "b"}, "rows", "ms")) == 2
    assert find(content, ("cases", {"name": "c"}, "rows", "ms")) is None
    assert find(None, ("cases",)) is None


@pytest.mark.parametrize(("inference", "text"), [(7.5, "75.0% reached"), (7.4, "74.0% **missed**")])
def test_a_verdict_is_about_the_number_in_the_result(inference, text):
    table = {row["target"]: row for row in rows(latency(inference), {})}
    row = table.pop(SHARE)
    assert (row["this machine"], row["result"]) == (text, "lite-latency")
    assert all(other["this machine"] is None for other in table.values())
    assert len(table) == len(TARGETS) - 1


def test_other_machines_have_columns():
    table = {row["target"]: row for row in rows(latency(8.0), {"other": latency(6.0)})}
    row = table.pop(SHARE)
    assert (row["this machine"], row["other"]) == ("80.0% reached", "60.0% **missed**")
    assert {row["other"] for row in table.values()} == {None}


def test_every_number_is_in_this_repositorys_results():
    found = rows(load_results(RESULTS), load_other_machines(RESULTS))
    assert not [row["target"] for row in found if row["this machine"] is None]
    assert {"epyc-vnni", "xeon-amx"} < found[0].keys()
