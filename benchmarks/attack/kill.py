"""Kills every command that writes, fills its disk, and takes its network away; then reads what is there.

- ``kill -9`` at a random time: each file is whole or is not there, except hidden ones and those named as
  unfinished. The same command, run again in the folder of the last kill, succeeds.
- A disk (tmpfs, needs root) of several sizes: the exit code is 1, without a traceback, and files are whole.
- No network (``unshare -n`` and ``strace``, need root): the command works, opens no socket of the internet,
  and writes nothing outside of its output folder.
"""

import dataclasses
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks.attack.seeds import seeds
from benchmarks.bag import make_bag
from benchmarks.harness.results import ROOT, command_parser, store
from pixelclip_sdk.bundle import Bundle
from pixelclip_sdk.models import BUNDLED
from pixelclip_sdk.ros.bag import BagReader
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.words.vocabulary import Vocabulary
from training.masks.format import write_masks
from training.models.load import load_model

__all__ = ["WRITERS", "broken_files", "is_killed_cleanly"]

_PHOTOS = str(ROOT / "examples" / "photos")
_CLI = [sys.executable, "-m", "pixelclip_sdk"]
_TINY = str(ROOT / "training" / "configs" / "tiny.json")
_WORDS = ["--classes", "cat, sofa, cup"]
_BAG_IMAGES = 30
_DISKS_KB = (4, 64, 200, 400, 1000, 4000)


@dataclasses.dataclass(frozen=True)
class Writer:
    """A command, given its output folder, and what has to be in the folder before."""

    command: Callable[[Path], Sequence[str]]
    prepare: Callable[[Path], object] | None = None


def _own_video(out: Path) -> None:
    (out / "in.mp4").write_bytes(seeds("video")[0])


def _own_bundle(out: Path) -> None:
    shutil.copytree(BUNDLED / "pixelclip-lite", out / "bundle", dirs_exist_ok=True)


def _predict(out: Path) -> list[str]:
    return [*_CLI, "predict", _PHOTOS, *_WORDS, "--out", str(out), "--format", "png,json,coco"]


def _video(out: Path) -> list[str]:
    return [*_CLI, "video", str(out / "in.mp4"), *_WORDS, "--out", str(out / "out.mp4")]


def _vocab(out: Path) -> list[str]:
    return [*_CLI, "vocab", "build", "voc-20", "--out", str(out / "words.npz")]


def _embed_text(out: Path) -> list[str]:
    own = ["--bundle", str(out / "bundle"), "--classes", "voc-20", "--name", "voc-20"]
    return [sys.executable, "export/embed_text.py", *own]


def _make_masks(out: Path) -> list[str]:
    return [sys.executable, "training/make_masks.py", "slic", "--images", _PHOTOS, "--out", str(out)]


def _own_photos(out: Path) -> None:
    """Parts of photos in a hidden folder, with a mask of two halves each, for a training."""
    masks = np.zeros((2, 96, 128), bool)
    masks[0, :48] = masks[1, 48:] = True
    (out / ".own" / "images").mkdir(parents=True, exist_ok=True)
    for i, photo in enumerate(sorted(Path(_PHOTOS).glob("*.jpg")) * 3):
        with Image.open(photo, formats=["JPEG"]) as image:
            part = image.crop((20 * i, 10 * i, 20 * i + 128, 10 * i + 96))
            part.save(out / ".own" / "images" / f"{i}.jpg")
        write_masks(out / ".own" / "masks" / f"{i}.npz", masks)


def _own_weights(out: Path) -> None:
    """Random weights of a small model in a hidden folder, for an export."""
    (out / ".own").mkdir(exist_ok=True)
    pair = load_model(_TINY, random_weights=True)
    save_file(
        {name: value.contiguous().clone() for name, value in pair.network.state_dict().items()},
        out / ".own" / "weights.safetensors",
    )


