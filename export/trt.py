"""Prepare an ONNX graph for TensorRT, and describe the network that TensorRT reads from it."""

import collections
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from export.precision.layers import set_nodes
from pixelclip_sdk.backends.engine import RTX_CAPABILITIES, TensorInfo
from pixelclip_sdk.backends.trt import one_line
from pixelclip_sdk.errors import BackendError

__all__ = [
    "fold_storage",
    "make_symmetric",
    "parse",
    "precisions",
    "profiles",
    "progress_monitor",
    "rtx_capabilities",
    "tensor_infos",
]

Shape = tuple[int, ...]
Profile = tuple[Shape, Shape, Shape]

_NUMPY_NAMES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "UINT8": "uint8", "INT32": "int32"}
# Smaller constants are shapes and scales, not weights.
_MIN_WEIGHT_ELEMENTS = 1024
# Nearly all arithmetic is in these layers.
_HEAVY = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "ATTENTION")


def fold_storage(model: onnx.ModelProto) -> bool:
    """Compute Cast and Mul of constants, in place, so that stored weights become plain weights.

    `export/precision/storage.py` stores weights in fewer bits, and ONNX Runtime expands them when it loads
    the graph. TensorRT does not: it takes an int8 constant for a quantised tensor and refuses it. Returns
    whether weights were stored in fewer bits than they are used in.
    """
    graph = model.graph
    constants = {weight.name: weight for weight in graph.initializer}
    rest = []
    stored_small = False
    for node in graph.node:
        if node.op_type not in ("Cast", "Mul") or not all(name in constants for name in node.input):
            rest.append(node)
            continue
        values = [numpy_helper.to_array(constants[name]) for name in node.input]
        if node.op_type == "Cast":
            to = next(attribute.i for attribute in node.attribute if attribute.name == "to")
            result = values[0].astype(onnx.helper.tensor_dtype_to_np_dtype(to))
            stored_small |= result.size >= _MIN_WEIGHT_ELEMENTS and result.itemsize > values[0].itemsize
        else:
            result = np.multiply(*values)
        constants[node.output[0]] = numpy_helper.from_array(result, node.output[0])
    known = {weight.name for weight in graph.initializer}
    graph.initializer.extend(weight for name, weight in constants.items() if name not in known)
    set_nodes(graph, rest)
    return stored_small


def make_symmetric(model: onnx.ModelProto) -> None:
    """Replace uint8 quantisation with a zero point by int8 with zero point 0, in place: TensorRT needs that.

    The new range contains the old one. If the old one starts at zero, half of the new one stays unused, which
    costs one of eight bits.
    """
    constants = {weight.name: weight for weight in model.graph.initializer}
    pairs = {
        (node.input[1], node.input[2])
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2
    }
    pairs = {pair for pair in pairs if constants[pair[1]].data_type == onnx.TensorProto.UINT8}
    zeros = {zero: numpy_helper.to_array(constants[zero]).astype(np.float32) for _, zero in pairs}
    for scale, zero in pairs:
        wider = numpy_helper.to_array(constants[scale]) * np.maximum(zeros[zero], 255 - zeros[zero]) / 127
        constants[scale].CopyFrom(numpy_helper.from_array(wider.astype(np.float32), scale))
        constants[zero].CopyFrom(numpy_helper.from_array(np.zeros_like(zeros[zero], np.int8), zero))


def parse(trt: Any, network: Any, logger: Any, content: bytes, path: Path) -> None:
    """Read an ONNX graph into a network; an error names the nodes."""
    parser = trt.OnnxParser(network, logger)
    if parser.parse(content, str(path)):
        return
    reasons = []
    for i in range(min(parser.num_errors, 3)):
        error = parser.get_error(i)
        node = f"{error.node_operator()} {error.node_name()!r}: " if error.node_name() else ""
        reasons.append(node + one_line(error.desc()))
    reason = "; ".join(reasons) or " ".join(logger.errors) or "no reason given"
    raise BackendError(
        f"TensorRT cannot read {path.name}: {reason}. Export the model with operators that TensorRT supports."
    )


