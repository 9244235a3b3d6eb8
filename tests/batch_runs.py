"""Runs of `pixelclip batch` that are killed, and what they wrote."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def files(out: Path) -> dict[str, bytes]:
    """The results, without the timings."""
    return {path.name: path.read_bytes() for path in (out / "results").iterdir()}


def batch_command(pictures: Path | str, words: str) -> list[str]:
    """In shards of four pictures; ``--out`` is left out."""
    command = [sys.executable, "-m", "pixelclip_sdk", "batch", str(pictures)]
    return [*command, "--classes", words, "--shard-size", "4"]


def kill_after_a_shard(
    spawn: Callable[..., subprocess.Popen], command: list[str], out: Path, seconds: float
) -> None:
    """Starts a command and kills it when it has written a shard, within so many seconds."""
    process = spawn([*command, "--out", str(out)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + seconds
    while not list((out / "results").glob("part-*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
