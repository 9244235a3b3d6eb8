"""What an ONNX graph has to compute and to move at one input size, node by node.

An operation is a multiplication or an addition, so a multiply-add is two. Only products are counted: Conv,
ConvTranspose, MatMul, Gemm, Einsum, attention. All else goes by its bytes.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import onnx

__all__ = ["VIEWS", "GraphCost", "NodeCost", "graph_cost", "kind", "operations"]

Shape = Sequence[int]

_PRODUCTS = ("MatMul", "FusedMatMul", "Gemm")
_ATTENTION = ("Attention", "MultiHeadAttention")
VIEWS = ("Reshape", "Shape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
"""Types of nodes that change how memory is read, and move none of it."""


@dataclasses.dataclass(frozen=True)
class NodeCost:
    """A node's cost.

    Attributes:
        name: The node's, or its first output's where it has none.
        kind: See `kind`.
        operations: Multiplications and additions of its products; 0 where it has none.
        bytes: All that it reads and writes, once each.
        integer: Whether its factors are 8-bit integers that are only unpacked for it, so that it can compute
            with them as they are.
    """

    name: str
    kind: str
    operations: int
    bytes: int
    integer: bool = False


@dataclasses.dataclass(frozen=True)
class GraphCost:
    """A graph's cost at one input size.

    Attributes:
        nodes: Those that the wanted output needs and that do not fold into constants when the graph loads.
        operations: Of all nodes.
        integer_operations: Those of them that can be done in 8-bit integers.
        weight_bytes: Constants that the nodes read, in the type they are computed in.
        edge_bytes: The graph's inputs and its wanted output.
    """

    nodes: tuple[NodeCost, ...]
    operations: int
    weight_bytes: int
    edge_bytes: int
    integer_operations: int = 0


def kind(op: str, inputs: Sequence[Shape]) -> str:
    """What sort of node it is, for people: convolutions by their window, products by what they multiply.

    ONNX Runtime's fused nodes have the kind of what was fused, and its profiler leaves out matrices that it
    packed beforehand: those are constants.

    Args:
        op: The node's type.
        inputs: Shapes of its inputs.
    """
    if op in ("Conv", "FusedConv"):
        _, channels, *window = inputs[1]
        if channels == 1 and inputs[0][1] > 1:
            return "Conv depthwise"
        return "Conv " + "×".join(map(str, window))
    if op in _PRODUCTS:  # By weights, and by words; as in attention, a matrix for each of a batch.
        return "MatMul batched" if len(inputs) > 1 and len(inputs[1]) > 2 else "MatMul by one matrix"
    return op


def operations(
    op: str, inputs: Sequence[Shape], outputs: Sequence[Shape], attributes: Mapping[str, Any] | None = None
) -> int:
    """Multiplications and additions of a node's products; biases and activations are left out.

    Args:
        op: The node's type.
        inputs: Shapes of its inputs.
        outputs: Shapes of its outputs.
        attributes: The node's; Einsum's equation is needed.

    Raises:
        ValueError: It is a product of a form that is not counted here.
    """
    if op in ("Conv", "FusedConv"):  # Weights (out, in / groups, *window): groups are in the shape.
        return 2 * math.prod(outputs[0]) * math.prod(inputs[1][1:])
    if op == "ConvTranspose":
        return 2 * math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if op in _PRODUCTS:
        # Each value of the result is a sum over the inner side, whichever of A's two it is.
        rows = outputs[0][-2] if len(outputs[0]) > 1 and len(inputs[0]) > 1 else 1
        inner = math.prod(inputs[0][-2:]) // rows
        return 2 * math.prod(outputs[0]) * inner
    if op == "Einsum":
        return _einsum(str((attributes or {}).get("equation", "")), inputs)
    if op in _ATTENTION:
        query, key, value = inputs[:3]
        if not len(query) == len(key) == len(value):
            raise ValueError(
                f"{op} of {query}, {key}, {value}; expected queries, keys and values of equal rank"
            )
        # (…, S, d) · (…, d, L), then (…, S, L) · (…, L, e); heads lie in d or before S.
        return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    return 0


def _einsum(equation: str, inputs: Sequence[Shape]) -> int:
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    if "." in equation or len(terms) != len(inputs):
        raise ValueError(f"Einsum {equation!r} of {len(inputs)} inputs; expected as many terms, no ellipsis")
    sides: dict[str, int] = {}
    for term, shape in zip(terms, inputs, strict=True):
        sides |= dict(zip(term, shape, strict=True))
    return 2 * math.prod(sides.values())


def graph_cost(model: onnx.ModelProto, inputs: Mapping[str, Shape], output: str) -> GraphCost:
    """Count a graph.

    Args:
        model: The graph; it is not changed.
        inputs: Shape of every input.
        output: The one output that is wanted.

    Raises:
        ValueError: An input is missing, or the shape of a node's input or output does not follow from them.
    """
    tensors = _Tensors(model, inputs)
    needed, kept = {output}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    live = [node for node in reversed(kept) if not tensors.folds(node)]
    costs = tuple(_node_cost(node, tensors) for node in live)
    weights = {name for node in live for name in node.input if name in tensors.constants}
    edges = [name for name in inputs if name in needed] + [output]
    return GraphCost(
        nodes=costs,
        operations=sum(cost.operations for cost in costs),
        weight_bytes=sum(map(tensors.bytes, weights)),
        edge_bytes=sum(map(tensors.bytes, edges)),
        integer_operations=sum(cost.operations for cost in costs if cost.integer),
    )


def _node_cost(node: onnx.NodeProto, tensors: "_Tensors") -> NodeCost:
    sources = [name for name in node.input if name]
    shapes = [tensors.shape(name) for name in sources]
    results = [name for name in node.output if name and tensors.known(name)]
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    if isinstance(attributes.get("equation"), bytes):
        attributes["equation"] = attributes["equation"].decode()
    moved = 0 if node.op_type in VIEWS else sum(map(tensors.bytes, [*dict.fromkeys(sources), *results]))
    return NodeCost(
        name=node.name or node.output[0],
        kind=kind(node.op_type, shapes),
        operations=operations(
            node.op_type, shapes, [tensors.shape(node.output[0])] if results else [], attributes
        ),
        bytes=moved,
        integer=tensors.integer(node),
    )


class _Tensors:
    """Shapes and types of a graph's values, from ONNX's shape inference, and which are constant."""

    def __init__(self, model: onnx.ModelProto, inputs: Mapping[str, Shape]) -> None:
        sized = onnx.ModelProto()
        sized.CopyFrom(model)
        for value in sized.graph.input:
            if value.name not in inputs:
                raise ValueError(f"no shape for the input {value.name!r}; got {', '.join(inputs) or 'none'}")
            value.CopyFrom(
                onnx.helper.make_tensor_value_info(
                    value.name, value.type.tensor_type.elem_type, list(inputs[value.name])
                )
            )
        graph = onnx.shape_inference.infer_shapes(sized, strict_mode=True, data_prop=True).graph
        self._types = {
            value.name: value.type.tensor_type for value in [*graph.input, *graph.value_info, *graph.output]
        }
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._unpacked = {
            name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output
        }
        # Unpacked for products that can take them as they are: a byte each.
        self._narrow = {name for node in graph.node if self.integer(node) for name in node.input[:2]}
        self.constants = set(self._initializers)
        for node in graph.node:
            if self.folds(node):
                self.constants.update(node.output)

    def folds(self, node: onnx.NodeProto) -> bool:
        """Whether a node gives constants."""
        return all(name in self.constants for name in node.input if name)

    def integer(self, node: onnx.NodeProto) -> bool:
        """Whether a node is a product of two arrays of 8-bit integers."""
        return node.op_type in ("Conv", *_PRODUCTS) and all(n in self._unpacked for n in node.input[:2])

    def known(self, name: str) -> bool:
        """Whether a value's type was inferred; unused outputs' may not be."""
        return name in self._types or name in self._initializers

    @functools.cache  # noqa: B019 - lives as long as the count
    def shape(self, name: str) -> tuple[int, ...]:
        if name in self._initializers:
            return tuple(self._initializers[name].dims)
        sides = self._types[name].shape.dim if name in self._types else ()
        if name not in self._types or not all(side.HasField("dim_value") for side in sides):
            raise ValueError(f"the shape of {name!r} does not follow from the inputs'")
        return tuple(side.dim_value for side in sides)

    def bytes(self, name: str) -> int:
        if name in self._narrow:
            return math.prod(self.shape(name))
        initializer = self._initializers.get(name)
        element = initializer.data_type if initializer is not None else self._types[name].elem_type
        return math.prod(self.shape(name)) * onnx.helper.tensor_dtype_to_np_dtype(element).itemsize