def precisions(network: Any) -> dict[str, int]:
    """Count the convolutions and matrix products by precision, the most frequent precision first.

    A layer is int8 or fp8 if its input is the output of a DequantizeLinear; TensorRT fuses the two.
    """
    names = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}
    quantised: dict[str, str] = {}
    counts: collections.Counter[str] = collections.Counter()
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        kind = layer.type.name
        first = layer.get_input(0)
        if kind == "DEQUANTIZE":
            for j in range(layer.num_outputs):
                quantised[layer.get_output(j).name] = first.dtype.name.lower()
        elif kind in _HEAVY and first is not None:
            counts[quantised.get(first.name) or names.get(first.dtype.name, first.dtype.name.lower())] += 1
    if not counts:
        raise BackendError("the network has no convolution or matrix product; expected an image encoder")
    return dict(counts.most_common())


def profiles(
    network: Any, *, batch: Sequence[int], classes: Sequence[int], sizes: Sequence[tuple[int, int]]
) -> dict[str, Profile]:
    """The optimisation profile of each input: minimum, optimum and maximum shape.

    `batch`, `classes` (number of texts) and `sizes` `(H, W)` have a minimum, an optimum and a maximum too.
    """
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    inputs = {tensor.name: tuple(tensor.shape) for tensor in tensors}  # −1: a dynamic dimension.
    if set(inputs) != {"image", "text"} or len(inputs["image"]) != 4 or len(inputs["text"]) != 2:
        expected = "expected image [N,H,W,3] and text [K,D]. Export the bundle again."
        raise BackendError(f"the graph's inputs are {inputs}; {expected}")
    wanted = {
        "image": [(batch[i], *sizes[i], 3) for i in range(3)],
        "text": [(classes[i], inputs["text"][1]) for i in range(3)],
    }
    for name, shapes in wanted.items():
        for axis, fixed in enumerate(inputs[name]):
            requested = sorted({shape[axis] for shape in shapes})
            if fixed != -1 and requested != [fixed]:
                raise BackendError(
                    f"dimension {axis} of {name} is fixed to {fixed} in this graph, but {requested} was "
                    "requested. Request the fixed size, or export the model with this dimension dynamic."
                )
    return {name: (shapes[0], shapes[1], shapes[2]) for name, shapes in wanted.items()}


def tensor_infos(network: Any, shapes: dict[str, Profile]) -> tuple[TensorInfo, ...]:
    """The network's inputs and outputs, for the sidecar."""
    inputs = [("input", network.get_input(i)) for i in range(network.num_inputs)]
    outputs = [("output", network.get_output(i)) for i in range(network.num_outputs)]
    tensors = []
    for mode, tensor in inputs + outputs:
        dtype = _NUMPY_NAMES.get(tensor.dtype.name, tensor.dtype.name.lower())
        profile = shapes.get(tensor.name) if mode == "input" else None
        shape = tuple(tensor.shape)
        tensors.append(TensorInfo(name=tensor.name, mode=mode, dtype=dtype, shape=shape, profile=profile))
    return tuple(tensors)


def rtx_capabilities(trt: Any) -> str:
    """The GPUs that an engine of TensorRT-RTX runs on: ``"8.0, 8.6, 8.9, 12.0, 12.1+"``.

    The library lists what it can build for. Turing (7.5) is in that list, but not in engines that were built
    for no GPU in particular. Newer GPUs than the last run too. Versions without a list have a constant one.
    """
    listed = getattr(getattr(trt, "ComputeCapability", None), "__members__", {})
    numbers = sorted(int(name[2:]) for name in listed if name.startswith("SM") and name[2:].isdecimal())
    found = [f"{number // 10}.{number % 10}" for number in numbers if number >= 80]
    return ", ".join(found) + "+" if found else RTX_CAPABILITIES


def progress_monitor(trt: Any, stopped: Callable[[], bool]) -> Any:
    """An ``IProgressMonitor`` that shows the progress of a build and ends it when `stopped` returns True.

    It cannot raise instead, since TensorRT swallows exceptions.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, tuple[int, int]] = {}

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:  # noqa: ARG002
            self.phases[phase_name] = (0, num_steps)
            self.show()

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.phases[phase_name] = (step + 1, self.phases.get(phase_name, (0, 0))[1])
            self.show()
            return not stopped()

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)
            self.show()  # Clears the line after the last phase.

        def show(self) -> None:
            if sys.stderr.isatty():
                line = " › ".join(f"{name} {step}/{steps}" for name, (step, steps) in self.phases.items())
                print(f"\r\033[K{line[:100]}", end="", file=sys.stderr, flush=True)

    return Monitor()
