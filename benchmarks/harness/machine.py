"""Peak rates of this machine: fp32 and int8 matrix products, memory bandwidth."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch

from benchmarks.harness.turns import medians
from pixelclip_sdk.backends.onnx import create_session, default_threads

__all__ = ["Work", "floor_ms", "machine_work", "peak_rates"]

_SIDES = (1024, 2048, 3072)
# fp32 values in each of two arrays: 512 MB each, more than any cache.
_FLOATS = 1 << 27

Work = dict[str, tuple[Callable[[], object], float]]
"""Name → function to time, and its operations or bytes. The name starts with the rate that it measures."""


def machine_work(sides: Sequence[int] = _SIDES, floats: int = _FLOATS) -> Work:
    """Returns functions that measure the machine, with the SDK's thread count.

    ``matrix``: fp32 products in PyTorch, numpy and ONNX Runtime. ``integer``: uint8 by int8 products in
    oneDNN (through PyTorch) and ONNX Runtime, with weights of seven bits as in our models: sums of 8-bit
    products overflow on processors without VNNI. ``memory``: a copy, with reads plus writes as in STREAM.

    Args:
        sides: Rows and columns of square matrices.
        floats: fp32 values in each of the arrays to copy.
    """
    torch.set_num_threads(default_threads())
    target, source = torch.ones(floats), torch.ones(floats)
    work: Work = {"memory copy": (partial(target.copy_, source), 2 * 4.0 * floats)}
    for side in sides:
        rng = np.random.default_rng(0)
        a, b = rng.standard_normal((2, side, side), np.float32)
        left, right = torch.from_numpy(a), torch.from_numpy(b)
        u8 = rng.integers(0, 256, (side, side), dtype=np.uint8)
        s8 = rng.integers(-63, 64, (side, side), dtype=np.int8)
        calls = {
            "matrix torch": partial(torch.matmul, left, right, out=torch.empty_like(left)),
            "matrix numpy": partial(np.matmul, a, b, out=np.empty_like(a)),
            "matrix onnxruntime": _onnxruntime_product(a, b),
            "integer onednn": _onednn_product(u8, s8),
            "integer onnxruntime": _onnxruntime_product(u8, s8),
        }
        work |= {f"{name} {side}": (call, 2.0 * side**3) for name, call in calls.items()}
    return work


def peak_rates(work: Work, samples: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Returns ``matrix``, ``integer`` (operations a second) and ``memory`` (bytes a second).

    Args:
        work: The timed functions.
        samples: Milliseconds by name; names that are not in `work` are ignored.

    Returns:
        Rate → ``typical``, the highest median of any function, and ``best``, the rate of the fastest call.
    """
    rates: dict[str, dict[str, float]] = {}
    for name, median in medians({name: samples[name] for name in work}).items():
        amount, rate = work[name][1], rates.setdefault(name.split()[0], {"typical": 0.0, "best": 0.0})
        rate["typical"] = max(rate["typical"], amount / median * 1e3)
        rate["best"] = max(rate["best"], amount / min(samples[name]) * 1e3)
    return rates


def floor_ms(
    operations: float, moved: float, rates: Mapping[str, float], integers: float = 0
) -> tuple[float, str]:
    """Returns the least run time in milliseconds and its limit, ``"matrix"`` or ``"memory"``.

    The roofline model (Williams et al. 2009): the longer of arithmetic and memory traffic.

    Args:
        operations: Multiplications and additions.
        moved: Bytes.
        rates: ``matrix`` and ``integer`` in operations a second, ``memory`` in bytes a second.
        integers: Part of the operations in 8-bit integers.
    """
    arithmetic = (operations - integers) / rates["matrix"] + integers / rates["integer"]
    memory = moved / rates["memory"]
    return max(arithmetic, memory) * 1e3, "matrix" if arithmetic >= memory else "memory"


def _onednn_product(a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
    """The int8 product that torch.compile uses. Its second matrix is transposed, its result fp32."""
    left, side = torch.from_numpy(a), len(a)
    packed = torch.ops.onednn.qlinear_prepack(torch.from_numpy(b).T.contiguous(), list(a.shape))
    scales, zeros = torch.ones(side), torch.zeros(side, dtype=torch.int64)
    return lambda: torch.ops.onednn.qlinear_pointwise(
        left, 1.0, 0, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )


def _onnxruntime_product(a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
    """The second matrix is a constant, so that ONNX Runtime packs it as it packs a model's weights."""
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
