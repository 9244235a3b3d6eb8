"""Smaller files for CPU bundles: weights stored in fewer bits, arithmetic left in fp32.

The runtime expands the stored weights once, when it loads the graph (they are constants, and it folds
constants), so that speed is that of fp32 and only the rounding of the weights can change a result.
"""

import math
from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["quantise", "store_fp16", "store_int8"]

# Below this many elements a tensor is biases, norms or constants: nothing to gain, precision to lose.
_MIN_ELEMENTS = 1024


def store_fp16(model: onnx.ModelProto, *, keep: Collection[str] = ()) -> onnx.ModelProto:
    """Store large fp32 weights as fp16, each followed by a Cast.

    Args:
        model: An fp32 model; it is not changed.
        keep: Names of weights that stay as they are.

    Raises:
        ValueError: A weight does not fit into fp16's range.
    """
    result = _copy(model)
    casts = []
    for weight in _large_weights(result):
        if weight.name in keep:
            continue
        values = numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):  # Said below, with the weight's name.
            small = values.astype(np.float16)
        if not np.isfinite(small).all():
            raise ValueError(
                f"{weight.name} has values up to {np.abs(values).max():.3g}, beyond fp16; store it in fp32"
            )
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(small, f"{name}.fp16"))
        casts.append(helper.make_node("Cast", [f"{name}.fp16"], [name], to=TensorProto.FLOAT))
    return _with_nodes_in_front(result, casts)


def store_int8(
    model: onnx.ModelProto, *, min_elements: int = _MIN_ELEMENTS, keep: Collection[str] = ()
) -> onnx.ModelProto:
    """Store fp32 weights as int8 with a scale for each channel, each followed by Cast and Mul.

    A table read by Gather has a scale for each row, and only the rows that were read are expanded. Other
    weights have one for each slice along their first or (matrices) second dimension, whichever rounds less.

    Args:
        model: An fp32 model; it is not changed.
        min_elements: Weights with fewer elements stay as they are.
        keep: Names of weights that stay as they are.

    Raises:
        ValueError: A name in `keep` is no weight.
    """
    result = _copy(model)
    if unknown := set(keep) - {weight.name for weight in result.graph.initializer}:
        raise ValueError(f"no weights of the names {sorted(unknown)} to keep")
    tables = {node.input[0]: node for node in result.graph.node if node.op_type == "Gather"}
    nodes = []
    for weight in _large_weights(result, min_elements):
        values = numpy_helper.to_array(weight)
        if values.ndim < 2 or weight.name in keep:
            continue
        name = weight.name
        gather = tables.get(name)
        quantised, scale = quantise(values, 0)
        if gather is None and values.ndim == 2:
            other = quantise(values, 1)
            if _error(values, *other) < _error(values, quantised, scale):
                quantised, scale = other
        weight.CopyFrom(numpy_helper.from_array(quantised, f"{name}.int8"))
        result.graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        if gather is None:
            nodes += _expand(f"{name}.int8", f"{name}.scale", name)
        else:
            _expand_after(result.graph, gather, name)
    return _with_nodes_in_front(result, nodes)


def quantise(values: np.ndarray, channel: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 values from -127 to 127 and fp32 scales, one for each slice along the dimension `channel`.

    Of several clipping points, each channel takes the one with the least squared error: a single large
    weight does not coarsen all others.
    """
    axes = tuple(axis for axis in range(values.ndim) if axis != channel)
    largest = np.maximum(np.abs(values).max(axis=axes, keepdims=True), 1e-12)
    best_scale = largest / 127
    best_error = np.full_like(largest, np.inf)
    for clip in np.linspace(0.7, 1, 13):
        scale = largest * (clip / 127)
        rounded = np.clip(np.rint(values / scale), -127, 127) * scale
        error = np.square(rounded - values).sum(axis=axes, keepdims=True)
        best_scale = np.where(error < best_error, scale, best_scale)
        best_error = np.minimum(error, best_error)
    best_scale = best_scale.astype(np.float32)
    return np.clip(np.rint(values / best_scale), -127, 127).astype(np.int8), best_scale


def _error(values: np.ndarray, quantised: np.ndarray, scale: np.ndarray) -> float:
    return float(np.square(quantised * scale - values).sum())


def _expand(stored: str, scale: str, name: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [stored], [f"{stored}.fp32"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{stored}.fp32", scale], [name]),
    ]


def _expand_after(graph: onnx.GraphProto, gather: onnx.NodeProto, name: str) -> None:
    """Gather from the int8 table and from its scales, then multiply."""
    position = list(graph.node).index(gather)
    output = gather.output[0]
    indices = gather.input[1]
    rows, scales = f"{output}.int8", f"{output}.scale"
    replaced = [
        helper.make_node("Gather", [f"{name}.int8", indices], [rows], axis=0),
        helper.make_node("Gather", [f"{name}.scale", indices], [scales], axis=0),
        *_expand(rows, scales, output),
    ]
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes[:position] + replaced + nodes[position + 1 :])


def _large_weights(model: onnx.ModelProto, min_elements: int = _MIN_ELEMENTS) -> list[onnx.TensorProto]:
    return [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and math.prod(tensor.dims) >= min_elements
    ]


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def _with_nodes_in_front(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    onnx.checker.check_model(model, full_check=True)
    return model
