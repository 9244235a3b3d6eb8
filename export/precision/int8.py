"""int8 arithmetic: static quantisation as TensorRT takes it and ONNX Runtime runs fast.

Explicit QuantizeLinear/DequantizeLinear pairs around matrix products and convolutions with large weights:
activations symmetric int8 (zero point 0) with one scale a tensor, weights symmetric int8 with one scale an
output channel. All else keeps its type: attention's products of two activations, softmax, norms, GELU.
One file serves both: on x86, ONNX Runtime turns signed activations into unsigned ones by itself.

Convolutional networks with ReLU (pixelclip-lite) are quantised for CPUs: ONNX Runtime's integer convolutions
give integers, and take in a ReLU only where zero is the least integer. So activations are unsigned with a
zero point, sums of residual branches are quantised as well, and the head's matrix products stay as they are.
`export/to_trt.py` makes such activations symmetric.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

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

from export.precision.calibration import Batch, checked
from export.precision.layers import Layers, heavy_layers, layer_names
from export.precision.storage import quantise, store_fp16

__all__ = ["to_int8"]

# The most sensitive layers are found on so many photos.
_RANKING_PHOTOS = 4
# Weights that are not computed in int8 are stored in it from this size on.
_STORED_ELEMENTS = 200_000
_MIN_ELEMENTS = 1024


def to_int8(
    model: onnx.ModelProto,
    calibration: Iterable[Batch],
    *,
    gate: float,
    tell: Callable[[Layers], None] | None = None,
) -> onnx.ModelProto:
    """Quantise an fp32 image encoder.

    Every product with a large weight but the first (it reads the pixels) is a candidate; in a convolutional
    network with ReLU, every convolution but the first and every residual sum. If all of them cost too many
    labels, those that cost most for the bytes they save are left in fp32 until `gate` is met.

    Args:
        model: The encoder; it is not changed.
        calibration: Real photos: ``{"image": uint8 [1, H, W, 3], "text": float32 [K, D]}`` each; 32 or more
            are good. They are kept in memory.
        gate: Least share of grid cells, over these photos and words, that keep their label.
        tell: Is called with what stayed in fp32, and why.

    Returns:
        A checked model with the same inputs and outputs.

    Raises:
        ValueError: There is no photo, or no layer can compute in int8 at this gate.
    """
    batches = list(checked(calibration))
    base = _merged_siblings(model)
    candidates = _candidates(base.graph)
    full = _quantised(base, candidates, batches)
    stored: dict[str, _Stored] = {}  # Made when a layer stays in fp32: of a ViT none may.
    expected = [(logits.argmax(1), features) for logits, features in _run(base, batches)]

    def agreement(names: set[str]) -> float:
        found = _run(_finished(base, full, names, stored), batches)
        same = [(logits.argmax(1) == e[0]).mean() for (logits, _), e in zip(found, expected, strict=True)]
        return float(np.mean(same))

    def finished(names: set[str], costs: Mapping[str, float]) -> onnx.ModelProto:
        if tell is not None:
            tell(_told(base.graph, candidates, names, costs))
        return _finished(base, full, names, stored)

    if agreement(set(candidates)) >= gate:
        return finished(set(candidates), {})
    costs = _costs(base, full, candidates, batches[:_RANKING_PHOTOS], expected)
    ranked = _ranked(base.graph, costs)
    few, many = 0, len(ranked)  # `few` is taken to meet the gate, `many` does not.
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if agreement(set(ranked[:middle])) >= gate else (few, middle)
    if few == 0:
        raise ValueError(
            f"with any layer in int8 less than {gate:.2%} of the labels are kept; lower --gate, or export in "
            "another precision"
        )
    return finished(set(ranked[:few]), costs)


def _told(
    graph: onnx.GraphProto, candidates: list[str], names: set[str], costs: Mapping[str, float]
) -> Layers:
    """What is not among `names`: the most expensive first, then what is never quantised."""
    modules, layers = layer_names(graph), heavy_layers(graph)
    kept = {}
    for name in sorted(set(candidates) - names, key=lambda name: -costs[name]):
        label = modules[name] if name in layers else f"sum before {modules[name]}"
        # Sums may share a label with each other.
        label = label if label not in kept else f"{label} ({name})"
        kept[label] = f"in int8 alone it moves the features by {costs[name]:.2g} (their length is 1)"
    sizes = _sizes(graph)
    weights = {node.name: sizes.get(node.input[1], 0) for node in graph.node if node.name in layers}
    never = [name for name in layers if name not in candidates]
    for name in never:
        first = name == layers[0]
        why = (
            "it reads the pixels" if first else "few weights" if weights[name] < _MIN_ELEMENTS else "the head"
        )
        kept[modules[name]] = why
    if not _convolutional(graph):
        kept["attention's products, Softmax, LayerNormalization, GELU"] = "little time, and much rounding"
    return Layers(precision="int8", converted=len(names.intersection(layers)), total=len(layers), kept=kept)


def _candidates(graph: onnx.GraphProto) -> list[str]:
    """Names of what can be computed in integers; without the product that reads the pixels."""
    sizes, convolutional = _sizes(graph), _convolutional(graph)
    convolved = {node.output[0] for node in graph.node if node.op_type == "Conv"}
    pixels = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8}
    names = []
    for node in graph.node:
        if convolutional and node.op_type == "Add" and convolved.intersection(node.input):
            names.append(node.name)
        elif node.op_type in ("Conv", "MatMul"):
            # A depthwise kernel is small; left out, it would cut the chain of integer convolutions.
            wanted = node.op_type == "Conv" if convolutional else sizes.get(node.input[1], 0) >= _MIN_ELEMENTS
            if wanted and not pixels.intersection(node.input):
                names.append(node.name)
        elif node.op_type != "Shape" and pixels.intersection(node.input):
            pixels.update(node.output)
    return names


def _convolutional(graph: onnx.GraphProto) -> bool:
    """Whether convolutions are followed by ReLU."""
    convolved = {node.output[0] for node in graph.node if node.op_type == "Conv"}
    return any(node.op_type in ("Clip", "Relu") and node.input[0] in convolved for node in graph.node)


def _costs(
    base: onnx.ModelProto,
    full: onnx.ModelProto,
    candidates: list[str],
    batches: list[Batch],
    expected: list[tuple[np.ndarray, np.ndarray]],
) -> dict[str, float]:
    """Candidate → how far its quantisation alone moves the features, whose length is 1 (root mean square)."""
    cost = {}
    for name in candidates:
        found = _run(_only(base, full, {name}), batches)
        squares = [np.square(f - e[1]).sum(-1).mean() for (_, f), e in zip(found, expected, strict=False)]
        cost[name] = float(np.sqrt(np.mean(squares)))
    return cost


def _ranked(graph: onnx.GraphProto, costs: Mapping[str, float]) -> list[str]:
    """The candidates, those first that move the features least for the weights they make smaller."""
    sizes = _sizes(graph)
    weight = {node.name: sizes.get(node.input[1], 1) for node in graph.node if node.name in costs}
    return sorted(costs, key=lambda name: costs[name] ** 2 / weight[name])


def _quantised(base: onnx.ModelProto, candidates: list[str], batches: list[Batch]) -> onnx.ModelProto:
    """All candidates quantised, by onnxruntime."""
    convolutional = _convolutional(base.graph)
    # Kernels of depthwise convolutions add up in 32 bits.
    axes = {
        node.input[1]: _output_axis(node)
        for node in base.graph.node
        if node.op_type in ("Conv", "MatMul")
        and not any(a.name == "group" and a.i > 1 for a in node.attribute)
    }
    # 7 bits: without VNNI, x86 adds two products of uint8 and int8 in 16 bits, which 8 bits overflow.
    narrow = {
        weight.name: [{"axis": axes[weight.name], "reduce_range": True}]
        for weight in base.graph.initializer
        if weight.name in axes
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        source = onnx.ModelProto()
        source.CopyFrom(base)
        # Says that shapes are inferred and the graph is optimised, which it is; else there is a warning.
        helper.set_model_props(source, {"onnx.quant.pre_process": "onnxruntime.quant"})
        quantize_static(
            source,
            path,
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Add", "Conv", "MatMul"],
            nodes_to_quantize=candidates,
            per_channel=True,
            activation_type=QuantType.QUInt8 if convolutional else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": not convolutional,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": ["Add", "Conv", "MatMul"],
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


def _only(
    base: onnx.ModelProto,
    full: onnx.ModelProto,
    names: set[str],
    stored: Mapping[str, _Stored] = MappingProxyType({}),
) -> onnx.ModelProto:
    """`base` with the named nodes quantised as in `full`; other weights that are in `stored` small."""
    made = {name: node for node in full.graph.node for name in node.output}
    quantised = {node.name: node for node in full.graph.node}
    weights = {weight.name: weight for weight in [*full.graph.initializer, *base.graph.initializer]}
    nodes: dict[str, onnx.NodeProto] = {}
    for source in base.graph.node:
        node = _copied(source)
        if node.name in names:
            node.input[:] = quantised[node.name].input
        elif node.op_type in ("Conv", "MatMul") and node.input[1] in stored:
            small = stored[node.input[1]]
            nodes.setdefault(small.node.output[0], small.node)
            weights.update({weight.name: weight for weight in small.weights})
            node.input[1] = small.node.output[0]
        for name in node.input:
            for pair in _pair_behind(name, made):
                nodes.setdefault(pair.output[0], pair)
        nodes[node.output[0]] = node
    used = {name for node in nodes.values() for name in node.input}
    result = onnx.ModelProto()
    result.CopyFrom(base)
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    result.graph.node.extend(nodes.values())
    result.graph.initializer.extend(weights[name] for name in sorted(used & weights.keys()))
    return result


def _pair_behind(name: str, made: dict[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The QuantizeLinear (not of weights) and DequantizeLinear that make a tensor, in that order."""
    pair: list[onnx.NodeProto] = []
    while name in made and made[name].op_type in ("QuantizeLinear", "DequantizeLinear"):
        pair.insert(0, made[name])
        name = made[name].input[0]
    return pair