def _own_bag(out: Path) -> None:
    """A bag of a video's frames in a hidden folder."""
    (out / ".own").mkdir(exist_ok=True)
    (out / ".own" / "in.mp4").write_bytes(seeds("video")[0])
    make_bag(out / ".own" / "bag", out / ".own", _BAG_IMAGES, raw=False)


def _train(out: Path) -> list[str]:
    own = [f"images={out / '.own' / 'images'}", f"masks={out / '.own' / 'masks'}", f"out={out / 'run'}"]
    return [sys.executable, "training/train.py", "--config", "training/configs/tiny.yaml", *own]


def _export(out: Path) -> list[str]:
    model = ["--model", _TINY, "--checkpoint", str(out / ".own" / "weights.safetensors"), "--gate", "0.5"]
    return [sys.executable, "export/to_onnx.py", *model, "--out", str(out / "bundle")]


def _batch(out: Path) -> list[str]:
    return [*_CLI, "batch", _PHOTOS, *_WORDS, "--shard-size", "1", "--out", str(out / "results")]


def _bag(out: Path) -> list[str]:
    return [*_CLI, "bag", str(out / ".own" / "bag"), str(out / "bag"), *_WORDS]


WRITERS: dict[str, Writer] = {
    "predict": Writer(_predict),
    "video": Writer(_video, _own_video),
    "vocab": Writer(_vocab),
    "embed_text": Writer(_embed_text, _own_bundle),
    "make_masks": Writer(_make_masks),
    "train": Writer(_train, _own_photos),
    "export": Writer(_export, _own_weights),
    "batch": Writer(_batch),
    "bag": Writer(_bag, _own_bag),
}
"""Name → a command that writes."""


def _prepare(name: str, out: Path) -> None:
    if prepare := WRITERS[name].prepare:
        prepare(out)


def broken_files(folder: Path) -> list[str]:
    """Returns the names of files that cannot be read, without hidden ones and those named as unfinished."""
    broken = []
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if hidden or not file.is_file() or ".partial" in str(inside):
            continue
        try:
            _read(file)
        except Exception as error:
            broken.append(f"{file.name}: {error!r}"[:300])
    return broken


def _hidden(folder: Path) -> list[str]:
    """Names of what killed runs left, without what was there before."""
    found = [file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file()]
    return [
        str(file)
        for file in found
        if ".partial" in str(file) or any(part.startswith(".") and part != ".own" for part in file.parts)
    ]


