import time

from benchmarks.harness.turns import in_turns, medians


def test_every_contender_has_its_turn_and_warm_up_does_not_count():
    calls = []
    samples = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 5, pause_s=0)
    assert calls == ["a", "a", "b", "b"] * 7  # the second of each pair counts
    assert [len(times) for times in samples.values()] == [5, 5]
    assert medians({"a": [3.0, 1.0, 2.0]}) == {"a": 2.0}


def test_slow_contenders_take_part_in_three_rounds_and_others_in_all():
    samples = in_turns(
        {"slow": lambda: time.sleep(0.01), "quick": lambda: None}, 6, warmup=0, pause_s=0, slow_s=0.009
    )
    assert len(samples["slow"]) == 3
    assert len(samples["quick"]) == 6
    assert min(samples["slow"]) >= 10
