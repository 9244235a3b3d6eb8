"""Our pipeline on an NVIDIA GPU against plain PyTorch on the same GPU: ``python benchmarks/gpu.py``.

PyTorch (fp16 autocast, resize as in PixelCLIP's protocol, interpolate, argmax) is 1×, with Pillow for JPEG.
Both run in turns, times are medians. With nvImageCodec there is one more row. ``--dry`` runs all of it on a
CPU, with a GPU in host memory, small pictures and two layers of the ViT: its times mean nothing.
"""

import contextlib
import dataclasses
import io
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from benchmarks.harness import tables
from benchmarks.harness.models import exported, random_vit
from benchmarks.harness.photos import PHOTOS, photo_jpeg
from benchmarks.harness.results import command_parser, store
from benchmarks.harness.turns import in_turns, medians
from pixelclip_sdk import Segmenter, Smoother, Vocabulary
from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.image import load_image
from pixelclip_sdk.preprocess import input_size
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import find_images
from training.models.load import load_model
from training.models.pair import EncoderPair
from training.models.registry import LITE

_AT_ONCE = 8  # Threads, or sources of a stream.
# Ratios and times of the issue's table, on a GPU of the H100's class.
_GOALS = {
    "vit, device to device": "3x, 2.5 ms",
    "vit, numpy to numpy": "5x",
    "vit, JPEG by Pillow to numpy": "2x",
    "vit, JPEG by nvImageCodec to numpy": "6x",
    "lite, device to device": "1.2 ms",
}


@dataclasses.dataclass
class Gpu:
    """Where the contenders run: a real GPU, or one in host memory.

    Attributes:
        name: Of the card.
        device: Of PyTorch.
        put: Returns a frame `(H, W, 3)` in the GPU's memory, as a tensor of PyTorch or the like of it.
        wait: Waits for all work on the GPU.
    """

    name: str
    device: str
    put: Callable[[np.ndarray], Any]
    wait: Callable[[], object]


@contextlib.contextmanager
def real_gpu() -> Iterator[Gpu]:
    """The first GPU of this machine."""
    yield Gpu(Cuda().gpu.name, "cuda", lambda frame: torch.from_numpy(frame).cuda(), torch.cuda.synchronize)


@contextlib.contextmanager
def host_gpu() -> Iterator[Gpu]:
    """The tests' GPU in host memory."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from host_gpu.arrays import InterfaceArray  # type: ignore[import-not-found]
    from host_gpu.machine import machine  # type: ignore[import-not-found]
    from host_gpu.nvimgcodec import HostNvimgcodec, installed  # type: ignore[import-not-found]

    with machine() as (cuda, _), installed("nvidia.nvimgcodec", HostNvimgcodec(cuda)):
        yield Gpu("none (dry run)", "cpu", lambda frame: InterfaceArray(cuda, frame), cuda.finish)


class TorchOnGpu:
    """The reference, from a frame `(H, W, 3)` uint8 on its device to labels on it."""

    def __init__(self, pair: EncoderPair, text: np.ndarray, device: str, *, official: bool) -> None:
        self._encoder, self._spec = pair.image.to(device).eval(), pair.input
        self._text = torch.from_numpy(text.copy()).to(device)
        self._device, self._official = device, official

    @torch.inference_mode()
    def __call__(self, frame: torch.Tensor) -> torch.Tensor:
        """Return the labels `(H, W)` of a frame `(H, W, 3)` uint8."""
        height, width = frame.shape[:2]
        pixels = frame.permute(2, 0, 1)[None].float()
        if self._official:
            scale = min(640 / min(height, width), 2560 / max(height, width))
            short = round(height * scale), round(width * scale)
            pixels = F.interpolate(pixels, short, mode="bilinear", antialias=True)
        size = input_size(height, width, self._spec)
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=not self._official)
        with torch.autocast(self._device, torch.float16, enabled=self._device == "cuda"):
            logits = self._encoder(pixels.permute(0, 2, 3, 1), self._text)[0]
        return F.interpolate(logits, (height, width), mode="bilinear").argmax(1)[0]


def random_words(count: int, width: int) -> Vocabulary:
    """Embeddings of no words: every class can win everywhere, the worst case of the CPU's path."""
    rows = np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Vocabulary(names=[f"word {i}" for i in range(count)], embeddings=rows)


