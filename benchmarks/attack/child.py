"""The process in which damaged files are read: it has limits of memory and of time for each file.

Run as ``python -m benchmarks.attack.child KIND FIRST COUNT SEED FOLDER``; `fuzz.attack` starts it. Before
each file it writes its number to ``FOLDER/current``, so that a crash can be repeated, and in the end it
writes what it found to stdout, as JSON.
"""

import json
import logging
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from benchmarks.attack.mutate import mutated
from benchmarks.attack.seeds import seeds
from benchmarks.attack.targets import TARGETS
from benchmarks.harness.memory import memory_mb
from pixelclip_sdk.errors import PixelClipError

__all__ = ["damaged_file", "read_one"]

MAX_CPU_S = 1.0
# A file that is read may have many pixels: an AVIF of 2 kB and 100 megapixels takes 1.5 s, and is read twice.
MAX_READ_CPU_S = 10.0
MAX_MEMORY_MB = 1000.0
# Beyond these the process ends. Address space is larger than memory: libraries reserve it.
_HANG_S = 60
_ADDRESS_SPACE = 12 << 30


def damaged_file(kind: str, number: int, seed: int) -> bytes:
    """Returns the content of a damaged file; the same arguments give the same content."""
    chance = random.Random(f"{seed}/{kind}/{number}")
    whole = seeds(kind)
    return mutated(chance.choice(whole), chance.choice(whole), chance)


def read_one(kind: str, file: Path) -> dict[str, Any]:
    """Reads a file as a user's program would.

    Returns ``outcome``, ``"read"``, ``"refused"`` or ``"fault"``, with the ``error`` if there is one, and CPU
    seconds and the growth of the largest memory in megabytes.
    """
    before = memory_mb("VmRSS")
    _reset_peak()
    start = time.process_time()
    outcome, error = "read", ""
    signal.alarm(_HANG_S)  # Not handled: it ends the process.
    try:
        TARGETS[kind].read(file)
    except PixelClipError as refused:
        outcome, error = "refused", f"{type(refused).__name__}: {refused}"[:300]
    except KeyboardInterrupt:
        raise
    except BaseException as fault:
        outcome, error = "fault", "".join(traceback.format_exception(fault))[-3000:]
    signal.alarm(0)
    cpu_s, grown_mb = time.process_time() - start, memory_mb("VmHWM") - before
    most_s = MAX_READ_CPU_S if outcome == "read" else MAX_CPU_S
    if outcome != "fault" and (cpu_s > most_s or grown_mb > MAX_MEMORY_MB):
        outcome = "fault"
        error = f"it took {cpu_s:.1f} s of a CPU and {grown_mb:.0f} MB; {error}"
    return {"outcome": outcome, "error": error, "cpu_s": cpu_s, "grown_mb": grown_mb}


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("error")  # A warning of a library is noise that a program of ours lets through.
    logging.disable(logging.CRITICAL)


def main() -> None:
    """Reads the files and prints what was found."""
    kind, first, count, seed, folder = (
        sys.argv[1],
        int(sys.argv[2]),
        int(sys.argv[3]),
        int(sys.argv[4]),
        Path(sys.argv[5]),
    )
    file = folder / f"file{TARGETS[kind].suffix}"
    file.write_bytes(seeds(kind)[0])
    TARGETS[kind].read(file)  # Loads libraries, and shows that a whole file is read.
    _limit()
    found: dict[str, Any] = {
        "read": 0,
        "refused": 0,
        "fault": 0,
        "faults": [],
        "most_cpu_s": 0.0,
        "most_mb": 0.0,
    }
    for number in range(first, first + count):
        (folder / "current").write_text(str(number), encoding="ascii")
        file.write_bytes(damaged_file(kind, number, seed))
        one = read_one(kind, file)
        found[one["outcome"]] += 1
        if one["outcome"] == "fault" and len(found["faults"]) < 20:
            found["faults"].append({"number": number, "error": one["error"]})
        found["most_cpu_s"] = max(found["most_cpu_s"], one["cpu_s"])
        found["most_mb"] = max(found["most_mb"], one["grown_mb"])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
