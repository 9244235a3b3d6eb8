"""The server under load: ``python benchmarks/serve.py --json benchmarks/results/serve.json``.

Server and clients are processes of their own. The machine should be idle otherwise.

- *Throughput*: as many clients as threads that call `predict` in this process, with the same JPEG and
  words, in turns.
- *Latency*: requests at 70 % of the throughput, whether or not the last was answered: those of some cameras,
  each with a fixed frame rate, and those at random times, beside what an ideal queue would make of them.
- *Overload*: five times the throughput. What is not shed must be right: each request has words of its own.
- *Viewers*: live connections that come, change words and go at random.
- *Batches*: the time of an image in `predict_batch`, which decides whether waiting requests should be joined.
"""

import asyncio
import contextlib
import heapq
import http.client
import json
import multiprocessing
import os
import random
import re
import signal
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import websockets
from websockets.asyncio.client import connect

from benchmarks.harness.memory import memory_mb
from benchmarks.harness.photos import photo_jpeg
from benchmarks.harness.results import command_parser, store
from benchmarks.harness.tables import table
from pixelclip_sdk import Segmenter
from pixelclip_sdk.serve.config import Limits
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.command import run_command

_THREADS = (1, 2, 4)
_WORDS = ("cup", "table", "spoon", "plate", "book", "cat", "wall", "sofa", "floor", "plant", "lamp", "chair")
_VOCABULARIES = 100
_START = ("cup", "table")
_SIZE = (360, 480)
_CAMERAS = 10
_SPANS = 3

Arrivals = Callable[[float, float, random.Random], Iterator[float]]
"""Rate a second, seconds, random numbers → times of requests in seconds."""


class Server:
    """`pixelclip serve` in a process of its own."""

    def __init__(self) -> None:
        command = [
            sys.executable,
            "-m",
            "pixelclip_sdk",
            "serve",
            "--port",
            "0",
            "--classes",
            ", ".join(_START),
        ]
        started = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.port = int(re.findall(r":(\d+) ", self.process.stdout.readline())[0])
        self.get("/healthz")
        self.start_s = time.perf_counter() - started

    def get(self, path: str) -> bytes:
        """The body of an answer."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as link:
            link.request("GET", path)
            return link.getresponse().read()

    def post(self, path: str, value: Any) -> bytes:
        """The body of an answer to JSON."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as link:
            link.request("POST", path, json.dumps(value), {"Content-Type": "application/json"})
            return link.getresponse().read()

    def facts(self) -> dict[str, float]:
        """Memory in megabytes, threads and file descriptors."""
        folder = Path(f"/proc/{self.process.pid}")
        status = (folder / "status").read_text()
        return {
            "memory_mb": memory_mb("VmRSS", self.process.pid),
            "threads": int(status.partition("Threads:")[2].split()[0]),
            "files": len(list((folder / "fd").iterdir())),
        }

    def stop(self) -> None:
        """End the process."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def request(jpeg: bytes, words: Sequence[str]) -> bytes:
    """The bytes of a request over a connection that stays open."""
    form = (
        b'--limit\r\nContent-Disposition: form-data; name="words"\r\n\r\n'
        + ", ".join(words).encode()
        + b'\r\n--limit\r\nContent-Disposition: form-data; name="image"; filename="x.jpg"\r\n\r\n'
        + jpeg
        + b"\r\n--limit--\r\n"
    )
    head = (
        "POST /v1/segment HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: multipart/form-data; boundary=limit\r\nContent-Length: {len(form)}\r\n\r\n"
    )
    return head.encode() + form


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, so that clients and server do not share an interpreter."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def words_of(number: int) -> list[str]:
    """Words of a request, which differ from request to request; a server keeps them all."""
    return random.Random(number % _VOCABULARIES).sample(_WORDS, 5)


async def ask(link: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes) -> tuple[int, bytes]:
    """Status and body of the answer."""
    reader, writer = link
    writer.write(data)
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head)
    assert found, head
    return int(head[9:12]), await reader.readexactly(int(found[1]))


# Throughput ------------------------------------------------------------


def _closed_loop(port: int, clients: int, seconds: float, jpeg: bytes) -> float:
    """Answers a second of clients that ask again when they were answered."""
    requests = [request(jpeg, words_of(number)) for number in range(_VOCABULARIES)]

    async def client(until: float) -> int:
        link = await asyncio.open_connection("127.0.0.1", port)
        count = 0
        while time.perf_counter() < until:
            status, body = await ask(link, requests[count % _VOCABULARIES])
            assert status == 200, body
            count += 1
        link[1].close()
        return count

    async def main() -> float:
        begin = time.perf_counter()
        counts = await asyncio.gather(*(client(begin + seconds) for _ in range(clients)))
        return sum(counts) / (time.perf_counter() - begin)

    return asyncio.run(main())


def _direct(segmenters: Sequence[Segmenter], threads: int, seconds: float, jpeg: bytes) -> float:
    """Calls of `predict` a second by some threads, each with the next words."""
    begin, counts = time.perf_counter(), [0] * threads

    def work(i: int) -> None:
        while time.perf_counter() < begin + seconds:
            segmenters[counts[i] % len(segmenters)].predict(jpeg)
            counts[i] += 1

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - begin)


def throughput(server: Server, segmenter: Segmenter, jpeg: bytes, rounds: int, seconds: float) -> list[Any]:
    """Medians of rounds in turns, and the median of the rounds' ratios."""
    rows = []
    segmenters = [segmenter.with_classes(words_of(number)) for number in range(_VOCABULARIES)]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as clients:
        for threads in _THREADS:
            pairs = []
            for _ in range(rounds + 1):
                direct = _direct(segmenters, threads, seconds, jpeg)
                answered = clients.submit(_closed_loop, server.port, threads, seconds, jpeg).result()
                pairs.append((answered, direct))
            served, called = zip(*pairs[1:], strict=True)  # The first round warms up.
            low, ratio, high = np.percentile([s / d for s, d in pairs[1:]], (25, 50, 75)).tolist()
            rows.append(
                {
                    "threads": threads,
                    "served_per_s": statistics.median(served),
                    "predict_per_s": statistics.median(called),
                    "ratio": ratio,
                    "ratio_quartile_1": low,
                    "ratio_quartile_3": high,
                }
            )
    return rows


