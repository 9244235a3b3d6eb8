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

from export.precision.layers import set_nodes

__all__ = ["store_fp16", "store_int8"]

# Smaller tensors are biases, norms and constants: little to gain, accuracy to lose.
_MIN_ELEMENTS = 1024


def store_fp16(model: onnx.ModelProto, *, keep: Collection[str] = ()) -> onnx.ModelProto:
    """A copy of an fp32 model with large weights stored as fp16, each with a Cast after it.

    Weights named in `keep` and weights with values beyond fp16's range stay fp32.
    """
    result = copy.deepcopy(model)
    casts = []
    for weight in _large_weights(result, _MIN_ELEMENTS, keep):
        name, values = weight.name, numpy_helper.to_array(weight)
        if np.abs(values).max() <= np.finfo(np.float16).max:
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16"))
            casts.append(helper.make_node("Cast", [f"{name}.fp16"], [name], to=TensorProto.FLOAT))
    set_nodes(result.graph, [*casts, *result.graph.node])
    return result


def store_int8(
    model: onnx.ModelProto, *, min_elements: int = _MIN_ELEMENTS, keep: Collection[str] = ()
) -> onnx.ModelProto:
    """A copy of an fp32 model with weights stored as int8, each with a Cast and a Mul after it.

    Weights named in `keep`, vectors and weights with fewer than `min_elements` stay fp32. A table that Gather
    reads has a scale per row, and only the rows that are read are expanded. Other weights have a scale per
    slice along their first dimension, or for matrices along the second if that rounds less.
    """
    result = copy.deepcopy(model)
    tables = {node.input[0] for node in result.graph.node if node.op_type == "Gather"}
    nodes: list[onnx.NodeProto] = []
    for weight in _large_weights(result, min_elements, keep):
        name, values = weight.name, numpy_helper.to_array(weight)
        if values.ndim < 2:
            continue
        channels = (0, 1) if values.ndim == 2 and name not in tables else (0,)
        _, quantised, scale = min((_quantise(values, channel) for channel in channels), key=lambda q: q[0])
        weight.CopyFrom(numpy_helper.from_array(quantised, f"{name}.int8"))
        result.graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        if name not in tables:
            nodes += _expand(f"{name}.int8", f"{name}.scale", name)
    stored = {weight.name for weight in result.graph.initializer}
    for node in result.graph.node:
        is_stored = node.op_type == "Gather" and f"{node.input[0]}.int8" in stored
        nodes += _gather_stored(node) if is_stored else [node]
    set_nodes(result.graph, nodes)
    return result


def _quantise(values: np.ndarray, channel: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Returns the squared error, int8 values in -127–127 and fp32 scales, one per slice along `channel`.

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
    quantised = np.clip(np.rint(values / best_scale), -127, 127).astype(np.int8)
    return float(np.square(quantised * best_scale - values).sum()), quantised, best_scale


def _expand(stored: str, scale: str, name: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [stored], [f"{stored}.fp32"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{stored}.fp32", scale], [name]),
    ]


def _gather_stored(gather: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Nodes that replace a Gather from an fp32 table: they read the int8 table and its scales."""
    (table, indices), (output,) = gather.input, gather.output
    rows, scales = f"{output}.int8", f"{output}.scale"
    return [
        helper.make_node("Gather", [f"{table}.int8", indices], [rows], axis=0),
        helper.make_node("Gather", [f"{table}.scale", indices], [scales], axis=0),
        *_expand(rows, scales, output),
    ]


def _large_weights(
    model: onnx.ModelProto, min_elements: int, keep: Collection[str]
) -> list[onnx.TensorProto]:
    floats = [weight for weight in model.graph.initializer if weight.data_type == TensorProto.FLOAT]
    return [weight for weight in floats if math.prod(weight.dims) >= min_elements and weight.name not in keep]
