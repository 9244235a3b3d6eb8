"""fp16 for GPUs: an ONNX graph with tensors typed fp16, so that a strongly typed engine computes in fp16.

What stays fp32, because rounding or range would show: LayerNormalization, Softmax, everything from the
features' normalisation on (lengths, cosines), the graph's inputs and outputs, and tensors that come near
fp16's largest number on the calibration photos.
"""

from collections.abc import Callable, Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.precision.calibration import Batch, largest_values
from export.precision.layers import Layers, heavy_layers, layer_names

__all__ = ["rounding", "to_fp16"]

_FLOAT32_OPS = ("LayerNormalization", "Softmax")
# The first of these begins the part that compares features with words.
_NORMALISATIONS = ("ReduceL2", "LpNormalization")
_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).tiny)
# Other photos than the ones we saw may give larger values: room for four times as much.
_HEADROOM = 4
_STATISTICS = "sums over many values"
_HEAD = "rounding would show in the scores"


def to_fp16(
    model: onnx.ModelProto, calibration: Iterable[Batch], *, tell: Callable[[Layers], None] | None = None
) -> onnx.ModelProto:
    """Type an fp32 image encoder fp16, where fp16 is good enough.

    Works on the result of `to_int8` too: what is not int8 becomes fp16.

    Args:
        model: The encoder; it is not changed.
        calibration: A few real photos: ``{"image": uint8 [1, H, W, 3], "text": float32 [K, D]}`` each. The
            fp32 graph runs on them, and tensors beyond a quarter of fp16's range stay fp32.
        tell: Is called with what stayed in fp32, and why.

    Returns:
        A checked model with the same inputs and outputs.

    Raises:
        ValueError: A weight does not fit into fp16's range, or there is no photo.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _check_weights(result.graph)
    _name_nodes(result.graph)
    reasons = _kept_nodes(result.graph, largest_values(result, calibration))
    if tell is not None:
        tell(_told(result.graph, reasons))
    kept = set(reasons)
    _own_weights(result.graph, kept)
    del result.graph.value_info[:]  # The converter infers its own, and takes weights listed here for fp16.
    result = convert_float_to_float16(
        result, keep_io_types=True, op_block_list=[], node_block_list=sorted(kept)
    )
    _sort(result.graph)
    result = _with_types(result)
    _drop_needless_casts(result.graph)
    result = _with_types(result)
    onnx.checker.check_model(result, full_check=True)
    return result


def rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph in which every fp16 tensor has fp16's range and precision, also in ONNX Runtime on a CPU.

    That computes nearly all fp16 operators in fp32 and drops the roundings between them, which an engine does
    not. Behind each tensor comes an operator that it does have in fp16 and that changes nothing, the maximum
    of one tensor: twice, since one alone between others in fp32 it computes in fp32 as well.

    Args:
        model: What `to_fp16` made; it is not changed.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = _with_types(result).graph
    half = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    names: dict[str, str] = {}
    nodes = []
    for node in result.graph.node:
        renamed = onnx.NodeProto()
        renamed.CopyFrom(node)
        renamed.input[:] = [names.get(name, name) for name in node.input]
        nodes.append(renamed)
        for name in half.intersection(node.output):
            names[name] = f"{name}/rounded"
            nodes.append(helper.make_node("Max", [name], [f"{name}/kept"]))
            nodes.append(helper.make_node("Max", [f"{name}/kept"], [names[name]]))
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    del result.graph.value_info[:]
    return result


def _name_nodes(graph: onnx.GraphProto) -> None:
    """The converter knows nodes by name."""
    for index, node in enumerate(graph.node):
        node.name = f"{index}/{node.op_type}"


def _kept_nodes(graph: onnx.GraphProto, largest: dict[str, float]) -> dict[str, str]:
    """The nodes that stay fp32 → why; empty where its kind of operator says it."""
    weights = {weight.name: weight for weight in graph.initializer}
    beyond = {name for name, value in largest.items() if not value < _LARGEST / _HEADROOM}
    kept: dict[str, str] = {}
    head: set[str] = set()
    for node in graph.node:  # In the order of computation.
        if node.op_type in _NORMALISATIONS or head.intersection(node.input):
            head.update(node.output)
            kept[node.name] = _HEAD
        elif near := beyond.intersection([*node.input, *node.output]):
            kept[node.name] = f"values up to {max(largest[name] for name in near):.3g} on the photos"
        elif node.op_type in _FLOAT32_OPS:
            kept[node.name] = _STATISTICS
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            # A scale that fp16 has only as a subnormal number would be a coarse one.
            scale = numpy_helper.to_array(weights[node.input[1]])
            if scale.min() < _SMALLEST:
                kept[node.name] = f"a scale of {scale.min():.2g}, which fp16 has only roughly"
    return kept | dict.fromkeys(_feeding_only(graph, set(kept)), _HEAD)


def _told(graph: onnx.GraphProto, kept: dict[str, str]) -> Layers:
    """What the photos decided, by its place; what is always so, by its kind."""
    names, layers = layer_names(graph), heavy_layers(graph)
    kinds = {node.name: node.op_type for node in graph.node}
    decided = {
        f"{kinds[node]}, {names[node]}" if names[node] != node else node: why
        for node, why in kept.items()
        if why not in (_HEAD, _STATISTICS)
    }
    always = [kinds[node] for node, why in kept.items() if why == _STATISTICS]
    fixed = {f"{always.count(kind)} {kind}": _STATISTICS for kind in sorted(set(always))}
    if _HEAD in kept.values():
        fixed["the features' normalisation and the cosines"] = _HEAD
    return Layers(
        precision="fp16",
        converted=sum(name not in kept for name in layers),
        total=len(layers),
        kept=decided | fixed,
    )


def _feeding_only(graph: onnx.GraphProto, kept: set[str]) -> set[str]:
    """Nodes that only move an input (`text`, transposed) to nodes that stay fp32."""
    inputs = {value.name for value in graph.input}
    users: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, set()).add(node.name)
    return {
        node.name
        for node in graph.node
        if node.op_type == "Transpose" and node.input[0] in inputs and users[node.output[0]] <= kept
    }


def _own_weights(graph: onnx.GraphProto, kept: set[str]) -> None:
    """Give the nodes that stay fp32 copies of the weights they share with nodes that become fp16."""
    weights = {weight.name: weight for weight in graph.initializer}
    shared = {name for node in graph.node if node.name not in kept for name in node.input if name in weights}
    for name in sorted(shared):
        own = f"{name}/fp32"
        users = [node for node in graph.node if node.name in kept and name in node.input]
        for node in users:
            node.input[:] = [own if value == name else value for value in node.input]
        if users:
            graph.initializer.append(weights[name])
            graph.initializer[-1].name = own


def _check_weights(graph: onnx.GraphProto) -> None:
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            largest = np.abs(numpy_helper.to_array(weight)).max(initial=0)
            if not largest <= _LARGEST:
                raise ValueError(
                    f"{weight.name} has values up to {largest:.3g}, beyond fp16 ({_LARGEST:.0f}); "
                    "export in fp32"
                )


def _drop_needless_casts(graph: onnx.GraphProto) -> None:
    """fp32 → fp16 → fp32 becomes nothing; casts that nobody reads go."""
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    to = {name: node.attribute[0].i for name, node in casts.items()}
    values = [*graph.input, *graph.value_info]
    floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    source = {}
    for name, cast in casts.items():
        between = cast.input[0]
        if to[name] == TensorProto.FLOAT and to.get(between) == TensorProto.FLOAT16:
            first = casts[between].input[0]
            if first in floats:  # Not the picture, which is uint8.
                source[name] = first
    # An output keeps its name: what is behind it takes that name.
    rename = {source[value.name]: value.name for value in graph.output if value.name in source}
    nodes = [node for node in graph.node if node.output[0] not in source]
    for node in nodes:
        node.input[:] = [rename.get(n, n) for n in (source.get(name, name) for name in node.input)]
        node.output[:] = [rename.get(name, name) for name in node.output]
    used = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.op_type != "Cast" or node.output[0] in used)


def _sort(graph: onnx.GraphProto) -> None:
    """Order of computation, which the converter does not keep."""
    known = {value.name for value in [*graph.input, *graph.initializer]} | {""}
    rest, nodes = list(graph.node), []
    while rest:
        ready = [node for node in rest if known.issuperset(node.input)]
        later = [node for node in rest if not known.issuperset(node.input)]
        nodes += ready
        known.update(name for node in ready for name in node.output)
        rest = later
    del graph.node[:]
    graph.node.extend(nodes)


def _with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the types of its inner values as they are now."""
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)
