"""Convert an fp32 graph to int8 arithmetic: static quantisation for ONNX Runtime and TensorRT.

QuantizeLinear and DequantizeLinear stand around convolutions and matrix products with large weights.
Activations are symmetric int8 (zero point 0) with one scale per tensor, weights symmetric int8 with one scale
per output channel. The rest keeps its type: attention's products of two activations, softmax, norms, GELU.

Convolutional networks with ReLU (pixelclip-lite) are quantised for CPUs. ONNX Runtime's integer convolutions
return integers and absorb a ReLU only if zero is the smallest integer. So activations are unsigned with a
zero point, residual sums are quantised too, and the matrix products of the head stay fp32.
`export/to_trt.py` makes such activations symmetric.
"""

import copy
import math
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from export.precision.layers import Batch, LayerReport, checked, heavy_layers, set_nodes
from export.precision.storage import store_fp16, store_int8

__all__ = ["to_int8"]

# Photos on which the cost of each layer is measured.
_RANKING_PHOTOS = 4
# Weights of layers that stay fp32 are stored in int8 from this size on.
_MIN_STORED_ELEMENTS = 200_000
_MIN_ELEMENTS = 1024


def to_int8(
    model: onnx.ModelProto, calibration: Iterable[Batch], *, gate: float
) -> tuple[onnx.ModelProto, LayerReport]:
    """Quantise an fp32 image encoder; returns a new model and the layers that stay fp32.

    The candidates are all products with large weights but the first, which reads the pixels; in a
    convolutional network with ReLU, all convolutions but the first and all residual sums. If too few labels
    agree with all candidates in int8, those that cost the most accuracy per byte saved stay fp32 until `gate`
    is met: the minimum share of grid cells with the same label, over the calibration photos (32 or more are
    recommended) and their words. ValueError is raised if no layer can be in int8.
    """
    batches = checked(calibration)
    base = _merge_siblings(model)
    candidates = _candidates(base.graph)
    full = _quantise_all(base, candidates, batches)
    layers = {node.input[1] for node in heavy_layers(base.graph)}
    others = {weight.name for weight in base.graph.initializer} - layers
    stored = store_int8(base, min_elements=_MIN_STORED_ELEMENTS, keep=others)
    expected = [(logits.argmax(1), features) for logits, features in _run(base, batches)]

    def with_int8(names: set[str]) -> onnx.ModelProto:
        """The model with these nodes in int8 and the weights of the others stored small."""
        result = _mixed(stored, full, names)
        scales = {node.input[1] for node in result.graph.node if node.op_type == "DequantizeLinear"}
        return store_fp16(result, keep=scales)

    def agreement(names: set[str]) -> float:
        found = _run(with_int8(names), batches)
        same = [(logits.argmax(1) == e[0]).mean() for (logits, _), e in zip(found, expected, strict=True)]
        return float(np.mean(same))

    chosen, costs = set(candidates), {}
    if agreement(chosen) < gate:
        costs = _costs(base, full, candidates, batches[:_RANKING_PHOTOS], expected)
        ranked = list(costs)
        low, high = 0, len(ranked)  # The gate is met with `low` layers (taken for granted), not with `high`.
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if agreement(set(ranked[:middle])) >= gate else (low, middle)
        if low == 0:
            raise ValueError(
                f"with any layer in int8, less than {gate:.2%} of the labels agree; lower --gate, or export "
                "in another precision"
            )
        chosen = set(ranked[:low])
    return with_int8(chosen), _layer_report(base.graph, candidates, chosen, costs)


def _layer_report(
    graph: onnx.GraphProto, candidates: list[str], chosen: set[str], costs: Mapping[str, float]
) -> LayerReport:
    """List the nodes that stay fp32: the most expensive first, then those that are never quantised."""
    kept = {
        name: f"int8 here alone changes the features by {costs[name]:.2g} (their length is 1)"
        for name in sorted(set(candidates) - chosen, key=lambda name: -costs[name])
    }
    sizes = _sizes(graph)
    layers = heavy_layers(graph)
    for node in layers:
        if node.name not in candidates:
            reason = "few weights" if sizes[node.input[1]] < _MIN_ELEMENTS else "the head"
            kept[node.name] = "it reads the pixels" if node is layers[0] else reason
    if not _has_relu(graph):
        kept["products, Softmax, LayerNormalization and GELU of attention"] = "little time, much rounding"
    converted = sum(node.name in chosen for node in layers)
    return LayerReport(precision="int8", converted=converted, total=len(layers), kept=kept)


