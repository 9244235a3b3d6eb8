"""What TensorRT has to be told, and what can be learnt from the network it read."""

import collections
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from pixelclip_sdk.backends.engine import TensorInfo
from pixelclip_sdk.backends.trt import one_line
from pixelclip_sdk.errors import BackendError

__all__ = [
    "Progress",
    "describe_tensors",
    "fold_storage",
    "make_symmetric",
    "parse",
    "precisions",
    "profiles",
]

Shape = tuple[int, ...]
Profile = tuple[Shape, Shape, Shape]

_NUMPY_NAMES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "UINT8": "uint8", "INT32": "int32"}
# A constant of fewer elements is no weight, but a shape or a scale.
_WEIGHT = 1024
# Where nearly all arithmetic is.
_HEAVY = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "ATTENTION")


def fold_storage(model: onnx.ModelProto) -> bool:
    """Expand stored weights, in place: Cast and Mul of nothing but constants become constants.

    `export/precision/storage.py` stores weights small and lets ONNX Runtime expand them. TensorRT takes an
    int8 constant for a quantised tensor and refuses it. No arithmetic on data changes: afterwards
    a weight has the type in which it is used.

    Returns:
        Whether weights were stored smaller than they are used.
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
            stored_small |= result.size >= _WEIGHT and result.itemsize > values[0].itemsize
        else:
            result = np.multiply(*values)
        constants[node.output[0]] = numpy_helper.from_array(result, node.output[0])
    used = {name for node in rest for name in node.input} | {value.name for value in graph.output}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(rest)
    graph.initializer.extend(weight for name, weight in constants.items() if name in used)
    return stored_small


def make_symmetric(model: onnx.ModelProto) -> None:
    """Quantised tensors of uint8 with a zero point become int8 ones with zero point 0, in place.

    TensorRT takes no others. The new range holds the old one; half of it stays unused where the old one began
    at zero, which costs one of eight bits.
    """
    constants = {weight.name: weight for weight in model.graph.initializer}
    pairs = {
        (node.input[1], node.input[2])
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2
    }
    pairs = {pair for pair in pairs if constants[pair[1]].data_type == onnx.TensorProto.UINT8}
    for scale, zero in pairs:
        least = numpy_helper.to_array(constants[zero]).astype(np.float32)
        wider = numpy_helper.to_array(constants[scale]) * np.maximum(least, 255 - least) / 127
        constants[scale].CopyFrom(numpy_helper.from_array(wider.astype(np.float32), scale))
    for zero in {zero for _, zero in pairs}:
        shape = tuple(constants[zero].dims)
        constants[zero].CopyFrom(numpy_helper.from_array(np.zeros(shape, np.int8), zero))


def parse(trt: Any, network: Any, logger: Any, content: bytes, path: Path) -> None:
    """Read an ONNX graph into a network.

    Raises:
        BackendError: TensorRT refuses it; the message names the nodes.
    """
    parser = trt.OnnxParser(network, logger)
    if parser.parse(content, str(path)):
        return
    found = []
    for i in range(min(parser.num_errors, 3)):
        error = parser.get_error(i)
        where = f"{error.node_operator()} {error.node_name()!r}: " if error.node_name() else ""
        found.append(where + one_line(error.desc()))
    said = "; ".join(found) or " ".join(logger.errors) or "it gave no reason"
    raise BackendError(
        f"TensorRT cannot read {path.name}: {said}. Export the model with operators that TensorRT has."
    )


def precisions(network: Any) -> dict[str, int]:
    """Precision → number of convolutions and matrix products that compute in it, most first.

    int8 and fp8 are those whose input comes from a DequantizeLinear; TensorRT fuses the two.
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
        raise BackendError("the network has no convolution and no matrix product; expected an image encoder")
    return dict(counts.most_common())


def profiles(
    inputs: dict[str, Shape],
    *,
    batch: Sequence[int],
    classes: Sequence[int],
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]],
) -> dict[str, Profile]:
    """Least, usual and largest shape of each input.

    Args:
        inputs: Name → shape in the graph, −1 where it varies.
        batch: Pictures at once: least, usual, most.
        classes: Texts: least, usual, most.
        sizes: Input sizes `(H, W)`: least, usual, largest.

    Raises:
        BackendError: The graph has other inputs, or a dimension that cannot vary so.
    """
    if set(inputs) != {"image", "text"} or len(inputs["image"]) != 4 or len(inputs["text"]) != 2:
        raise BackendError(
            f"the graph's inputs are {inputs}; expected image [N,H,W,3] and text [K,D]. "
            "Export the bundle again."
        )
    wanted = {
        "image": [(batch[i], *sizes[i], 3) for i in range(3)],
        "text": [(classes[i], inputs["text"][1]) for i in range(3)],
    }
    for name, shapes in wanted.items():
        for axis, fixed in enumerate(inputs[name]):
            given = sorted({shape[axis] for shape in shapes})
            if fixed != -1 and given != [fixed]:
                raise BackendError(
                    f"dimension {axis} of {name} is always {fixed} in this graph; asked for {given}. "
                    "Ask for that, or export the model with this dimension dynamic."
                )
    return {name: (shapes[0], shapes[1], shapes[2]) for name, shapes in wanted.items()}


def describe_tensors(network: Any, shapes: dict[str, Profile]) -> tuple[TensorInfo, ...]:
    """The network's inputs and outputs, for the sidecar."""
    found = []
    for mode, count, get in (
        ("input", network.num_inputs, network.get_input),
        ("output", network.num_outputs, network.get_output),
    ):
        for i in range(count):
            tensor = get(i)
            found.append(
                TensorInfo(
                    name=tensor.name,
                    mode=mode,
                    dtype=_NUMPY_NAMES.get(tensor.dtype.name, tensor.dtype.name.lower()),
                    shape=tuple(tensor.shape),
                    profile=shapes.get(tensor.name) if mode == "input" else None,
                )
            )
    return tuple(found)


class Progress:
    """One line on a terminal that says what TensorRT is at; nothing where stderr is a file.

    Args:
        stopped: Whether the build is to end. It is asked, because exceptions do not cross TensorRT: it
            swallows those that Python code raises which it calls.
    """

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped
        self._show = sys.stderr.isatty()
        self._phases: dict[str, tuple[int, int]] = {}

    def monitor(self, trt: Any) -> Any:
        """An ``IProgressMonitor``, or None if this TensorRT has none. The build ends through it."""
        if not hasattr(trt, "IProgressMonitor"):
            return None
        progress = self

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:  # noqa: ARG002
                progress._step(phase_name, 0, num_steps)

            def step_complete(self, phase_name: str, step: int) -> bool:
                return progress._step(phase_name, step + 1, None)

            def phase_finish(self, phase_name: str) -> None:
                progress._phases.pop(phase_name, None)

        return Monitor()

    def clear(self) -> None:
        """Wipe the line."""
        if self._show:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _step(self, phase: str, step: int, steps: int | None) -> bool:
        """Whether to go on."""
        total = steps if steps is not None else self._phases.get(phase, (0, 0))[1]
        self._phases[phase] = (step, total)
        if self._show:
            done = " › ".join(f"{name} {at}/{of}" for name, (at, of) in self._phases.items())
            print(f"\r\033[K{done[:100]}", end="", file=sys.stderr, flush=True)
        return not self._stopped()