def _finished(
    base: onnx.ModelProto, full: onnx.ModelProto, names: set[str], stored: dict[str, _Stored]
) -> onnx.ModelProto:
    """The named nodes in int8, the other large weights stored small; `stored` keeps those made before."""
    weights = {weight.name: weight for weight in base.graph.initializer}
    for node in base.graph.node:
        if node.op_type in ("Conv", "MatMul") and node.name not in names and node.input[1] in weights:
            weight = weights[node.input[1]]
            if weight.name not in stored and math.prod(weight.dims) >= _STORED_ELEMENTS:
                stored[weight.name] = _stored(weight, _output_axis(node))
    result = _only(base, full, names, stored)
    return store_fp16(result, keep={n.input[1] for n in result.graph.node if n.op_type == "DequantizeLinear"})


@dataclass(frozen=True)
class _Stored:
    """A weight in int8, of all 8 bits since it is computed with in fp32, and what expands it."""

    weights: tuple[onnx.TensorProto, ...]
    node: onnx.NodeProto


def _stored(weight: onnx.TensorProto, axis: int) -> _Stored:
    """A weight with a scale for each output channel.

    Expanded by DequantizeLinear: TensorRT takes int8 constants nowhere else.
    """
    values, scale = quantise(numpy_helper.to_array(weight), axis)
    small = (
        numpy_helper.from_array(values, f"{weight.name}.stored"),
        numpy_helper.from_array(scale.ravel(), f"{weight.name}.stored.scale"),
    )
    inputs, output = [w.name for w in small], f"{weight.name}.expanded"
    return _Stored(small, helper.make_node("DequantizeLinear", inputs, [output], output, axis=axis))


