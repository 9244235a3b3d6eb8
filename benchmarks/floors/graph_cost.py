"""Operations and bytes that an ONNX graph needs at one input size."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import onnx

__all__ = ["GraphCost", "graph_cost", "operations"]

Shape = Sequence[int]

_CONVOLUTIONS = ("Conv",)
_MATRIX_PRODUCTS = ("MatMul", "Gemm")
_NOT_COUNTED = ("ConvTranspose", "Einsum", "Attention", "MultiHeadAttention")


@dataclasses.dataclass(frozen=True)
class GraphCost:
    """Cost of a graph at one input size.

    Attributes:
        operations: Multiplications and additions of all products.
        integer_operations: Part of them between two dequantized tensors, which can run in 8-bit integers.
        bytes: Weights as they are stored, inputs and the output.
    """

    operations: int
    integer_operations: int
    bytes: int


def operations(op: str, inputs: Sequence[Shape], output: Shape) -> int:
    """Returns a node's multiplications and additions, without bias; 0 if it is not a product.

    Args:
        op: The node's type.
        inputs: Shapes of its inputs.
        output: Shape of its output.

    Raises:
        ValueError: The node is a product of a type that is not counted.
    """
    if op in _CONVOLUTIONS:  # Weights (out, in / groups, *window).
        return 2 * math.prod(output) * math.prod(inputs[1][1:])
    if op in _MATRIX_PRODUCTS:
        # The inner side is the side of A that is not in the output; Gemm may transpose A.
        rows = output[-2] if len(output) > 1 and len(inputs[0]) > 1 else 1
        return 2 * math.prod(output) * (math.prod(inputs[0][-2:]) // rows)
    if op in _NOT_COUNTED:
        raise ValueError(f"{op} is not counted; expected {', '.join(_CONVOLUTIONS + _MATRIX_PRODUCTS)}")
    return 0


def graph_cost(model: onnx.ModelProto, inputs: Mapping[str, Shape], output: str) -> GraphCost:
    """Count a graph.

    Args:
        model: The graph; it is not changed.
        inputs: Input → shape.
        output: The output to compute. Nodes that it does not need are left out.

    Raises:
        ValueError: An input's shape is missing, a shape cannot be inferred, or a product cannot be counted.
    """
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    for value in sized.graph.input:
        if value.name not in inputs:
            raise ValueError(f"no shape for the input {value.name!r}; got {', '.join(inputs) or 'none'}")
        element = value.type.tensor_type.elem_type
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, list(inputs[value.name])))
    graph = onnx.shape_inference.infer_shapes(sized, strict_mode=True, data_prop=True).graph
    values = {
        value.name: value.type.tensor_type for value in [*graph.input, *graph.value_info, *graph.output]
    }
    weights = {tensor.name: tensor for tensor in graph.initializer}

    def shape(name: str) -> Shape:
        if name in weights:
            return weights[name].dims
        sides = values[name].shape.dim if name in values else []
        if name not in values or not all(side.HasField("dim_value") for side in sides):
            raise ValueError(f"the shape of {name!r} cannot be inferred from the inputs")
        return [side.dim_value for side in sides]

    def size(name: str) -> int:
        element = weights[name].data_type if name in weights else values[name].elem_type
        return math.prod(shape(name)) * onnx.helper.tensor_dtype_to_np_dtype(element).itemsize

    products = (*_CONVOLUTIONS, *_MATRIX_PRODUCTS, *_NOT_COUNTED)
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    needed, total, integers = {output}, 0, 0
    for node in reversed(graph.node):
        if not needed.intersection(node.output):
            continue
        needed.update(node.input)
        if node.op_type in products:
            count = operations(node.op_type, [shape(n) for n in node.input if n], shape(node.output[0]))
            total += count
            integers += count * dequantized.issuperset(node.input[:2])
    edges = [name for name in inputs if name in needed] + [output]
    moved = sum(size(name) for name in (*edges, *(needed & weights.keys())))
    return GraphCost(operations=total, integer_operations=integers, bytes=moved)