def measure(
    name: str, gpu: Gpu, pair: EncoderPair, segmenter: Segmenter, size: tuple[int, int], rounds: int
) -> list[dict[str, Any]]:
    """Rows of one model: every way in and out, ours against PyTorch."""
    jpeg = photo_jpeg(*size)
    frame = np.array(Image.open(io.BytesIO(jpeg), formats=["JPEG"]).convert("RGB"))
    reference = TorchOnGpu(pair, segmenter.vocabulary.embeddings, gpu.device, official=name == "vit")
    smoother = Smoother(0.3)
    on_gpu, tensor = gpu.put(frame), torch.from_numpy(frame).to(gpu.device)

    def decoded() -> np.ndarray:
        return np.array(Image.open(io.BytesIO(jpeg), formats=["JPEG"]).convert("RGB"))

    def torch_from(picture: np.ndarray) -> np.ndarray:
        return reference(torch.from_numpy(picture).to(gpu.device)).to(torch.int16).cpu().numpy()

    def waited(call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            kept = call()
            gpu.wait()
            del kept

        return run

    ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "device to device": (waited(lambda: segmenter.predict(on_gpu)), waited(lambda: reference(tensor))),
        "device to device, edges": (
            waited(lambda: segmenter.predict(on_gpu, refine="edges")),
            waited(lambda: reference(tensor)),
        ),
        "device to device, edges, smoothed as video": (
            waited(lambda: segmenter.predict(on_gpu, refine="edges", smoother=smoother)),
            waited(lambda: reference(tensor)),
        ),
        "numpy to numpy": (lambda: segmenter.predict(frame).labels, lambda: torch_from(frame)),
        "JPEG by Pillow to numpy": (
            lambda: segmenter.predict(load_image(jpeg)).labels,
            lambda: torch_from(decoded()),
        ),
    }
    segmenter.predict(jpeg)  # Chooses the decoder.
    if "nvImageCodec" in segmenter.engine_description:
        by_gpu = (lambda: segmenter.predict(jpeg).labels, lambda: torch_from(decoded()))
        ways["JPEG by nvImageCodec to numpy"] = by_gpu
    equal = float((segmenter.predict(on_gpu).labels == torch_from(frame)).mean())
    rows = []
    for way, (ours, theirs) in ways.items():
        times = medians(in_turns({"ours": ours, "PyTorch": theirs}, rounds, pause_s=0.0))
        rows.append(
            {
                "case": f"{name}, {way}",
                "ms": times["ours"],
                "torch_ms": times["PyTorch"],
                "speedup": times["PyTorch"] / times["ours"],
                "equal_labels": equal,
                "goal": _GOALS.get(f"{name}, {way}", ""),
            }
        )
    return rows


def other_words_ms(segmenter: Segmenter, frame: np.ndarray, rounds: int) -> float:
    """Median time from 20 new words, as embeddings, to labels on the running engine."""
    times = []
    for i in range(rounds):
        words = random_words(20, segmenter.vocabulary.embeddings.shape[1])
        words = dataclasses.replace(words, embeddings=np.roll(words.embeddings, i, axis=0))
        start = time.perf_counter()
        segmenter.set_classes(words)
        assert segmenter.predict(frame).labels.size
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times))


def frames_by_threads(segmenter: Segmenter, frame: np.ndarray, threads: int, count: int) -> float:
    """Numpy frames a second on one engine, from so many threads."""
    barrier = threading.Barrier(threads + 1)

    def work(_: int) -> None:
        for _ in range(2):  # What a frame under way needs is allocated.
            assert segmenter.predict(frame).labels.size
        barrier.wait(60)
        for _ in range(count):
            assert segmenter.predict(frame).labels.size

    with ThreadPoolExecutor(threads) as pool:
        done = pool.map(work, range(threads))
        barrier.wait(60)
        start = time.perf_counter()
        list(done)
    return threads * count / (time.perf_counter() - start)


def frames_of_stream(segmenter: Segmenter, frame: np.ndarray, sources: int, count: int) -> float:
    """Numpy frames a second of one stream with so many sources."""
    start = time.perf_counter()
    results = segmenter.stream(*([frame] * count for _ in range(sources)))
    frames = sum(result.labels.size > 0 for result in results)
    return frames / (time.perf_counter() - start)


def rates(segmenter: Segmenter, frame: np.ndarray, count: int) -> dict[str, float]:
    """Frames a second of one thread, and of several threads and sources, whose goal is 3 times as many."""
    segmenter.warm_up(frame.shape[:2])
    one = frames_by_threads(segmenter, frame, 1, count)
    threads = frames_by_threads(segmenter, frame, _AT_ONCE, count)
    stream = frames_of_stream(segmenter, frame, _AT_ONCE, count)
    return {
        "frames a second, 1 thread": one,
        f"frames a second, {_AT_ONCE} threads": threads,
        f"frames a second, a stream of {_AT_ONCE} sources": stream,
        "threads, ratio (goal 3)": threads / one,
        "sources, ratio (goal 3)": stream / one,
    }


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__, rounds=30)
    parser.add_argument("--dry", action="store_true", help="run on a CPU; the times mean nothing")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with (host_gpu if options.dry else real_gpu)() as gpu, tempfile.TemporaryDirectory() as folder:
        vit = random_vit(2) if options.dry else random_vit()
        # No gate: labels of random weights mean nothing.
        bundle = exported(vit, "fp16", Path(folder), find_images(PHOTOS)[:1], gate=0.0)
        small = (96, 128) if options.dry else None
        cases: list[tuple[str, EncoderPair, Path | str, tuple[int, int], int]] = [
            ("vit", vit, bundle.path, small or (1080, 1920), 150),
            ("lite", load_model(LITE), "pixelclip-lite", small or (480, 640), 20),
        ]
        extra: dict[str, float] = {}
        for name, pair, model, size, count in cases:
            with Segmenter.from_pretrained(model, backend="onnx-cuda", refine="off") as segmenter:
                width = segmenter.bundle.embedding_dim if segmenter.bundle else 0
                segmenter.set_classes(random_words(count, width))
                rows += measure(name, gpu, pair, segmenter, size, options.rounds)
                frame = np.array(Image.open(io.BytesIO(photo_jpeg(*size)), formats=["JPEG"]).convert("RGB"))
                found = rates(segmenter, frame, options.rounds)
                extra |= {f"{name}: {what}": value for what, value in found.items()}
                new = other_words_ms(segmenter, frame, options.rounds)
                extra[f"{name}: ms of 20 other words (goal 30)"] = new
    print(gpu.name)
    print(tables.table(rows))
    for name, value in extra.items():
        print(f"{name}: {value:.1f}")
    store(options.json, {"gpu": gpu.name, "dry": options.dry, "rows": rows, "extra": extra})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("gpu", main))