# Open loop ------------------------------------------------------------


def _random_times(rate: float, seconds: float, rng: random.Random) -> Iterator[float]:
    """Times of requests that know nothing of each other."""
    due = rng.expovariate(rate)
    while due < seconds:
        yield due
        due += rng.expovariate(rate)


def _camera_times(rate: float, seconds: float, rng: random.Random) -> Iterator[float]:
    """Times of the frames of cameras that have one frame rate, and were started at random times."""
    period = _CAMERAS / rate
    phases = sorted(rng.uniform(0, period) for _ in range(_CAMERAS))
    for number in range(int(seconds / period)):
        yield from (number * period + phase for phase in phases)


def _open_loop(
    port: int, times: Sequence[float], jpeg: bytes, seed: int, usual_s: float | None
) -> tuple[list[tuple[int, float, bool]], float | None]:
    """Requests at some times: the status, the seconds and whether the names were right, of each.

    With `usual_s` also the seconds from the last of them until a request is again answered in at most twice
    that time.
    """

    async def one(number: int, free: list[Any]) -> tuple[int, float, bool]:
        words = words_of(number)
        begin = time.perf_counter()
        while free and (free[-1][0].at_eof() or free[-1][1].is_closing()):
            free.pop()
        link = free.pop() if free else await asyncio.open_connection("127.0.0.1", port)
        status, body = await ask(link, request(jpeg, words))
        spent = time.perf_counter() - begin
        free.append(link)
        return status, spent, status != 200 or json.loads(body)["names"] == words

    async def recovered(free: list[Any]) -> float:
        begin = time.perf_counter()
        while True:
            started = time.perf_counter()
            status, spent, _ = await one(0, free)
            if status == 200 and spent <= 2 * (usual_s or 0):
                return started - begin
            await asyncio.sleep(0.02)

    async def main() -> tuple[list[Any], float | None]:
        free: list[Any] = []
        tasks = []
        begin = time.perf_counter()
        for due in times:
            await asyncio.sleep(max(begin + due - time.perf_counter(), 0))
            tasks.append(asyncio.create_task(one(len(tasks) + seed, free)))
        recovery_s = None if usual_s is None else await recovered(free)
        return await asyncio.gather(*tasks), recovery_s

    return asyncio.run(main())


