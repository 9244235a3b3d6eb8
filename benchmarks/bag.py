"""Speed, memory and completeness of ``pixelclip bag``: ``python benchmarks/bag.py --videos DIR``.

Makes a bag of the videos in a folder, 640×480, 30 images a second, with stamps that are not quite regular.

1. In turns: the bag of some images, and `predict` in a loop on the same messages.
2. The whole bag by the command, which is killed (``kill -9``) at random moments and started again. Then every
   stamp and frame id of the new bag is compared with those of the images.
"""

import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.harness import tables
from benchmarks.harness.memory import memory_mb
from benchmarks.harness.results import ROOT, command_parser, store
from pixelclip_sdk import PixelClipError, Segmenter, open_source
from pixelclip_sdk.ros.bag import BagReader
from pixelclip_sdk.ros.convert import segment_bag
from pixelclip_sdk.ros.images import COMPRESSED_TYPE, IMAGE_TYPE, decode_image
from pixelclip_sdk.ros.typestore import typestore
from pixelclip_sdk.support.arguments import path, positive
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.packages import imported

_FPS = 30
_SIZE = (640, 480)
_QUALITY = 85  # Of JPEG; image_transport's default is 95, cameras have less.
_START_NS = 1_700_000_000_000_000_000
_LATER_NS = 1_500_000  # From a stamp to the recording.
_SHORT = 150  # Images of a turn.
_EACH = 250  # Images of a video at most.
_WORDS = "person, floor, wall, door, table, chair, bed, window, bottle, car, road, dog"
_POLL_S = 0.5


