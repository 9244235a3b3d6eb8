"""Uses the SDK for a long time: predict, a camera that is cut at random, and a server with clients.

Each runs in a process of its own. After a warm-up of a fifth of the time, the slope of its resident memory,
its open files and its threads are recorded. Frames of the camera carry a number and the time at which they
were made, so that results that come twice, out of order or with a wrong time are counted.
"""

import base64
import http.client
import itertools
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Generator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.memory import memory_mb
from benchmarks.harness.results import ROOT, command_parser, store
from pixelclip_sdk import Segmenter
from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.image import load_image
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.video.frames import Frame

__all__ = ["Camera", "Watch", "soak_predict", "soak_serve", "soak_stream"]

_PHOTOS = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
_FPS = 20
_WORDS = (
    "cat, sofa",
    "cup, table, spoon",
    ["cat", "fur", "eye"],
    {"coffee": ["coffee", "espresso"], "cup": "cup"},
)
_CLIENTS = 3
_THINGS = 900  # Words that clients send in lists. A request may have a thousand.


class Watch:
    """Resident memory, open files and threads of a process, over time."""

    def __init__(self, process: int, seconds: float) -> None:
        self._process, self._folder = process, Path("/proc", str(process))
        self._start, self._seconds = time.monotonic(), seconds
        self._next = 0.0
        # Rows of time, resident memory, files and threads. Its memory is there from the beginning.
        self._samples, self._taken = np.ones((int(seconds) + 60, 4)), 0

    @property
    def over(self) -> bool:
        """Whether the time is over. Takes a sample every second."""
        now = time.monotonic() - self._start
        if now >= self._next:
            self._next = now + 1
            resident = memory_mb("VmRSS", self._process)
            if not resident:  # It has ended.
                return True
            threads, files = (len(list((self._folder / name).iterdir())) for name in ("task", "fd"))
            self._samples[self._taken] = now, resident, files, threads
            self._taken += 1
        return now >= self._seconds or self._taken == len(self._samples)

    def facts(self) -> dict[str, Any]:
        """Returns the slope after the warm-up, by least squares, and the first and last numbers."""
        taken = self._samples[: self._taken]
        after = taken[taken[:, 0] >= self._seconds / 5]
        after = after if len(after) else taken
        slope = float(np.polyfit(after[:, 0] / 3600, after[:, 1], 1)[0]) if len(after) > 2 else float("nan")
        return {
            "minutes": round(float(taken[-1, 0]) / 60, 2),
            "memory_slope_mb_per_h": round(slope, 2),
            "memory_mb": after[[0, -1], 1].round(1).tolist(),
            "open_files": after[[0, -1], 2].astype(int).tolist(),
            "threads": after[[0, -1], 3].astype(int).tolist(),
        }


