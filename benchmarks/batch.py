"""Archives against a loop over `predict`: ``python benchmarks/batch.py PHOTOS… --json FILE``.

- *Rates*: a loop, the local engine and Ray on the same pictures, in turns. A loop reads, decodes and
  segments; the engines write label maps and rows as well. Starts are left out, of Ray until the first shard.
- *Whole* (``--whole N``): the command on many pictures, with both engines at the same time. The local one is
  killed with SIGKILL at three random moments and run again. Then the files of both must be equal to the byte.
"""

import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.memory import memory_mb
from benchmarks.harness.results import command_parser, store
from benchmarks.harness.tables import table
from pixelclip_sdk import PixelClipError, Segmenter
from pixelclip_sdk.backends.cores import default_threads
from pixelclip_sdk.batch.cluster import segment_on_ray
from pixelclip_sdk.batch.inputs import Picture, find_pictures
from pixelclip_sdk.batch.job import Job, Shard
from pixelclip_sdk.batch.local import segment_here
from pixelclip_sdk.batch.shards import ResultFolder
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.command import run_command

_WORDS = "person, animal, plant, tree, grass, sky, road, building, car, furniture, food, water"
_SHARD = 20
_SAMPLE_S = 1.0


def rates(pictures: Sequence[Picture], rounds: int, folder: Path) -> list[dict[str, float]]:
    """Pictures a second of each contender, by round; every round has pictures of its own."""
    import ray

    ray.init(
        address="local",
        num_cpus=default_threads(),
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    found = []
    parts = [pictures[i::rounds] for i in range(rounds)]
    with (
        Segmenter.from_pretrained(classes=_WORDS) as loop,
        Segmenter.from_pretrained(classes=_WORDS, threads=1) as single,
    ):
        job = Job.of(single, "pixelclip-lite", {}, "parquet")
        for warm in (loop, single):
            warm.warm_up()
        for number, part in enumerate(parts):
            shards = [
                Shard(i, part[i * _SHARD : (i + 1) * _SHARD], frozenset()) for i in range(len(part) // _SHARD)
            ]
            count = _SHARD * len(shards)

            def predict(part: Sequence[Picture] = part, count: int = count) -> float:
                start = time.perf_counter()
                for picture in part[:count]:
                    loop.predict(picture.path)
                return count / (time.perf_counter() - start)

            def local(
                shards: Sequence[Shard] = shards, count: int = count, name: str = f"local-{number}"
            ) -> float:
                results = ResultFolder(folder / name, job.facts, job.facts_hash)
                start = time.perf_counter()
                for result in segment_here(job, single, shards, default_threads()):
                    results.write(result)
                return count / (time.perf_counter() - start)

            def on_ray(
                shards: Sequence[Shard] = shards, count: int = count, name: str = f"ray-{number}"
            ) -> float:
                results = ResultFolder(folder / name, job.facts, job.facts_hash)
                start = 0.0
                for result in segment_on_ray(job, shards, None, None):
                    results.write(result)
                    start = start or time.perf_counter()
                return (count - _SHARD) / (time.perf_counter() - start)

            before = predict()
            here = local()
            between = predict()
            there = on_ray()
            after = predict()
            found.append(
                {
                    "predict": statistics.median((before, between, after)),
                    "local": here,
                    "local_ratio": 2 * here / (before + between),
                    "ray": there,
                    "ray_ratio": 2 * there / (between + after),
                }
            )
            print({name: round(value, 2) for name, value in found[-1].items()}, flush=True)
    ray.shutdown()
    return found


# Whole runs ------------------------------------------------------------


def whole_runs(pictures: Sequence[Picture], folder: Path) -> dict[str, Any]:
    """Both engines on all pictures; the local one is killed three times."""
    listed = folder / "pictures.txt"
    listed.write_text("\n".join(picture.path for picture in pictures))
    count = -(-len(pictures) // 256)
    moments = sorted(random.Random(1).sample(range(1, max(count - 1, 4)), 3))
    with ThreadPoolExecutor(2) as pool:
        local = pool.submit(whole, listed, folder / "local", "local", moments)
        on_ray = pool.submit(whole, listed, folder / "ray", "ray", ())
        runs = {"local": local.result(), "ray": on_ray.result()}
    ours, theirs = _files(folder / "local"), _files(folder / "ray")
    return {
        "pictures": len(pictures),
        "killed_after_shards": moments,
        **runs,
        "files": len(ours),
        "equal_to_the_byte": ours == theirs and len(ours) == count,
    }


def whole(listed: Path, out: Path, engine: str, moments: Sequence[int]) -> list[dict[str, Any]]:
    """Run the command, killing it when it has written so many shards; returns rate and memory of each run."""
    runs = []
    command = [
        sys.executable,
        "-m",
        "pixelclip_sdk",
        "batch",
        str(listed),
        "--classes",
        _WORDS,
        "--out",
        str(out),
    ]
    for moment in (*moments, None):
        process = subprocess.Popen([*command, "--engine", engine], stdout=subprocess.DEVNULL)
        samples, start = [], time.perf_counter()
        before = _shards(out)
        while process.poll() is None:
            samples.append((time.perf_counter() - start, _shards(out), _memory_mb(process.pid)))
            if moment is not None and samples[-1][1] >= moment:
                time.sleep(random.Random(moment).random() * 5)  # Anywhere in a shard.
                process.kill()
                process.wait()
                break
            time.sleep(_SAMPLE_S)
        if process.returncode > 0:
            raise PixelClipError(f"the command ended with {process.returncode}; see above")
        runs.append(_summary(samples, before, killed=moment is not None))
        print(engine, runs[-1], flush=True)
    return runs


def _shards(out: Path) -> int:
    return len(list((out / "results").glob("part-*.parquet")))


def _summary(samples: Sequence[tuple[float, int, float]], before: int, *, killed: bool) -> dict[str, Any]:
    """Rate and memory between the first new shard and the end.

    Memory grows until the largest pictures have come. So its growth is that of the second half.
    """
    steady = [sample for sample in samples if sample[1] > before]
    facts: dict[str, Any] = {"killed": killed, "seconds": samples[-1][0], "shards": samples[-1][1] - before}
    if len(steady) > 10 and steady[-1][1] > steady[0][1]:
        seconds, shards, memory = np.array(steady).T
        pictures = 256 * (shards[-1] - shards[0])
        last = seconds[np.argmax(shards == shards[-1])]
        facts["pictures_per_s"] = float(pictures / (last - seconds[0]))
        half = len(memory) // 2
        parts = {"first": memory[:10], "half": memory[half : half + 10], "last": memory[-10:]}
        facts["memory_mb"] = {name: float(np.median(part)) for name, part in parts.items()}
        slope = np.polyfit(seconds[half:], memory[half:], 1)[0]
        facts["mb_per_1000_pictures"] = float(slope / facts["pictures_per_s"] * 1000)
    return facts


def _memory_mb(root: int) -> float:
    """Memory of a process and of the Ray workers below it, without what Ray's store shares among them."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    total = memory_mb("RssAnon", root)
    for process in parents:
        above = process
        while above in parents and above != root:
            above = parents[above]
        if above == root and process != root and _title(process).startswith("ray::"):
            total += memory_mb("RssAnon", process)
    return total


def _title(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _files(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in (out / "results").iterdir()}


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__, rounds=5)
    parser.add_argument("photos", nargs="+", metavar="PHOTOS", help="folders of pictures")
    parser.add_argument(
        "--whole", type=positive, metavar="N", help="run the command on N pictures (default: measure rates)"
    )
    parser.add_argument(
        "--compared", type=positive, default=500, metavar="N", help="pictures in turns (default: %(default)s)"
    )
    options = parser.parse_args()
    pictures = find_pictures(options.photos)
    random.Random(0).shuffle(pictures)
    facts = {"classes": len(_WORDS.split(","))}
    with tempfile.TemporaryDirectory() as folder:
        if options.whole:
            facts |= whole_runs(pictures[: options.whole], Path(folder))
        else:
            rounds = rates(pictures[: options.compared], options.rounds, Path(folder))
            medians = {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}
            print(table([{"contender": name, "median": value} for name, value in medians.items()]))
            ratios = {f"{name} over predict": medians[f"{name}_ratio"] for name in ("local", "ray")}
            facts |= {"compared": options.compared, "rounds": rounds, "medians": medians, "ratios": ratios}
    store(options.json, facts)
    return 1 if facts.get("equal_to_the_byte") is False else 0


if __name__ == "__main__":
    sys.exit(run_command("batch", main))