def load(
    server: Server, times: Sequence[float], jpeg: bytes, seed: int, usual_s: float | None = None
) -> dict[str, Any]:
    """Send requests at some times; return what became of them."""
    before = server.facts()
    results, recovery_s = apart(_open_loop, server.port, times, jpeg, seed, usual_s)
    answered = [spent * 1e3 for status, spent, _ in results if status == 200]
    refused = [spent * 1e3 for status, spent, _ in results if status != 200]
    return {
        "rate_per_s": len(times) / times[-1],
        "requests": len(results),
        "statuses": dict(sorted(Counter(str(status) for status, _, _ in results).items())),
        "wrong": sum(not right for _, _, right in results),
        "ms": {f"p{p}": float(np.percentile(answered, p)) for p in (50, 90, 99)},
        "refused_ms": {"p99": float(np.percentile(refused, 99))} if refused else {},
        "memory_mb": [before["memory_mb"], server.facts()["memory_mb"]],
        **({} if recovery_s is None else {"recovery_s": recovery_s}),
    }


def ideal_tail(times: Sequence[float], workers: int, service_s: float) -> float:
    """p99 over p50 of a queue that loses no time: workers that always need the same time for a request."""
    free = [0.0] * workers
    spent = []
    for due in times:
        end = max(due, heapq.heappop(free)) + service_s
        heapq.heappush(free, end)
        spent.append(end - due)
    return float(np.divide(*np.percentile(spent, (99, 50))))


ARRIVALS = {"cameras": _camera_times, "random": _random_times}


def at_seventy(server: Server, make: Arrivals, jpeg: bytes, seconds: float) -> list[dict[str, Any]]:
    """Three spans at 70 % of the throughput, which is measured before each: shared machines change."""
    workers, spans = Limits().workers, []
    for seed in range(_SPANS):
        capacity = apart(_closed_loop, server.port, workers, max(seconds / 5, 0.5), jpeg)
        times = list(make(0.7 * capacity, seconds, random.Random(seed)))
        span = load(server, times, jpeg, seed)
        span["p99_over_p50"] = span["ms"]["p99"] / span["ms"]["p50"]
        span["ideal_p99_over_p50"] = ideal_tail(times, workers, workers / capacity)
        spans.append(span)
    return spans


# Viewers ------------------------------------------------------------


def _viewers(port: int, viewers: int, seconds: float, jpeg: bytes) -> dict[str, int]:
    """Live connections that come, change words and go: what they got."""
    counts: Counter[str] = Counter()

    async def visit(rng: random.Random, until: float) -> None:
        async with connect(
            f"ws://127.0.0.1:{port}/v1/live", subprotocols=["pixelclip.v1"], proxy=None, max_size=1 << 24
        ) as link:
            counts["connections"] += 1
            # Until settings are accepted, those of the server hold.
            asked: dict[int | None, list[str]] = {None: list(_START)}
            for number in range(1, rng.randint(2, 12)):
                if time.perf_counter() > until:
                    return
                if number == 1 or rng.random() < 0.5:
                    asked[number] = rng.sample(_WORDS, rng.randint(2, 6))
                    await link.send(json.dumps({"type": "settings", "id": number, "words": asked[number]}))
                    counts["changes"] += 1
                await link.send(struct.pack(">II", number, number * 33) + jpeg)
                if rng.random() < 0.1:  # Gone without a word, with a frame in the engine.
                    link.transport.abort()
                    counts["aborted"] += 1
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rng.random() * 10):
                        async for message in link:
                            if isinstance(message, str):
                                kind = json.loads(message)
                                counts[f"{kind['type']} {kind.get('code', '')}".strip()] += 1
                                if kind["type"] == "error":
                                    break
                                continue
                            header = json.loads(message[4 : 4 + struct.unpack_from(">I", message)[0]])
                            counts["results"] += 1
                            counts["wrong"] += header["names"] != asked[header["settings"]]
                            break

    async def viewer(seed: int, until: float) -> None:
        rng = random.Random(seed)
        while time.perf_counter() < until:
            with contextlib.suppress(websockets.ConnectionClosed, OSError):
                await visit(rng, until)
            await asyncio.sleep(rng.random())

    async def main() -> None:
        until = time.perf_counter() + seconds
        await asyncio.gather(*(viewer(i, until) for i in range(viewers)))

    asyncio.run(main())
    return dict(counts)


