"""Timing in turns: every contender once a round, so that what else the machine does hits all alike."""

import statistics
import time
from collections.abc import Callable, Mapping

__all__ = ["PAUSE_S", "in_turns", "medians"]

PAUSE_S = 0.1
"""Before each turn: a runtime's idle threads spin for a while and would slow down whoever comes next."""

_LEAST = 3  # rounds that a slow contender takes part in, whatever they cost


def in_turns(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warmup: int = 2,
    pause_s: float = PAUSE_S,
    slow_s: float = float("inf"),
) -> dict[str, list[float]]:
    """Milliseconds of each contender's calls, in turns, after rounds of warm-up.

    A turn is two calls, of which the second counts: the first finds caches that another has filled and
    cores that have slept.

    Args:
        contenders: Name → what to time.
        rounds: Measured calls of each.
        warmup: Rounds before them that do not count.
        pause_s: Seconds before each turn.
        slow_s: A contender whose calls take longer, in seconds, takes part in 3 rounds only. All others take
            part in every round: medians of different rounds do not compare.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(warmup + rounds):
        for name, run in contenders.items():
            times = samples[name]
            if len(times) >= _LEAST and min(times) > slow_s * 1e3:
                continue
            time.sleep(pause_s)
            run()
            start = time.perf_counter()
            run()
            if i >= warmup:
                times.append((time.perf_counter() - start) * 1e3)
    return samples


def medians(samples: Mapping[str, list[float]]) -> dict[str, float]:
    """Median of each contender's samples."""
    return {name: statistics.median(values) for name, values in samples.items()}
