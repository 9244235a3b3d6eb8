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

_WARMUP = 2


def kind(op: str, inputs: Sequence[Sequence[int]]) -> str:
    """Returns the kind of a node: convolutions by window, products by their second matrix, others by type.

    Shapes of constant matrices are missing in the profile where ONNX Runtime packed them.
    """
    if op in ("Conv", "FusedConv"):
        _, channels, *window = inputs[1]
        depthwise = channels == 1 and inputs[0][1] > 1
        return "Conv depthwise" if depthwise else "Conv " + "×".join(map(str, window))
    if op in ("MatMul", "FusedMatMul", "Gemm"):
        return "MatMul batched" if len(inputs) > 1 and len(inputs[1]) > 2 else "MatMul by one matrix"
    return op


def profile(path: Path, feeds: Mapping[str, np.ndarray], runs: int, folder: Path) -> list[dict[str, Any]]:
    """Profile an encoder in the SDK's session; the profile is written to `folder`.

    Returns rows with `kind`, `nodes`, `ms` (median of the runs) and `share` (0–1), the slowest first.
    The last row is the time between nodes.
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
    between = statistics.median(np.subtract(whole, np.sum(list(times.values()), axis=0)))
    medians = {name: statistics.median(values) for name, values in times.items()}
    total = sum(medians.values()) + between
    rows = [(name, count[name], medians[name]) for name in sorted(medians, key=lambda name: -medians[name])]
    rows.append(("between nodes", 0, float(between)))
    return [{"kind": name, "nodes": n, "ms": ms, "share": float(ms / total)} for name, n, ms in rows]
