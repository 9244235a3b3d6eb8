"""What this machine can do at best: multiply matrices in fp32 and in int8, and move memory."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.harness.turns import medians
from pixelclip_sdk.backends.onnx import create_session, default_threads

__all__ = ["Work", "floor", "integer_work", "matrix_work", "memory_work", "rates"]

_SIDES = (1024, 2048, 3072)
# Floats in each of three arrays: 512 MB, so that together they exceed any cache.
_FLOATS = 1 << 27

Work = dict[str, tuple[Callable[[], object], float]]
"""Name → what to call, and how much it does: operations or bytes."""


def matrix_work(sides: tuple[int, ...] = _SIDES) -> Work:
    """Products of square fp32 matrices in three libraries, with the threads that the SDK takes.

    A floor must not flatter: the best of them is the rate. ONNX Runtime has one matrix as a constant, which
    it packs beforehand, as it does a model's weights.

    Args:
        sides: Rows and columns of the matrices.
    """
    torch.set_num_threads(default_threads())
    work: Work = {}
    for side in sides:
        a, b = np.random.default_rng(0).standard_normal((2, side, side), np.float32)
        operations = 2.0 * side**3
        work |= {
            f"torch {side}": (_torch_product(a, b), operations),
            f"numpy {side}": (_numpy_product(a, b), operations),
            f"onnxruntime {side}": (_runtime_product(a, b), operations),
        }
    return work


def integer_work(sides: tuple[int, ...] = _SIDES) -> Work:
    """Products of square uint8 by int8 matrices in ONNX Runtime and in oneDNN, which PyTorch brings.

    Weights have seven bits, as in our models: with eight, sums overflow on processors without VNNI.

    Args:
        sides: Rows and columns of the matrices.
    """
    torch.set_num_threads(default_threads())
    work: Work = {}
    for side in sides:
        rng = np.random.default_rng(0)
        a = rng.integers(0, 256, (side, side), dtype=np.uint8)
        b = rng.integers(-63, 64, (side, side), dtype=np.int8)
        operations = 2.0 * side**3
        work |= {
            f"onednn int8 {side}": (_onednn_product(a, b), operations),
            f"onnxruntime int8 {side}": (_runtime_product(a, b), operations),
        }
    return work


def memory_work(floats: int = _FLOATS) -> Work:
    """Reading, copying and adding arrays; bytes are those read and written, as STREAM counts them.

    Args:
        floats: fp32 values in each of three arrays.
    """
    torch.set_num_threads(default_threads())
    a, b, c = (torch.ones(floats) for _ in range(3))
    size = 4.0 * floats
    return {
        "read": (lambda: b.sum(), size),
        "copy": (lambda: a.copy_(b), 2 * size),
        "triad": (lambda: torch.add(b, c, alpha=3.0, out=a), 3 * size),
    }


def rates(work: Work, samples: Mapping[str, list[float]]) -> dict[str, Any]:
    """The rate to compute floors with, and all that were seen.

    Args:
        work: What ran.
        samples: Milliseconds of its calls, by name; others' are ignored.

    Returns:
        In operations or bytes a second: ``best``, the highest rate of any call; ``typical``, the highest
        median of a name's calls; ``all``: name → the best and the median.
    """
    every = {
        name: {"best": amount / min(samples[name]) * 1e3, "median": amount / ms * 1e3}
        for name, ms in medians({name: samples[name] for name in work}).items()
        for amount in [work[name][1]]
    }
    return {
        "best": max(rate["best"] for rate in every.values()),
        "typical": max(rate["median"] for rate in every.values()),
        "all": every,
    }


def floor(
    operations: float, moved: float, limits: Mapping[str, float], integers: float = 0
) -> tuple[float, str]:
    """Least milliseconds, and which limit it is.

    Args:
        operations: Multiplications and additions.
        moved: Bytes.
        limits: ``matrix`` in operations a second, ``memory`` in bytes a second;
            ``integer`` as ``matrix``, for 8-bit integers.
        integers: How many of the operations are of 8-bit integers.
    """
    seconds = (operations - integers) / limits["matrix"]
    if integers:
        seconds += integers / limits["integer"]
    times = {"matrix": seconds * 1e3, "memory": moved / limits["memory"] * 1e3}
    bound = max(times, key=times.__getitem__)
    return times[bound], bound


def _torch_product(a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
    one, other = torch.from_numpy(a), torch.from_numpy(b)
    out = torch.empty_like(one)
    return lambda: torch.matmul(one, other, out=out)


def _numpy_product(a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
    out = np.empty_like(a)
    return lambda: np.matmul(a, b, out=out)


def _onednn_product(a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
    """What PyTorch's compiler calls for int8; it takes the second matrix transposed, and gives fp32."""
    one, side = torch.from_numpy(a), len(a)
    packed = torch.ops.onednn.qlinear_prepack(torch.from_numpy(b).T.contiguous(), list(a.shape))
    scales, zeros = torch.ones(side), torch.zeros(side, dtype=torch.int64)
    return lambda: torch.ops.onednn.qlinear_pointwise(
        one, 1.0, 0, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )


def _runtime_product(a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
    helper, shape = onnx.helper, [len(a), len(a)]
    integer = a.dtype == np.uint8
    result = onnx.TensorProto.INT32 if integer else onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger" if integer else "MatMul", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", helper.np_dtype_to_tensor_dtype(a.dtype), shape)],
        [helper.make_tensor_value_info("c", result, shape)],
        [onnx.numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "product.onnx")
        session = create_session(Path(folder) / "product.onnx")
    return lambda: session.run(None, {"a": a})
