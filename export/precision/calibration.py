"""Measure the value range of a graph's tensors on real photos."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

__all__ = ["Batch", "largest_values", "not_empty"]

Batch = Mapping[str, np.ndarray]
"""Inputs of an image encoder for one photo: ``{"image": uint8 [1, H, W, 3], "text": float32 [K, D]}``."""

_SUFFIX = "/largest"


def not_empty(calibration: Iterable[Batch]) -> Iterator[Batch]:
    """Pass the batches on.

    Raises:
        ValueError: There are none.
    """
    empty = True
    for batch in calibration:
        empty = False
        yield batch
    if empty:
        raise ValueError("no calibration photos; expected real photos similar to those in use")


def largest_values(model: onnx.ModelProto, calibration: Iterable[Batch]) -> dict[str, float]:
    """Run a model on photos and return the largest absolute value of each tensor.

    Args:
        model: An fp32 model.
        calibration: Inputs of the model, one mapping per photo.

    Returns:
        Name of each float32 tensor that a node computes → largest absolute value.

    Raises:
        ValueError: There are no photos.
    """
    probe = onnx.shape_inference.infer_shapes(model)
    values = [*probe.graph.value_info, *probe.graph.output]
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    names = sorted(name for node in model.graph.node for name in node.output if name in floats)
    for name in names:
        probe.graph.node.append(helper.make_node("Abs", [name], [f"{name}/abs"]))
        probe.graph.node.append(helper.make_node("ReduceMax", [f"{name}/abs"], [name + _SUFFIX], keepdims=0))
    del probe.graph.output[:]
    probe.graph.output.extend(
        helper.make_tensor_value_info(name + _SUFFIX, TensorProto.FLOAT, []) for name in names
    )
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    largest = np.zeros(len(names))
    for batch in not_empty(calibration):
        largest = np.maximum(largest, session.run(None, dict(batch)))
    return dict(zip(names, largest.tolist(), strict=True))
