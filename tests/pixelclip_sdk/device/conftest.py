"""A GPU in host memory, with ONNX Runtime's CUDA provider on it."""

import contextlib
import dataclasses
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from host_gpu.arrays import DlpackArray, InterfaceArray
from host_gpu.cuda import HostCuda
from host_gpu.kernels import compiler
from host_gpu.machine import machine
from host_gpu.onnx import HostOnnx

from pixelclip_sdk import Segmenter, Vocabulary
from pixelclip_sdk.preprocess import fit

# Of a tenth of the pixels, which saves nine tenths of the time.
_SMALL: dict[str, Any] = {"input_size": (96, 128), "threads": 1}


@dataclasses.dataclass
class Gpu:
    """The machine of these tests.

    Attributes:
        cuda: Its CUDA.
        onnx: Its onnxruntime.
        load: Loads the bundled model with ``backend="onnx-cuda"``.
    """

    cuda: HostCuda
    onnx: HostOnnx
    load: Callable[..., Segmenter]


@pytest.fixture(scope="module")
def cpu() -> Iterator[Segmenter]:
    """The same model and words on the CPU."""
    words = ["cat", "sofa", "grass"]
    with Segmenter.from_pretrained("pixelclip-lite", classes=words, refine="off", **_SMALL) as loaded:
        yield loaded


@pytest.fixture
def gpu(cpu) -> Iterator[Gpu]:
    if compiler() is None:
        pytest.skip("there is no C++ compiler (g++ or clang++)")
    with machine(gpus=2) as (cuda, onnx), contextlib.ExitStack() as stack:

        def load(**options: Any) -> Segmenter:
            options = _SMALL | {"classes": cpu.vocabulary, "refine": "off"} | options
            options["backend"] = "onnx-cuda"
            return stack.enter_context(Segmenter.from_pretrained("pixelclip-lite", **options))

        yield Gpu(cuda, onnx, load)


@pytest.fixture
def frames(photo) -> list[np.ndarray]:
    """Six frames of one size, parts of a photo and noise in turn, so that neighbours have other labels."""
    rng = np.random.default_rng(0)
    parts = [photo[20 * i : 20 * i + 194 : 2, 30 * i : 30 * i + 262 : 2] for i in range(6)]
    return [
        part.copy() if i % 2 else rng.integers(0, 256, part.shape, np.uint8) for i, part in enumerate(parts)
    ]


@pytest.fixture
def local(cpu, frames) -> Vocabulary:
    """A class for each point of the model's grid of one frame, so that labels change everywhere."""
    rows = cpu._backend.features(fit(frames[1], cpu._input)[None]).reshape(-1, 384)
    rows = rows - rows.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"point {i}" for i in range(len(rows))]
    return Vocabulary(names=names, embeddings=rows, text_hash=cpu.vocabulary.text_hash)


@pytest.fixture
def arrays() -> types.SimpleNamespace:
    """The kinds of arrays of other libraries."""
    return types.SimpleNamespace(interface=InterfaceArray, dlpack=DlpackArray)