def soak_predict(seconds: float) -> dict[str, Any]:
    """Segments photos at several sizes, while the words change."""
    photos = [load_image(photo)[::step, ::step] for photo in _PHOTOS for step in (1, 2, 3)]
    count = 0
    with Segmenter.from_pretrained(classes="cat, sofa") as segmenter:
        watch = Watch(os.getpid(), seconds)
        while not watch.over:
            segmenter.predict(photos[count % len(photos)])
            if count % 10 == 0:
                segmenter.set_classes(_WORDS[count // 10 % len(_WORDS)])
            count += 1
    return {"images": count, **watch.facts()}


class Camera:
    """A live source of numbered frames whose connection breaks at random.

    Frame n is made n / `_FPS` seconds after the first, also while the connection is broken. The first 32
    pixels hold the bits of n, and the next 32 the microseconds by which the first frame of the connection
    came late, as it does where the machine is busy: nobody who gets the frame can know it. Times of a
    connection begin with 0, as FFmpeg's.
    """

    live, fps, count = True, Fraction(_FPS), None
    name = "camera"

    def __init__(self, seed: int, begin: float | None = None) -> None:
        self._chance, self._seed = random.Random(seed), seed
        self._begin = time.monotonic() if begin is None else begin
        self._picture = np.ascontiguousarray(load_image(_PHOTOS[0])[::3, ::3])

    def __iter__(self) -> Generator[Frame, None, None]:
        if self._chance.random() < 0.2:
            raise ImageError("nothing comes")
        first = number = int((time.monotonic() - self._begin) * _FPS) + 1
        late_us = 0
        for _ in range(self._chance.randrange(1, 8 * _FPS)):
            image = self._picture.copy()
            time.sleep(max(self._begin + number / _FPS - time.monotonic(), 0))
            if number == first:
                late_us = int((time.monotonic() - self._begin - number / _FPS) * 1e6)
            for place, value in ((0, number), (32, late_us)):
                image[0, place : place + 32] = ((value >> np.arange(32)) & 1)[:, None] * 255
            yield Frame(image, (number - first) / _FPS, 0.0, 0)
            number += 1
        if self._chance.random() < 0.5:
            raise ImageError("the connection broke")

    def close(self) -> None:
        """Nothing is open."""

    def reopened(self) -> "Camera":
        """Connects again, or fails."""
        if self._chance.random() < 0.3:
            raise ImageError("it does not answer")
        return Camera(self._seed + 1, self._begin)


def soak_stream(seconds: float) -> dict[str, Any]:
    """Streams from a `Camera`. Returns how many results came twice, out of order or with a wrong time."""
    # Counted, not kept: a list of all numbers would grow by a megabyte an hour.
    frames = twice = backwards = 0
    largest_s = latest_s = 0.0
    offset = last = None
    with Segmenter.from_pretrained(classes="cat, sofa") as segmenter:
        watch = Watch(os.getpid(), seconds)
        stream = segmenter.stream(Camera(0), on_error="reopen")
        for result in stream:
            bits = result.image[0, :64, 0].reshape(2, 32) > 127
            number, late_us = (bits @ (1 << np.arange(32))).tolist()
            frames += 1
            twice += number == last
            backwards += last is not None and number < last
            last = number
            ahead = result.frame.time_s - number / _FPS - late_us / 1e6
            offset = ahead if offset is None else offset
            largest_s, latest_s = max(largest_s, abs(ahead - offset)), max(latest_s, late_us / 1e6)
            if watch.over:
                break
        stream.close()
    return {
        "frames": frames,
        "twice": twice,
        "out_of_order": backwards,
        "largest_clock_error_s": round(largest_s, 4),
        "latest_first_frame_s": round(latest_s, 4),
        "frame_s": 1 / _FPS,
        **watch.facts(),
    }


def soak_serve(seconds: float) -> dict[str, Any]:
    """Runs `pixelclip serve` with clients that segment, keep vocabularies, send rubbish and hang up."""
    server = subprocess.Popen(
        [sys.executable, "-m", "pixelclip_sdk", "serve", "--port", "0", "--classes", "cat, sofa"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    assert server.stdout is not None
    address = next(m[0] for line in server.stdout if (m := re.search(r"http://[\w.:\[\]]+\d", line)))
    said: deque[str] = deque(maxlen=40)
    threading.Thread(target=said.extend, args=(server.stdout,), daemon=True).start()
    answers: list[dict[str, int]] = [{} for _ in range(_CLIENTS)]
    stop = threading.Event()
    clients = [threading.Thread(target=_client, args=(address, i, stop, answers[i])) for i in range(_CLIENTS)]
    try:
        # The server keeps the embeddings of the last words: its memory grows until it has some megabytes.
        for start in range(0, _THINGS, 100):
            things = [f"thing {i}" for i in range(start, start + 100)]
            _post(address, "/v1/vocabularies", {"words": things}).read()
        watch = Watch(server.pid, seconds)
        for client in clients:
            client.start()
        while not watch.over:
            time.sleep(0.2)
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with {server.poll()}: {''.join(said)}")
    finally:
        stop.set()
        for client in clients:
            client.join()
        server.terminate()
        code = server.wait(30)
    total: dict[str, int] = {}
    for name, count in itertools.chain.from_iterable(one.items() for one in answers):
        total[name] = total.get(name, 0) + count
    return {"answers": dict(sorted(total.items())), "exit_code": code, **watch.facts()}


def _client(address: str, seed: int, stop: threading.Event, answers: dict[str, int]) -> None:
    """Sends requests, and counts the answers by status."""
    chance = random.Random(seed)
    photo = base64.b64encode(_PHOTOS[0].read_bytes()).decode()
    while not stop.is_set():
        words = chance.choice(_WORDS)
        path, body = chance.choice(
            [
                ("/v1/segment", {"image": photo, "words": words}),
                ("/v1/segment", {"image": photo}),
                ("/v1/segment", {"image": photo[: chance.randrange(100, 2000) * 4], "words": words}),
                ("/v1/vocabularies", {"words": [f"thing {chance.randrange(_THINGS)}", "sky"]}),
                ("/v1/segment", {"nonsense": 1}),
            ]
        )
        try:
            with _post(address, path, body) as answer:
                status = str(answer.status)
                if chance.random() < 0.8:  # Otherwise the client hangs up.
                    answer.read()
        except urllib.error.HTTPError as error:
            status = str(error.code)
            error.close()
        except OSError as error:
            status = type(error).__name__
        answers[status] = answers.get(status, 0) + 1


def _post(address: str, path: str, body: object) -> http.client.HTTPResponse:
    request = urllib.request.Request(
        address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=60)
    return answer


_SOAKS: dict[str, Callable[[float], dict[str, Any]]] = {
    "predict": soak_predict,
    "stream": soak_stream,
    "serve": soak_serve,
}


def _run() -> int:
    parser = command_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=3, help="of each (default: %(default)s)")
    parser.add_argument("--only", choices=_SOAKS, help="one of them")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(_SOAKS[options.only](60 * options.minutes)))
        return 0
    found = {}
    for name in _SOAKS:
        command = [sys.executable, __file__, "--only", name, "--minutes", str(options.minutes)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        found[name] = (
            json.loads(result.stdout) if result.returncode == 0 else {"failed": result.stderr[-2000:]}
        )
        print(name, json.dumps(found[name], indent=1), flush=True)
        store(options.json, found)
    return 1 if any("failed" in one for one in found.values()) else 0


if __name__ == "__main__":
    sys.exit(run_command("soak", _run, interrupted="the result has what was finished before"))