def _output_axis(node: onnx.NodeProto) -> int:
    """The axis of a weight's output channels: a convolution's first, a matrix's second."""
    return 0 if node.op_type == "Conv" else 1


def _merged_siblings(model: onnx.ModelProto) -> onnx.ModelProto:
    """Matrix products of one input (queries, keys, values) as one product and a Split.

    ONNX Runtime's fast kernel wants a quantised tensor to itself; three products that share one would stay
    slow (of ViT-B/16 at 320², 1.7 times the speed of eager PyTorch against 2.6; measured by hand).
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {w.name: w for w in graph.initializer if len(w.dims) == 2 and w.data_type == TensorProto.FLOAT}
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            groups.setdefault(node.input[0], []).append(node)
    nodes = []
    for node in graph.node:
        group = groups.get(node.input[0], []) if node.op_type == "MatMul" else []
        if len(group) < 2 or node not in group:
            nodes.append(node)
        elif node is group[0] or node.name == group[0].name:
            parts = [numpy_helper.to_array(weights[member.input[1]]) for member in group]
            name = f"{node.name}/merged"
            sizes = np.array([part.shape[1] for part in parts])
            graph.initializer.append(numpy_helper.from_array(np.concatenate(parts, 1), f"{name}/weight"))
            graph.initializer.append(numpy_helper.from_array(sizes, f"{name}/sizes"))
            nodes.append(helper.make_node("MatMul", [node.input[0], f"{name}/weight"], [name], name=name))
            outputs = [member.output[0] for member in group]
            nodes.append(
                helper.make_node("Split", [name, f"{name}/sizes"], outputs, name=f"{name}/split", axis=-1)
            )
    nodes = [_copied(node) for node in nodes]  # Those in the graph go with it.
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for weight in [weight for weight in graph.initializer if weight.name not in used]:
        graph.initializer.remove(weight)
    return result


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _run(model: onnx.ModelProto, batches: list[Batch]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Logits and features of each photo."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(["logits", "features"], dict(batch)) for batch in batches]


def _sizes(graph: onnx.GraphProto) -> dict[str, int]:
    return {weight.name: math.prod(weight.dims) for weight in graph.initializer}