def watched(server: Server, viewers: int, seconds: float, jpeg: bytes) -> dict[str, Any]:
    """Viewers for a while: what they got, and what they left in the server."""
    # The threads and the memory that are kept are made by the first viewers.
    apart(_viewers, server.port, viewers, min(seconds, 15), jpeg)
    time.sleep(3)
    before = server.facts()
    counts = apart(_viewers, server.port, viewers, seconds, jpeg)
    time.sleep(3)
    return {"viewers": viewers, "seconds": seconds, **counts, "before": before, "after": server.facts()}


# Batches ------------------------------------------------------------


def batches(segmenter: Segmenter, jpeg: bytes, rounds: int) -> dict[str, float]:
    """Milliseconds of an image in batches of some sizes, in turns; medians."""
    times: dict[int, list[float]] = {size: [] for size in (1, 2, 4, 8)}
    for _ in range(rounds + 1):
        for size, samples in times.items():
            begin = time.perf_counter()
            segmenter.predict_batch([jpeg] * size)
            samples.append((time.perf_counter() - begin) / size * 1e3)
    return {str(size): statistics.median(samples[1:]) for size, samples in times.items()}


def _starts(count: int) -> Iterator[float]:
    for _ in range(count):
        server = Server()
        server.stop()
        yield server.start_s


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__, rounds=24)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a round (default: %(default)s)")
    parser.add_argument("--load-seconds", type=float, default=20.0, help="of a load (default: %(default)s)")
    parser.add_argument(
        "--viewers", type=positive, default=100, help="live connections (default: %(default)s)"
    )
    parser.add_argument(
        "--viewers-seconds", type=float, default=120.0, help="how long they watch (default: %(default)s)"
    )
    options = parser.parse_args()
    jpeg = photo_jpeg(*_SIZE)
    start_s = statistics.median(_starts(3))
    load_before = os.getloadavg()[0]
    server = Server()
    try:
        for number in range(_VOCABULARIES):  # Embedded before, as most clients repeat their words.
            server.post("/v1/vocabularies", {"words": words_of(number)})
        with Segmenter.from_pretrained("pixelclip-lite", classes=words_of(0)) as segmenter:
            backend = segmenter.engine_description
            joined = batches(segmenter, jpeg, options.rounds)
            rates = throughput(server, segmenter, jpeg, options.rounds, options.seconds)
        span = options.load_seconds
        calm = {name: at_seventy(server, make, jpeg, span) for name, make in ARRIVALS.items()}
        capacity = max(row["served_per_s"] for row in rates)
        times = list(_random_times(5 * capacity, span, random.Random(2)))
        flood = load(server, times, jpeg, 2, calm["random"][0]["ms"]["p50"] / 1e3)
        shed = flood["requests"] - flood["statuses"].get("200", 0)
        flood["shed"] = shed / flood["requests"]
        viewers = watched(server, options.viewers, options.viewers_seconds, jpeg)
    finally:
        server.stop()
    print(f"starts in {start_s:.2f} s; {backend}; a JPEG of {_SIZE[0]}×{_SIZE[1]}\n")
    print(table([{name: f"{value:.3g}" for name, value in row.items()} for row in rates]))
    print("\nmilliseconds of an image by batch:", {size: round(ms, 1) for size, ms in joined.items()})
    named = [(f"70 %, {name}", span) for name, spans in calm.items() for span in spans]
    for name, facts in (*named, ("500 %", flood), ("viewers", viewers)):
        print(f"\n{name}: {json.dumps(facts)}")
    ratios = {f"throughput of {row['threads']} clients over predict": row["ratio"] for row in rates}
    for name, spans in calm.items():
        tail = statistics.median(span["p99_over_p50"] for span in spans)
        ratios[f"p50 over p99 at 70 % of the throughput, {name}"] = 1 / tail
    content = {
        "backend": backend,
        "image_size": list(_SIZE),
        "load_before": load_before,
        "start_s": start_s,
        "throughput": rates,
        "at_70_percent": calm,
        "at_500_percent": flood,
        "viewers": viewers,
        "batch_ms_per_image": joined,
        "ratios": ratios,
    }
    store(options.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("serve", main))
