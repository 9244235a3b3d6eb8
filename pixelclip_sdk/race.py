"""Time the engines of a CPU on a bundle: ``python -m pixelclip_sdk.race FOLDER ENGINE…``.

`pixelclip_sdk.backends.fastest` starts it as a process of its own, because an engine may end its process. A
line of JSON says which engine is tried next, and the last one has the result.
"""

import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pixelclip_sdk.agreement import Samples, gate
from pixelclip_sdk.backends.base import Backend
from pixelclip_sdk.backends.choose import open_backend
from pixelclip_sdk.bundle import Bundle
from pixelclip_sdk.errors import PixelClipError

_REFERENCE = "onnx"
_ROUNDS = 15
_SECONDS = 3.0  # After these, three rounds are enough.
# An engine must be so much faster: timings vary, and the reference is the engine that is tested most.
_MARGIN = 1.1


def race(bundle: Bundle, names: Sequence[str], threads: int | None) -> dict[str, Any]:
    """Return the winner as ``backend``, and what was found out about each of `names` as ``engines``.

    The winner is the fastest that is at least a tenth faster than ONNX Runtime, and agrees with its labels on
    every photo as the bundle's gate demands. (The mean of so few photos would say too much: ADR 29.) If there
    is none, it is ONNX Runtime.
    """
    least, best = gate(bundle), (_MARGIN, _REFERENCE)
    found: dict[str, dict[str, Any]] = {}
    with open_backend(bundle, _REFERENCE, "cpu", threads) as reference:
        samples = Samples(bundle, reference)
        for name in names:
            print(json.dumps({"trying": name}), flush=True)
            try:
                with open_backend(bundle, name, "cpu", threads) as engine:
                    times, agreement = _times(reference, engine, samples), min(samples.agreements(engine))
            except PixelClipError as error:
                found[name] = {"reason": str(error)}
                continue
            found[name] = {**times, "agreement": agreement}
            if agreement >= least:
                best = max(best, (times["speedup"], name))
    return {"backend": best[1], "gate": least, "engines": found}


def _times(reference: Backend, engine: Backend, samples: Samples) -> dict[str, float]:
    """Returns medians of milliseconds, in turns, and the speed-up: the smaller of elapsed and processor time.

    Other programs disturb elapsed time; processor time does not show cores that wait.
    """
    image, text = samples.images[0], samples.text
    engines = reference, engine
    taken: tuple[list[tuple[float, float]], ...] = ([], [])
    end = time.perf_counter() + _SECONDS
    for i in range(_ROUNDS + 1):
        for one, times in zip(engines, taken, strict=True):
            start, used = time.perf_counter(), time.process_time()
            one.logits(image, text)
            times.append((time.perf_counter() - start, time.process_time() - used))
        if i >= 3 and time.perf_counter() > end:
            break
    # The first round warms up.
    (first, first_used), (other, other_used) = (
        [statistics.median(values) * 1e3 for values in zip(*times[1:], strict=True)] for times in taken
    )
    return {
        "onnx_ms": first,
        "ms": other,
        "onnx_processor_ms": first_used,
        "processor_ms": other_used,
        "speedup": min(first / other, first_used / other_used),
    }


def main(arguments: Sequence[str]) -> None:
    """Run the command: `arguments` are the folder, the number of threads or an empty text, and engines."""
    folder, threads, *names = arguments
    result = race(Bundle.open(Path(folder)), names, int(threads) if threads else None)
    print(json.dumps({"result": result}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
