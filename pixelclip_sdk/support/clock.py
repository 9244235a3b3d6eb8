"""Timing of stages."""

import time


class Clock:
    """Milliseconds between laps."""

    def __init__(self, laps: dict[str, float] | None = None) -> None:
        self.laps = {} if laps is None else laps
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Record the milliseconds since the last lap, or since the start, as `stage`."""
        now = time.perf_counter()
        self.laps[stage] = (now - self._last) * 1e3
        self._last = now
