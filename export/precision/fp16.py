"""Convert an fp32 graph to fp16 for GPUs; TensorRT takes the precision from the graph.

These stay fp32, because rounding or overflow would change the result: LayerNormalization, Softmax, everything
from the normalisation of the features on (norms, cosines), the graph's inputs and outputs, and tensors whose
values on the calibration photos come close to the largest fp16 number.

`onnxruntime.transformers.float16` inserts some casts twice, up to onnxruntime 1.31.1: the graph is not valid.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from export.precision.layers import Batch, LayerReport, checked, heavy_layers, set_nodes

__all__ = ["largest_values", "rounding", "to_fp16"]

_FLOAT32_OPS = ("LayerNormalization", "Softmax")
# The first of these starts the head, which compares features with words.
_NORMALISATIONS = ("ReduceL2", "LpNormalization")
_MAX = float(np.finfo(np.float16).max)
_MIN_NORMAL = float(np.finfo(np.float16).tiny)
# Other photos may give larger values than the calibration photos.
_HEADROOM = 4
_STATISTICS = "sums over many values"
_HEAD = "rounding would change the scores"


def to_fp16(model: onnx.ModelProto, calibration: Iterable[Batch]) -> tuple[onnx.ModelProto, LayerReport]:
    """Convert an fp32 image encoder to fp16 where fp16 is accurate enough.

    The result of `to_int8` can be converted too: its fp32 part becomes fp16. Tensors beyond a quarter of
    fp16's range on the calibration photos stay fp32. Returns a new model and the layers that stay fp32.
    """
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    kept = _kept_nodes(model.graph, largest_values(model, calibration))
    report = _layer_report(model.graph, kept)
    _convert(model.graph, kept)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model, report


def rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an fp16 graph that rounds on a CPU as it does on a GPU.

    ONNX Runtime's CPU provider computes most fp16 operators in fp32 and does not round between them. `Max` of
    one tensor changes nothing and has an fp16 kernel there, so it forces the rounding. It is inserted twice,
    because a single one between fp32 operators runs in fp32 as well.
    """
    model = copy.deepcopy(model)
    graph = model.graph
    half = _tensors(onnx.shape_inference.infer_shapes(model, strict_mode=True).graph, TensorProto.FLOAT16)
    rounded = {name: f"{name}/rounded" for node in graph.node for name in node.output if name in half}
    nodes = []
    for node in graph.node:
        node.input[:] = [rounded.get(name, name) for name in node.input]
        nodes.append(node)
        for name in half.intersection(node.output):
            nodes.append(helper.make_node("Max", [name], [f"{name}/max"]))
            nodes.append(helper.make_node("Max", [f"{name}/max"], [rounded[name]]))
    set_nodes(graph, nodes)
    return model


def largest_values(model: onnx.ModelProto, calibration: Iterable[Batch]) -> dict[str, float]:
    """Run an fp32 model; returns each float32 tensor that a node computes → its largest absolute value."""
    probe = onnx.shape_inference.infer_shapes(model)
    values = [*probe.graph.value_info, *probe.graph.output]
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    names = sorted(name for node in model.graph.node for name in node.output if name in floats)
    del probe.graph.output[:]
    for name in names:
        absolute, largest = f"{name}/absolute", f"{name}/largest"
        probe.graph.node.append(helper.make_node("Abs", [name], [absolute]))
        probe.graph.node.append(helper.make_node("ReduceMax", [absolute], [largest], keepdims=0))
        probe.graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, []))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    values = np.max([session.run(None, dict(batch)) for batch in checked(calibration)], axis=0)
    return dict(zip(names, values.tolist(), strict=True))


def _kept_nodes(graph: onnx.GraphProto, largest: Mapping[str, float]) -> dict[str, str]:
    """First output of each node that stays fp32 → the reason."""
    weights = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    beyond = {name: value for name, value in largest.items() if not value < _MAX / _HEADROOM}
    for name, values in weights.items():
        if values.dtype == np.float32 and not (maximum := float(np.abs(values).max(initial=0))) <= _MAX:
            beyond[name] = maximum
    head = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    kept: dict[str, str] = {}
    for node in graph.node:  # In topological order.
        names = [*node.input, *node.output]
        if node.op_type in _NORMALISATIONS or head.intersection(node.input):
            head.update(node.output)
            kept[node.output[0]] = _HEAD
        elif close := beyond.keys() & names:
            kept[node.output[0]] = f"values up to {max(beyond[name] for name in close):.3g} on the photos"
        elif node.op_type in _FLOAT32_OPS:
            kept[node.output[0]] = _STATISTICS
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale = weights[node.input[1]].min()
            if scale < _MIN_NORMAL:  # fp16 has few bits left for such a number.
                kept[node.output[0]] = f"a scale of {scale:.2g}, too small for fp16"
    return kept


def _layer_report(graph: onnx.GraphProto, kept: Mapping[str, str]) -> LayerReport:
    """Name the nodes that the photos decided on, and count the operators that always stay fp32."""
    nodes = {node.output[0]: node for node in graph.node}
    reasons = {nodes[key].name: why for key, why in kept.items() if why not in (_HEAD, _STATISTICS)}
    counts = Counter(nodes[key].op_type for key, why in kept.items() if why == _STATISTICS)
    reasons |= {f"{count} {kind}": _STATISTICS for kind, count in sorted(counts.items())}
    if _HEAD in kept.values():
        reasons["normalisation of the features, and cosines"] = _HEAD
    layers = heavy_layers(graph)
    converted = sum(node.output[0] not in kept for node in layers)
    return LayerReport(precision="fp16", converted=converted, total=len(layers), kept=reasons)


def _convert(graph: onnx.GraphProto, kept: Mapping[str, str]) -> None:
    """Convert all nodes but `kept` to fp16, in place, with a Cast where the type changes."""
    weights = {weight.name: weight for weight in graph.initializer}
    floats = _tensors(graph, TensorProto.FLOAT)
    half: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    added: set[str] = set()

    def in_type(name: str, to_half: bool) -> str:
        """The name of a tensor in fp16 or fp32; its conversion is added on first use."""
        if name not in floats or (name in half) == to_half:
            return name
        result = f"{name}/{'fp16' if to_half else 'fp32'}"
        if result not in added and name in weights:
            values = numpy_helper.to_array(weights[name]).astype(np.float16)
            graph.initializer.append(numpy_helper.from_array(values, result))
        elif result not in added:
            to = TensorProto.FLOAT16 if to_half else TensorProto.FLOAT
            nodes.append(helper.make_node("Cast", [name], [result], name=f"{result}/Cast", to=to))
        added.add(result)
        return result

    outputs = {value.name for value in graph.output}
    for node in graph.node:
        cast = node.op_type == "Cast"
        # Nodes without float inputs, such as Constant, have the type that an attribute says.
        floating = bool(floats.intersection(node.output if cast else node.input))
        to_half = floating and node.output[0] not in kept and not outputs.intersection(node.output)
        node.input[:] = [in_type(name, to_half) for name in node.input]
        if to_half:
            half.update(floats.intersection(node.output))
            if cast:
                node.attribute[0].i = TensorProto.FLOAT16
        nodes.append(node)
    set_nodes(graph, nodes)


def _tensors(graph: onnx.GraphProto, kind: int) -> set[str]:
    """Names of the tensors of a data type; the types of inner tensors must have been inferred."""
    values = [*graph.input, *graph.output, *graph.value_info]
    names = {value.name for value in values if value.type.tensor_type.elem_type == kind}
    return names | {weight.name for weight in graph.initializer if weight.data_type == kind}
