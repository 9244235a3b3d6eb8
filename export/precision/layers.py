"""Which layers of an exported graph compute in its precision, which do not, and why."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import onnx

__all__ = ["Layers", "heavy_layers", "layer_names"]

# So many are printed; bundle.json has all.
_SHOWN = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layers:
    """What a conversion left in higher precision.

    Attributes:
        precision: What it converted to: ``"fp16"`` or ``"int8"``.
        converted: Convolutions and matrix products with weights that compute in it.
        total: All of them.
        kept: Layer, tensor or kind of operator → why it stays fp32.
    """

    precision: str
    converted: int
    total: int
    kept: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """For ``bundle.json``."""
        return {"converted": self.converted, "total": self.total, "fp32": dict(self.kept)}

    def text(self) -> str:
        """For people, in a few lines."""
        lines = [f"{self.converted} of {self.total} layers compute in {self.precision}; in fp32 stay:"]
        shown = list(self.kept.items())[:_SHOWN]
        lines += [f"  {name}: {why}" for name, why in shown]
        if more := len(self.kept) - len(shown):
            lines.append(f"  and {more} more, all in bundle.json")
        return "\n".join(lines)


def heavy_layers(graph: onnx.GraphProto) -> list[str]:
    """Names of the convolutions and matrix products with weights."""
    weights = {weight.name for weight in graph.initializer}
    return [
        node.name for node in graph.node if node.op_type in ("Conv", "MatMul") and node.input[1] in weights
    ]


def layer_names(graph: onnx.GraphProto) -> dict[str, str]:
    """Node → the module that it came from, as far as its parameters or those around it still tell.

    The exporter keeps a parameter's name where it stores it as it is; a transposed weight loses it. Then the
    bias that is added next has it, or else the nearest layer before: ``"behind blocks.0.expand.0"``.
    """
    parameters = {weight.name for weight in graph.initializer if weight.name.rpartition(".")[0]}
    users: dict[str, list[onnx.NodeProto]] = {}
    made = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)

    def module(node: onnx.NodeProto) -> str:
        found = [name.rpartition(".")[0] for name in node.input if name in parameters]
        return found[0] if found else ""

    def added_next(node: onnx.NodeProto) -> str:
        for output in node.output:
            for user in users.get(output, []):
                name = added_next(user) if user.op_type == "Split" else ""
                if name := name or (module(user) if user.op_type == "Add" else ""):
                    return name
        return ""

    names = {}
    for node in graph.node:
        name, before = module(node) or added_next(node), node
        while not name and before.input and before.input[0] in made:
            before = made[before.input[0]]
            near = module(before)
            name = f"behind {near}" if near else ""
        names[node.name] = name or node.name
    return names
