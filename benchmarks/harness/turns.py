"""Round-robin timing: other load on the machine affects all contenders alike."""

import statistics
import time
from collections.abc import Callable, Mapping


def in_turns(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warmup: int = 2,
    pause_s: float = 0.1,
    slow_s: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time every contender once a round; returns milliseconds by name.

    A turn is two calls. Only the second is timed, because the first has cold caches and sleeping cores.
    The pause before it lets idle threads of other runtimes stop spinning. Contenders that take longer than
    `slow_s` seconds stop after 3 rounds. `clock` returns seconds; `time.thread_time` leaves out the work
    of other processes, for contenders of one thread.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(warmup + rounds):
        for name, run in contenders.items():
            times = samples[name]
            if len(times) >= 3 and min(times) > slow_s * 1e3:
                continue
            time.sleep(pause_s)
            run()
            start = clock()
            run()
            if i >= warmup:
                times.append((clock() - start) * 1e3)
    return samples


def medians(samples: Mapping[str, list[float]]) -> dict[str, float]:
    """Returns the median of each contender's samples."""
    return {name: statistics.median(values) for name, values in samples.items()}