def _candidates(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that can be in int8."""
    sizes, relu = _sizes(graph), _has_relu(graph)
    convolved = {node.output[0] for node in graph.node if node.op_type == "Conv"}
    # The image and what is computed from it before the first layer.
    pixels = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8}
    names = []
    for node in graph.node:
        if relu and node.op_type == "Add" and convolved.intersection(node.input):
            names.append(node.name)
        elif node.op_type in ("Conv", "MatMul"):
            # Depthwise kernels are small, but leaving them out would break the chain of integer convolutions.
            wanted = node.op_type == "Conv" if relu else sizes.get(node.input[1], 0) >= _MIN_ELEMENTS
            if wanted and not pixels.intersection(node.input):
                names.append(node.name)
        elif node.op_type != "Shape" and pixels.intersection(node.input):
            pixels.update(node.output)
    return names


def _has_relu(graph: onnx.GraphProto) -> bool:
    """Whether convolutions are followed by ReLU or ReLU6."""
    convolved = {node.output[0] for node in graph.node if node.op_type == "Conv"}
    return any(node.op_type in ("Clip", "Relu") and node.input[0] in convolved for node in graph.node)


def _costs(
    base: onnx.ModelProto,
    full: onnx.ModelProto,
    candidates: list[str],
    batches: list[Batch],
    expected: list[tuple[np.ndarray, np.ndarray]],
) -> dict[str, float]:
    """Candidate → root mean square change of the features, whose length is 1, if it alone is in int8.

    Sorted by squared cost per weight, cheapest first.
    """
    costs = {}
    for name in candidates:
        found = _run(_mixed(base, full, {name}), batches)
        squares = [np.square(f - e[1]).sum(-1).mean() for (_, f), e in zip(found, expected, strict=False)]
        costs[name] = float(np.sqrt(np.mean(squares)))
    sizes = _sizes(base.graph)
    weights = {node.name: sizes.get(node.input[1], 1) for node in base.graph.node if node.name in costs}
    return dict(sorted(costs.items(), key=lambda item: item[1] ** 2 / weights[item[0]]))


def _quantise_all(base: onnx.ModelProto, candidates: list[str], batches: list[Batch]) -> onnx.ModelProto:
    """Quantise all candidates with onnxruntime."""
    relu = _has_relu(base.graph)
    # Depthwise convolutions add up in 32 bits and need no narrow weights.
    narrow = {
        node.input[1]: [{"axis": 0 if node.op_type == "Conv" else 1, "reduce_range": True}]
        for node in heavy_layers(base.graph)
        if not any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    }
    source = copy.deepcopy(base)
    # States that shapes are inferred and the graph is optimised, which is true; otherwise there is a warning.
    helper.set_model_props(source, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_static(
            source,
            path,
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Add", "Conv", "MatMul"],
            nodes_to_quantize=candidates,
            per_channel=True,
            activation_type=QuantType.QUInt8 if relu else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": not relu,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": ["Add", "Conv", "MatMul"],
                # 7 bits: x86 without VNNI adds two products of uint8 and int8 in 16 bits, too few for 8 bits.
                "TensorQuantOverrides": narrow,
            },
        )
        return onnx.load(path)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: list[Batch]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)


def _mixed(base: onnx.ModelProto, full: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """`base` with the named nodes quantised as in `full`."""
    quantised = {node.name: node for node in full.graph.node}
    kinds = "QuantizeLinear", "DequantizeLinear"
    made = {node.output[0]: node for node in full.graph.node if node.op_type in kinds}
    result = copy.deepcopy(base)
    nodes: dict[str, onnx.NodeProto] = {}  # By first output, in order.
    for node in result.graph.node:
        if node.name in names:
            node.input[:] = quantised[node.name].input
        for name in node.input:
            if name in made:  # A DequantizeLinear, with a QuantizeLinear before it except for weights.
                before = made.get(made[name].input[0])
                nodes |= {pair.output[0]: pair for pair in (before, made[name]) if pair is not None}
        nodes[node.output[0]] = node
    known = {weight.name for weight in base.graph.initializer}
    result.graph.initializer.extend(w for w in full.graph.initializer if w.name not in known)
    set_nodes(result.graph, nodes.values())
    return result


def _merge_siblings(model: onnx.ModelProto) -> onnx.ModelProto:
    """Merge matrix products of one input (queries, keys, values) into one product and a Split.

    ONNX Runtime's fast kernel needs a quantised tensor with one reader; three products of one tensor would
    stay slow (ViT-B/16 at 320²: 1.7 times the speed of eager PyTorch instead of 2.6).
    """
    result = copy.deepcopy(model)
    graph = result.graph
    weights = {w.name: w for w in graph.initializer if len(w.dims) == 2 and w.data_type == TensorProto.FLOAT}
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            groups.setdefault(node.input[0], []).append(node)
    merged = {group[0].name: group for group in groups.values() if len(group) > 1}
    absorbed = {node.name for group in merged.values() for node in group}
    nodes = []
    for node in model.graph.node:
        if node.name in merged:
            parts = [numpy_helper.to_array(weights[member.input[1]]) for member in merged[node.name]]
            name = f"{node.name}/merged"
            sizes = np.array([part.shape[1] for part in parts])
            graph.initializer.append(numpy_helper.from_array(np.concatenate(parts, 1), f"{name}/weight"))
            graph.initializer.append(numpy_helper.from_array(sizes, f"{name}/sizes"))
            outputs = [member.output[0] for member in merged[node.name]]
            nodes += [
                helper.make_node("MatMul", [node.input[0], f"{name}/weight"], [name], name=name),
                helper.make_node("Split", [name, f"{name}/sizes"], outputs, name=f"{name}/split", axis=-1),
            ]
        elif node.name not in absorbed:
            nodes.append(node)
    set_nodes(graph, nodes)
    return result


def _run(model: onnx.ModelProto, batches: list[Batch]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Logits and features of each photo."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(["logits", "features"], dict(batch)) for batch in batches]


def _sizes(graph: onnx.GraphProto) -> dict[str, int]:
    """Weight → number of elements."""
    return {weight.name: math.prod(weight.dims) for weight in graph.initializer}
