"""Report which layers of a converted graph compute in the new precision."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import onnx

__all__ = ["LayerReport", "heavy_layers"]

_MAX_PRINTED = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerReport:
    """The layers of a graph after its conversion to a precision.

    Attributes:
        precision: ``"fp16"`` or ``"int8"``.
        converted: Number of convolutions and matrix products with weights that compute in it.
        total: Number of convolutions and matrix products with weights.
        kept: Node or kind of operator that stays fp32 → the reason.
    """

    precision: str
    converted: int
    total: int
    kept: Mapping[str, str]

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


def heavy_layers(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The convolutions and matrix products with weights."""
    weights = {weight.name for weight in graph.initializer}
    return [node for node in graph.node if node.op_type in ("Conv", "MatMul") and node.input[1] in weights]
