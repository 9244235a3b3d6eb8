"""Frame rate of the GStreamer element beside that of ``pixelclip video``: ``python benchmarks/gstreamer.py``.

Both read the file, segment every frame with the default smoothing and print a line for each frame. They run
in turns; a rate counts from the tenth line to the last one, so that loading is left out.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import tables
from benchmarks.harness.results import command_parser, store
from pixelclip_sdk import PixelClipError
from pixelclip_sdk.benchmark import SAMPLE_WORDS
from pixelclip_sdk.gstreamer.__main__ import variables
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.command import run_command

_NAMES = ("pixelclip video", "gst-launch-1.0")
_TICKS = os.sysconf("SC_CLK_TCK")


def commands(video: Path) -> dict[str, list[str]]:
    """Returns the command of each."""
    source = f"filesrc location={video} ! decodebin ! videoconvert ! video/x-raw,format=RGB ! queue"
    return {
        _NAMES[0]: [
            sys.executable,
            "-m",
            "pixelclip_sdk",
            "video",
            str(video),
            "--classes",
            SAMPLE_WORDS,
            "--json",
        ],
        _NAMES[1]: [
            *("gst-launch-1.0", "-m", *source.split(), "!"),
            *("pixelclip", f"classes={SAMPLE_WORDS}", "output=mask", "!", "queue", "!", "fakesink"),
        ],
    }


def measure(command: list[str], frames: int, environment: dict[str, str]) -> dict[str, float]:
    """Returns frames a second, and milliseconds of CPU a frame, over `frames` frames after ten of warm-up."""
    times, cpu = [], []
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if '"areas"' in line or "pixelclip, timestamp" in line:
                times.append(time.perf_counter())
                cpu.append(_cpu_s(process.pid))
            if len(times) == frames + 10:
                break
        process.kill()
        errors.seek(0)
        if len(times) < frames + 10:
            problem = errors.read().decode(errors="replace")[-2000:]
            raise PixelClipError(f"{command[0]} gave {len(times)} frames of {frames + 10}: {problem}")
    return {
        "fps": frames / (times[-1] - times[9]),
        "cpu_ms_per_frame": (cpu[-1] - cpu[9]) / frames * 1e3,
    }


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__, rounds=5)
    parser.add_argument("video", type=Path, help="a video file")
    parser.add_argument("--frames", type=positive, default=200, help="timed frames (default: %(default)s)")
    options = parser.parse_args()
    found = {name: ":".join(folders) for name, folders in variables().items()}
    environments = {_NAMES[0]: dict(os.environ), _NAMES[1]: {**os.environ, **found}}
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds):
        order = _NAMES if number % 2 == 0 else _NAMES[::-1]
        both = {
            name: measure(commands(options.video.resolve())[name], options.frames, environments[name])
            for name in order
        }
        rounds.append({name: both[name] for name in _NAMES})
    rows = [
        {
            "name": name,
            **{key: statistics.median(one[name][key] for one in rounds) for key in rounds[0][name]},
        }
        for name in _NAMES
    ]
    ratios = {
        f"{label} of {_NAMES[1]} over {_NAMES[0]}": statistics.median(
            one[_NAMES[1]][key] / one[_NAMES[0]][key] for one in rounds
        )
        for label, key in (("frame rate", "fps"), ("CPU time", "cpu_ms_per_frame"))
    }
    columns = {"": "name", "frames a second": "fps", "CPU, ms a frame": "cpu_ms_per_frame"}
    print(tables.table(rows, columns))
    print("".join(f"\n{name}: {value:.2f}" for name, value in ratios.items()))
    facts = {"video": options.video.name, "frames": options.frames, "classes": SAMPLE_WORDS}
    store(options.json, {**facts, "rounds": rounds, "ratios": ratios})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("gstreamer", main))
