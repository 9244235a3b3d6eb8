"""Operations and bytes that an ONNX graph needs at one input size."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import onnx

Shape = Sequence[int]

_COUNTED = ("Conv", "MatMul", "Gemm")
_NOT_COUNTED = ("ConvTranspose", "Einsum", "Attention", "MultiHeadAttention")


@dataclasses.dataclass(frozen=True)
class GraphCost:
    """Cost of a graph at one input size."""

    operations: int  # Multiplications and additions of all products.
    integer_operations: int  # Part of them between dequantized tensors, which can run in 8-bit integers.
    bytes: int  # Weights as they are stored, inputs and the output.


def operations(op: str, inputs: Sequence[Shape], output: Shape) -> int:
    """Returns a node's multiplications and additions, without bias; 0 if it is not a product."""
    if op in _NOT_COUNTED:
        raise ValueError(f"{op} is not counted; expected {', '.join(_COUNTED)}")
    if op not in _COUNTED:
        return 0
    if op == "Conv":  # Weights (out, in / groups, *window).
        return 2 * math.prod(output) * math.prod(inputs[1][1:])
    # The inner side is the side of A that is not in the output; Gemm may transpose A.
    rows = output[-2] if len(output) > 1 and len(inputs[0]) > 1 else 1
    return 2 * math.prod(output) * (math.prod(inputs[0][-2:]) // rows)


def graph_cost(model: onnx.ModelProto, inputs: Mapping[str, Shape], output: str) -> GraphCost:
    """Count what one output of a graph needs, with the shape of each input.

    Raises ValueError if a shape is missing or cannot be inferred, or if a product cannot be counted.
    """
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    for value in sized.graph.input:
        if value.name not in inputs:
            raise ValueError(f"no shape for the input {value.name!r}; got {', '.join(inputs) or 'none'}")
        element = value.type.tensor_type.elem_type
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, list(inputs[value.name])))
    graph = onnx.shape_inference.infer_shapes(sized, strict_mode=True, data_prop=True).graph
    values = {v.name: v.type.tensor_type for v in (*graph.input, *graph.value_info, *graph.output)}
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

    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    needed, total, integers = {output}, 0, 0
    for node in reversed(graph.node):
        if not needed.intersection(node.output):
            continue
        needed.update(node.input)
        if node.op_type in _COUNTED + _NOT_COUNTED:  # Shapes of other nodes may be unknown.
            count = operations(node.op_type, [shape(n) for n in node.input if n], shape(node.output[0]))
            total += count
            integers += count * dequantized.issuperset(node.input[:2])
    edges = [name for name in inputs if name in needed] + [output]
    moved = sum(size(name) for name in (*edges, *(needed & weights.keys())))
    return GraphCost(operations=total, integer_operations=integers, bytes=moved)