def _read(file: Path) -> None:
    if file.name == "bundle.json":
        Bundle.open(file.parent).verify()
    elif file.suffix == ".json":
        json.loads(file.read_text(encoding="utf-8"))
    elif file.suffix == ".png":
        with Image.open(file, formats=["PNG"]) as image:
            image.load()
    elif file.suffix == ".safetensors":
        load_file(file)
    elif file.suffix == ".npz" and file.name == "words.npz":
        Vocabulary.load(file)
    elif file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            assert all(arrays[name].size for name in arrays.files)
    elif file.suffix == ".parquet":
        pyarrow.parquet.read_table(file).validate(full=True)
    elif file.name == "metadata.yaml":
        with BagReader(file.parent) as reader:
            assert sum(1 for _ in reader.images(["/segmentation/mask"])) == _BAG_IMAGES
    elif file.suffix == ".mp4":
        import av

        with av.open(str(file)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 0


def is_killed_cleanly(name: str, after_s: float | None) -> dict[str, Any]:
    """Runs a writer, kills it after some seconds, and reads its files. None lets it end: it must succeed."""
    with tempfile.TemporaryDirectory() as folder:
        _prepare(name, Path(folder))
        return _run_once(name, Path(folder), after_s)


def _run_once(name: str, out: Path, after_s: float | None) -> dict[str, Any]:
    start = time.monotonic()
    process = subprocess.Popen(
        WRITERS[name].command(out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _, message = process.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        _, message = process.communicate()
    files = sum(1 for file in out.rglob("*") if file.is_file())
    return {
        "seconds": time.monotonic() - start,
        "exit_code": process.returncode,
        "files": files,
        "broken": broken_files(out),
        "message": message[-500:],
    }


def _killed(name: str, times: int, chance: random.Random) -> dict[str, Any]:
    whole = is_killed_cleanly(name, None)
    if whole["exit_code"]:
        raise RuntimeError(f"{name} fails by itself: {whole['message']}")
    seconds, killed, ended, broken = whole["seconds"], 0, 0, list(whole["broken"])
    again: dict[str, Any] = {}
    left: list[str] = []
    while killed < times and ended < 3 * times:
        with tempfile.TemporaryDirectory() as folder:
            _prepare(name, Path(folder))
            run = _run_once(name, Path(folder), seconds * chance.uniform(0.3, 1.0))
            broken += run["broken"]
            if run["exit_code"] == -signal.SIGKILL:
                killed += 1
            else:  # Others may have used the machine before.
                ended, seconds = ended + 1, run["seconds"]
            if killed == times:
                again = _run_once(name, Path(folder), None)
                broken += again["broken"]
                left = _hidden(Path(folder))
    return {
        "killed": killed,
        "ended_before": ended,
        "broken": broken,
        "exit_code_of_another_run": again.get("exit_code"),
        "hidden_files_after_it": left,
        **({"message": again["message"]} if again.get("exit_code") else {}),
    }


def _on_small_disks(name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"exit_codes": {}, "tracebacks": 0, "broken": []}
    for size in _DISKS_KB:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", folder], check=True)
            try:
                _prepare(name, Path(folder))
                used = shutil.disk_usage(folder).used // 1024
                again = ["mount", "-o", f"remount,size={used + size}k", folder]
                subprocess.run(again, check=True)
                result = subprocess.run(
                    WRITERS[name].command(Path(folder)), cwd=ROOT, capture_output=True, text=True, check=False
                )
                found["exit_codes"][f"{size} kB"] = result.returncode
                found["tracebacks"] += "Traceback" in result.stderr
                found["broken"] += broken_files(Path(folder))
            finally:
                subprocess.run(["umount", folder], check=True)
    return found


def _without_network(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as home:
        out, trace = Path(folder), Path(home, "trace")
        _prepare(name, out)
        calls = "trace=socket,openat,open,creat,rename,renameat,renameat2,mkdir,mkdirat"
        command = [
            "unshare",
            "-n",
            "strace",
            "-f",
            "-e",
            calls,
            "-o",
            str(trace),
            *WRITERS[name].command(out),
        ]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    sockets = [line for line in lines if "socket(" in line and "AF_UNIX" not in line]
    changing = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|creat\(|rename\w*\(|mkdir\w*\(")
    done = [line for line in lines if changing.search(line) and not re.search(r"= -1 E", line)]
    paths = {found[1] for line in done if (found := re.search(r'"([^"]*)"', line))}
    written = {path for path in paths if not path.startswith((folder, "/dev/", "/proc/"))}
    return {"exit_code": result.returncode, "sockets": sockets[:5], "written_elsewhere": sorted(written)[:20]}


def _run() -> int:
    parser = command_parser(__doc__)
    parser.add_argument("--times", type=int, default=20, help="kills of each writer (default: %(default)s)")
    parser.add_argument("--writers", nargs="+", choices=WRITERS, default=list(WRITERS), metavar="NAME")
    options = parser.parse_args()
    chance = random.Random(0)
    found: dict[str, Any] = {}
    for name in options.writers:
        found[name] = {
            "killed": _killed(name, options.times, chance),
            "small_disks": _on_small_disks(name),
            "no_network": _without_network(name),
        }
        print(name, json.dumps(found[name], indent=1), flush=True)
        store(options.json, {"times": options.times, "writers": found})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("kill", _run, interrupted="the result has what was finished before"))
