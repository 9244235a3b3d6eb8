"""Store weights in fewer bits and compute in fp32, for smaller bundles on CPUs.

ONNX Runtime expands the stored weights once, when it loads the graph, since it folds constants. So the graph
runs as fast as in fp32, and only the rounding of the weights changes results.
"""

import copy
import math
from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["quantise", "store_fp16", "store_int8"]

# Smaller tensors are biases, norms and constants: little to gain, accuracy to lose.
_MIN_ELEMENTS = 1024


def store_fp16(model: onnx.ModelProto, *, keep: Collection[str] = ()) -> onnx.ModelProto:
    """Store large fp32 weights as fp16, each with a Cast after it.

    Args:
        model: An fp32 model; it is not changed.
        keep: Names of weights that stay fp32. Weights with values beyond fp16's range stay fp32 too.
    """
    result = copy.deepcopy(model)
    casts = []
    for weight in _large_weights(result, _MIN_ELEMENTS, keep):
        name, values = weight.name, numpy_helper.to_array(weight)
        if np.abs(values).max() <= np.finfo(np.float16).max:
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16"))
            casts.append(helper.make_node("Cast", [f"{name}.fp16"], [name], to=TensorProto.FLOAT))
    return _with_nodes_in_front(result, casts)


def store_int8(
    model: onnx.ModelProto, *, min_elements: int = _MIN_ELEMENTS, keep: Collection[str] = ()
) -> onnx.ModelProto:
    """Store fp32 weights as int8 with a scale per channel, each with a Cast and a Mul after it.

    A table that Gather reads has a scale per row, and only the rows that are read are expanded. Other weights
    have a scale per slice along their first dimension, or for matrices along the second if that rounds less.

    Args:
        model: An fp32 model; it is not changed.
        min_elements: Weights with fewer elements stay fp32.
        keep: Names of weights that stay fp32.

    Raises:
        ValueError: A name in `keep` is not a weight.
    """
    result = copy.deepcopy(model)
    if unknown := set(keep) - {weight.name for weight in result.graph.initializer}:
        raise ValueError(f"the graph has no weights named {sorted(unknown)}")
    tables = {node.input[0]: node for node in result.graph.node if node.op_type == "Gather"}
    nodes = []
    for weight in _large_weights(result, min_elements, keep):
        name, values = weight.name, numpy_helper.to_array(weight)
        if values.ndim < 2:
            continue
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
    """Quantise to int8 values in -127–127 and fp32 scales, one per slice along the dimension `channel`.

    For each channel, the clipping point with the least squared error is taken, so a single large weight does
    not make all others coarse.
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
    """Replace a Gather from an fp32 table by one from the int8 table and one from its scales."""
    output, indices = gather.output[0], gather.input[1]
    rows, scales = f"{output}.int8", f"{output}.scale"
    position = list(graph.node).index(gather)
    graph.node.remove(gather)
    for offset, node in enumerate(
        [
            helper.make_node("Gather", [f"{name}.int8", indices], [rows], axis=0),
            helper.make_node("Gather", [f"{name}.scale", indices], [scales], axis=0),
            *_expand(rows, scales, output),
        ]
    ):
        graph.node.insert(position + offset, node)


def _large_weights(
    model: onnx.ModelProto, min_elements: int, keep: Collection[str]
) -> list[onnx.TensorProto]:
    return [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
        and math.prod(tensor.dims) >= min_elements
        and tensor.name not in keep
    ]


def _with_nodes_in_front(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    onnx.checker.check_model(model, full_check=True)
    return model
