"""Shared by the conversions: inputs to calibrate on, layers of a graph, the report on their precision."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx

__all__ = ["Batch", "LayerReport", "checked", "heavy_layers", "set_nodes"]

Batch = Mapping[str, np.ndarray]
"""Inputs of an image encoder for one photo: ``{"image": uint8 [1, H, W, 3], "text": float32 [K, D]}``."""
_MAX_PRINTED = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerReport:
    """The layers of a graph after its conversion to a precision, see `heavy_layers`."""

    precision: str  # "fp16" or "int8".
    converted: int  # Number of layers that compute in it.
    total: int  # Number of layers.
    kept: Mapping[str, str]  # Node or kind of operator that stays fp32 → the reason.

    def to_json(self) -> dict[str, Any]:
        """The report for ``bundle.json``."""
        return {"converted": self.converted, "total": self.total, "fp32": dict(self.kept)}

    def text(self) -> str:
        """The report in a few lines; ``bundle.json`` has all entries."""
        lines = [f"{self.converted} of {self.total} layers compute in {self.precision}; these stay fp32:"]
        lines += [f"  {name}: {reason}" for name, reason in list(self.kept.items())[:_MAX_PRINTED]]
        if len(self.kept) > _MAX_PRINTED:
            lines.append(f"  and {len(self.kept) - _MAX_PRINTED} more, all in bundle.json")
        return "\n".join(lines)


def checked(calibration: Iterable[Batch]) -> list[Batch]:
    """The batches as a list; raises ValueError if there are none."""
    batches = list(calibration)
    if not batches:
        raise ValueError("no calibration photos; expected real photos similar to those in use")
    return batches


def heavy_layers(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The convolutions and matrix products with weights."""
    weights = {weight.name for weight in graph.initializer}
    return [node for node in graph.node if node.op_type in ("Conv", "MatMul") and node.input[1] in weights]


def set_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Replace the nodes, in place; nodes and weights that no output depends on are left out."""
    needed, used = {value.name for value in graph.output}, []
    for node in reversed(list(nodes)):
        if needed.intersection(node.output):
            needed.update(node.input)
            used.append(copy.deepcopy(node))  # Clearing the graph invalidates its own nodes.
    needed.difference_update(name for node in used for name in node.output)
    weights = [copy.deepcopy(weight) for weight in graph.initializer if weight.name in needed]
    # The inferred types are those of the old nodes.
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(used))
    graph.initializer.extend(weights)
