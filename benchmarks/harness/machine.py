"""Peak rates of this machine: fp32 and int8 matrix products, memory bandwidth."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from pixelclip_sdk.backends.onnx import default_threads

# fp32 values in each of two arrays: 512 MB each, more than any cache.
_FLOATS = 1 << 27

Work = dict[str, tuple[Callable[[], object], float]]
"""Name → function to time, and its operations or bytes. The name starts with the rate that it measures."""


def machine_work(sides: Sequence[int] = (1024, 2048, 3072), floats: int = _FLOATS) -> Work:
    """Returns functions that measure the machine, with the SDK's thread count.

    ``matrix``: fp32 products in PyTorch and numpy. ``integer``: uint8 by int8 products in oneDNN (through
    PyTorch), with weights of seven bits as in our models: sums of 8-bit products overflow on processors
    without VNNI. ``memory``: a copy of fp32 values, with reads plus writes as in STREAM.
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
            "integer onednn": onednn_product(u8, s8),
        }
        work |= {f"{name} {side}": (call, 2.0 * side**3) for name, call in calls.items()}
    return work


def peak_rates(work: Work, samples: Mapping[str, list[float]]) -> dict[str, float]:
    """Returns ``matrix``, ``integer`` (operations a second) and ``memory`` (bytes a second).

    Each is the highest median of any function. Samples are milliseconds by name.
    """
    rates: dict[str, float] = {}
    for name, (_, amount) in work.items():
        rate = name.split()[0]
        rates[rate] = max(rates.get(rate, 0), amount / statistics.median(samples[name]) * 1e3)
    return rates


def floor_ms(operations: float, moved: float, rates: Mapping[str, float], integers: float = 0) -> float:
    """Returns the least run time in milliseconds.

    The roofline model (Williams et al. 2009): the longer of arithmetic and memory traffic. `moved` is in
    bytes, `rates` are operations or bytes a second, and `integers` are the operations in 8-bit integers.
    """
    arithmetic = (operations - integers) / rates["matrix"] + integers / rates["integer"]
    return max(arithmetic, moved / rates["memory"]) * 1e3


def onednn_product(a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
    """The int8 product that torch.compile uses. Its second matrix is transposed, its result fp32."""
    left, side = torch.from_numpy(a), len(a)
    packed = torch.ops.onednn.qlinear_prepack(torch.from_numpy(b).T.contiguous(), list(a.shape))
    scales, zeros = torch.ones(side), torch.zeros(side, dtype=torch.int64)
    return lambda: torch.ops.onednn.qlinear_pointwise(
        left, 1.0, 0, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
