"""Run time of an encoder by kind of operator, from ONNX Runtime's profiler."""

import collections
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from pixelclip_sdk.backends.onnx import create_session

__all__ = ["kind", "profile"]

_SMALL = 0.005  # Kinds with a smaller share of the time are summed up as "others".
_WARMUP = 2


def kind(op: str, inputs: Sequence[Sequence[int]]) -> str:
    """Returns the kind of a node: convolutions by window, products by their second matrix, others by type.

    Args:
        op: The node's type. Fused nodes of ONNX Runtime have the kind of the product in them.
        inputs: Shapes of its inputs. The profiler omits constant matrices that ONNX Runtime packed.
    """
    if op in ("Conv", "FusedConv"):
        _, channels, *window = inputs[1]
        depthwise = channels == 1 and inputs[0][1] > 1
        return "Conv depthwise" if depthwise else "Conv " + "×".join(map(str, window))
    if op in ("MatMul", "FusedMatMul", "Gemm"):
        return "MatMul batched" if len(inputs) > 1 and len(inputs[1]) > 2 else "MatMul by one matrix"
    return op


def profile(path: Path, feeds: Mapping[str, np.ndarray], runs: int, folder: Path) -> list[dict[str, Any]]:
    """Profile an encoder in the SDK's session.

    Args:
        path: The encoder.
        feeds: Its inputs.
        runs: Profiled runs, after two runs of warm-up.
        folder: Folder for the profile.

    Returns:
        Rows with `kind`, `nodes`, `ms` (median of the runs) and `share` (0–1), the slowest first. Small kinds
        are summed up. The last row is the time between nodes.
    """
    options = create_session(path).get_session_options()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for _ in range(runs + _WARMUP):
        session.run(["logits"], dict(feeds))
    events = json.loads(Path(session.end_profiling()).read_text())
    whole = [event["dur"] / 1e3 for event in events if event["name"] == "model_run"][_WARMUP:]
    nodes = [event for event in events if event["name"].endswith("_kernel_time")]
    each = len(nodes) // (runs + _WARMUP)
    times: dict[str, list[float]] = collections.defaultdict(lambda: [0.0] * runs)
    count = collections.Counter[str]()
    for i, event in enumerate(nodes[_WARMUP * each :]):
        shapes = [next(iter(value.values())) for value in event["args"]["input_type_shape"]]
        name = kind(event["args"]["op_name"], shapes)
        times[name][i // each] += event["dur"] / 1e3
        count[name] += i < each
    between = [run - sum(values[i] for values in times.values()) for i, run in enumerate(whole)]
    medians = {name: statistics.median(values) for name, values in times.items()}
    medians["between nodes"] = statistics.median(between)
    total = sum(medians.values())
    small = [name for name, ms in medians.items() if ms < _SMALL * total and name in count]
    medians["others"], count["others"] = (
        sum(medians.pop(name) for name in small),
        sum(count[n] for n in small),
    )
    order = sorted(medians, key=lambda name: (name == "between nodes", name == "others", -medians[name]))
    return [
        {"kind": name, "nodes": count[name], "ms": medians[name], "share": medians[name] / total}
        for name in order
    ]