def pictures(videos: Path, count: int) -> Iterator[Image.Image]:
    """The first frames of each video, 640×480, in all about `count` or fewer."""
    files = sorted(videos.glob("*.mp4"))
    for video in files:
        source = open_source(video)
        for frame in islice(source, min(-(-count // len(files)), _EACH)):
            yield Image.fromarray(frame.image).resize(_SIZE)
        source.close()


def make_bag(target: Path, videos: Path, count: int, *, raw: bool) -> None:
    """Write a bag of `count` images."""
    rosbag2 = imported("rosbags.rosbag2")
    store, kind = typestore(), IMAGE_TYPE if raw else COMPRESSED_TYPE
    types, rng = store.types, random.Random(0)
    contents = []
    with tempfile.SpooledTemporaryFile() as file:
        for picture in pictures(videos, min(count, _EACH) if raw else count):
            file.seek(0)
            file.truncate()
            if raw:
                file.write(picture.tobytes())
            else:
                picture.save(file, "JPEG", quality=_QUALITY)
            file.seek(0)
            contents.append(np.frombuffer(file.read(), np.uint8))
    if not contents:
        raise PixelClipError(f"{videos} has no videos; expected .mp4")
    width, height = _SIZE
    with rosbag2.Writer(target, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        topic = writer.add_connection("/camera/image_raw" + "/compressed" * (not raw), kind, typestore=store)
        for i, data in enumerate(islice(cycle(contents), count)):
            stamp_ns = _START_NS + i * 10**9 // _FPS + rng.randrange(2_000_000)
            sec, nanosec = divmod(stamp_ns, 10**9)
            header = types["std_msgs/msg/Header"](
                stamp=types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec), frame_id=f"camera_{i}"
            )
            if raw:
                message = types[kind](
                    header=header,
                    height=height,
                    width=width,
                    encoding="rgb8",
                    is_bigendian=0,
                    step=3 * width,
                    data=data,
                )
            else:
                message = types[kind](header=header, format="jpeg", data=data)
            writer.write(topic, stamp_ns + _LATER_NS, store.serialize_cdr(message, kind))


def in_turns(segmenter: Segmenter, bag: Path, folder: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Milliseconds an image, of the clock and of the processor: the bag, and `predict` on its messages."""
    with BagReader(bag) as reader:
        messages = [image.message for image in reader.images(reader.choose([]))]
    times: dict[str, list[dict[str, float]]] = {"bag": [], "predict": []}

    def timed(name: str, run: Any) -> None:
        clock, processor = time.perf_counter(), time.process_time()
        run()
        times[name].append(
            {
                "ms": (time.perf_counter() - clock) / len(messages) * 1e3,
                "cpu_ms": (time.process_time() - processor) / len(messages) * 1e3,
            }
        )

    def predict() -> None:
        for message in messages:
            segmenter.predict(decode_image(message))

    segmenter.predict(decode_image(messages[0]))
    for i in range(rounds):
        timed("predict", predict)
        timed("bag", lambda: segment_bag(segmenter, bag, folder / f"turn-{i}"))  # noqa: B023 (called at once)
    return times


def run_killed(bag: Path, out: Path, total: int, kills: int) -> dict[str, Any]:
    """Run the command to its end; kill it `kills` times on the way. Returns times and memory of each run."""
    command = [sys.executable, "-m", "pixelclip_sdk", "bag", str(bag), str(out), "--classes", _WORDS]
    rng = random.Random(time.time_ns())
    goals = sorted(
        rng.randrange(total * i // (kills + 1), total * (i + 1) // (kills + 1)) for i in range(kills)
    )
    runs: list[dict[str, Any]] = []
    for goal in [*goals, None]:
        start, before = time.perf_counter(), _read(out)
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        memory = []
        try:
            while process.poll() is None and (goal is None or _read(out) < goal):
                memory.append(memory_mb("VmRSS", process.pid))
                time.sleep(_POLL_S)
            time.sleep(rng.random() * 5 if goal is not None else 0)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
        code = process.wait()
        done = total if code == 0 else _read(out)
        facts = {
            "killed_near": goal,
            "from_image": before,
            "to_image": done,
            "seconds": time.perf_counter() - start,
        }
        runs.append(facts | _memory([value for value in memory if value]))
        print(facts, flush=True)
        if code not in (0, -signal.SIGKILL):
            raise PixelClipError(f"the command ended with {code}; run it by hand: {' '.join(command)}")
        if code == 0:  # A short run may end before its kills.
            break
    return {"runs": runs, "seconds": sum(run["seconds"] for run in runs)}


def _memory(values: list[float]) -> dict[str, float]:
    """Medians of the second and the last tenth, if there are any; loading the model is in the first one."""
    if not values:
        return {}
    tenth = max(len(values) // 10, 1)
    return {
        "rss_mb_start": statistics.median(values[tenth : 2 * tenth] or values),
        "rss_mb_end": statistics.median(values[-tenth:]),
        "rss_mb_peak": max(values),
    }


def _read(out: Path) -> int:
    """How many images the unfinished run has made durable."""
    progress = out.with_name(f"{out.name}.partial") / "progress.json"
    return int(json.loads(progress.read_text())["done"].get("read", 0)) if progress.exists() else 0


def differences(bag: Path, out: Path) -> dict[str, int]:
    """Compare headers and times of both bags: masks and confidences that are missing, twice, misplaced."""
    expected = list(_stamps(bag, None))
    result: dict[str, int] = {}
    for kind in ("mask", "confidence"):
        found = list(_stamps(out, f"/segmentation/{kind}"))
        result[f"{kind}_missing"] = len(set(expected) - set(found))
        result[f"{kind}_repeated"] = len(found) - len(set(found))
        result[f"{kind}_in_another_place"] = sum(a != b for a, b in zip(expected, found, strict=False))
        result[f"{kind}_images"] = len(found)
    return result


def _stamps(bag: Path, topic: str | None) -> Iterator[tuple[int, int, int, str]]:
    with BagReader(bag) as reader:
        for image in reader.images([topic] if topic else reader.choose([])):
            header = image.message.header
            yield image.time_ns, header.stamp.sec, header.stamp.nanosec, header.frame_id


def main() -> int:
    """Run the command and return its exit code; 1 if an image is missing, twice, or has another stamp."""
    parser = command_parser(__doc__, rounds=6)
    parser.add_argument("--videos", type=path, required=True, metavar="DIR", help="folder of .mp4 files")
    parser.add_argument("--images", type=positive, default=18_000, help="of the bag (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=3, help="kills of the long run (default: %(default)s)")
    parser.add_argument("--raw", action="store_true", help="raw images (default: JPEG)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_bag(folder / "short", options.videos, _SHORT, raw=options.raw)
        with Segmenter.from_pretrained(classes=_WORDS) as segmenter:
            times = in_turns(segmenter, folder / "short", folder, options.rounds)
            backend = segmenter.engine_description
        medians = {
            name: {key: statistics.median(turn[key] for turn in turns) for key in ("ms", "cpu_ms")}
            for name, turns in times.items()
        }
        ratios = {
            "rate of the bag over predict": statistics.median(
                predict["ms"] / bag["ms"] for predict, bag in zip(times["predict"], times["bag"], strict=True)
            )
        }
        rows = [{"what": name, **values} for name, values in medians.items()]
        print(tables.table(rows, {"": "what", "ms an image": "ms", "CPU, ms": "cpu_ms"}))
        print(ratios, flush=True)
        make_bag(folder / "bag", options.videos, options.images, raw=options.raw)
        size_mb = sum(file.stat().st_size for file in (folder / "bag").iterdir()) / 1e6
        long = run_killed(folder / "bag", folder / "out", options.images, options.kills)
        found = differences(folder / "bag", folder / "out")
        out_mb = sum(file.stat().st_size for file in (folder / "out").iterdir()) / 1e6
    print(json.dumps(found, indent=1))
    wrong = sum(value for key, value in found.items() if not key.endswith("_images"))
    wrong += sum(abs(found[f"{kind}_images"] - options.images) for kind in ("mask", "confidence"))
    last = long["runs"][-1]
    ratios["memory at the start over the end"] = last["rss_mb_start"] / last["rss_mb_end"]
    store(
        options.json,
        {
            "backend": backend,
            "images": options.images,
            "image_size": list(_SIZE[::-1]),
            "kind": "rgb8" if options.raw else f"JPEG {_QUALITY}",
            "bag_mb": size_mb,
            "out_mb": out_mb,
            "real_time_ms": 1e3 / _FPS,
            "turns": medians,
            "long_run": {**long, "images_a_second": options.images / long["seconds"]},
            "compared": found,
            "ratios": ratios,
        },
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(run_command("bag", main))
