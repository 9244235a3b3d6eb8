"""Where an encoder's time goes in ONNX Runtime, by kind of operator, and how far each is from its floor."""

import collections
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.floors.graph_cost import VIEWS, GraphCost, NodeCost, kind
from benchmarks.harness.machine import floor
from pixelclip_sdk.backends.onnx import create_session

__all__ = ["kinds", "profile"]

# Share of the encoder's time below which a kind of operator is one of the others.
_SMALL = 0.005


def profile(path: Path, feeds: Mapping[str, np.ndarray], runs: int, folder: Path) -> list[dict[str, Any]]:
    """Milliseconds a run by kind of operator, as ONNX Runtime runs the encoder, in the SDK's session.

    Args:
        path: The encoder.
        feeds: Its inputs.
        runs: Profiled runs, after two that do not count; times are medians over them.
        folder: For the profile.

    Returns:
        Rows with `kind`, `nodes`, `ms` and `bytes` (of activations and constants read and of results
        written), the longest first; at last what passes between nodes.
    """
    options = create_session(path).get_session_options()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for _ in range(runs + 2):
        session.run(["logits"], dict(feeds))
    events = json.loads(Path(session.end_profiling()).read_text())
    whole = [event["dur"] for event in events if event["name"] == "model_run"][2:]
    nodes = [event for event in events if event["name"].endswith("_kernel_time")]
    each = len(nodes) // (runs + 2)
    times: dict[str, list[float]] = collections.defaultdict(lambda: [0.0] * runs)
    moved, count = collections.Counter[str](), collections.Counter[str]()
    for i, event in enumerate(nodes[2 * each :]):
        facts = event["args"]
        name = kind(facts["op_name"], [next(iter(value.values())) for value in facts["input_type_shape"]])
        times[name][i // each] += event["dur"] / 1e3
        if i < each:
            count[name] += 1
            moved[name] += sum(int(facts[f"{part}_size"]) for part in ("parameter", "activation", "output"))
    rows: list[dict[str, Any]] = [
        {"kind": name, "nodes": count[name], "ms": statistics.median(values), "bytes": moved[name]}
        for name, values in times.items()
    ]
    rows.sort(key=lambda row: -row["ms"])
    between = [run / 1e3 - sum(values[i] for values in times.values()) for i, run in enumerate(whole)]
    return [*rows, {"kind": "between nodes", "nodes": 0, "ms": statistics.median(between), "bytes": 0}]


def kinds(
    rows: Sequence[Mapping[str, Any]], cost: GraphCost, limits: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Profiled rows with their shares and floors; those below half a percent are one row.

    Kinds with products have the operations and bytes of the graph as it was exported, so that padding which
    ONNX Runtime adds does not raise the floor; the others have the bytes of what ONNX Runtime runs.
    """
    graph: dict[str, list[NodeCost]] = collections.defaultdict(list)
    for node in cost.nodes:
        if node.operations:
            graph[node.kind].append(node)
    total = sum(row["ms"] for row in rows)
    result: list[dict[str, Any]] = []
    small = {"kind": "others", "nodes": 0, "ms": 0.0, "bytes": 0, "operations": 0, "floor_ms": 0.0}
    for row in rows:
        nodes = graph.get(row["kind"]) or [NodeCost("", "", 0, 0 if row["kind"] in VIEWS else row["bytes"])]
        full = {
            **row,
            "bytes": sum(node.bytes for node in nodes),
            "operations": sum(node.operations for node in nodes),
            "floor_ms": sum(floor(node.operations, node.bytes, limits)[0] for node in nodes),
        }
        if row["nodes"] and row["ms"] < _SMALL * total and not full["operations"]:
            small |= {key: small[key] + full[key] for key in small if key != "kind"}
        else:
            result.append(full)
    if small["nodes"]:
        result.append(small)
        result.sort(key=lambda row: row["nodes"] == 0)  # What passes between nodes stays the last.
    for row in result:
        row["share"] = row["ms"] / total
        row["over_floor"] = row["ms"] / row["floor_ms"] if row["floor_ms"] else None
    return result
