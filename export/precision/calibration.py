"""What a graph's tensors hold on real photos: the ranges that fp16 and int8 have to cover."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

__all__ = ["Batch", "checked", "largest_values"]

Batch = Mapping[str, np.ndarray]
"""One photo for an image encoder: ``{"image": uint8 [1, H, W, 3], "text": float32 [K, D]}``."""

_MARK = "/largest"


def checked(calibration: Iterable[Batch]) -> Iterator[Batch]:
    """The same batches; at least one.

    Raises:
        ValueError: There is none.
    """
    empty = True
    for batch in calibration:
        empty = False
        yield batch
    if empty:
        raise ValueError("no calibration photos; give some real photos of the kind the model will see")


def largest_values(model: onnx.ModelProto, calibration: Iterable[Batch]) -> dict[str, float]:
    """Run a model on photos; the largest absolute value of each float32 tensor that it computes.

    Args:
        model: An fp32 model.
        calibration: Its inputs, one dictionary a photo.

    Returns:
        Tensor name → largest absolute value.

    Raises:
        ValueError: There is no photo.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    values = [*inferred.graph.value_info, *inferred.graph.output]
    floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    names = sorted(name for node in model.graph.node for name in node.output if name in floats)
    for name in names:
        inferred.graph.node.append(helper.make_node("Abs", [name], [f"{name}/abs"]))
        inferred.graph.node.append(helper.make_node("ReduceMax", [f"{name}/abs"], [name + _MARK], keepdims=0))
    del inferred.graph.output[:]
    inferred.graph.output.extend(
        helper.make_tensor_value_info(name + _MARK, TensorProto.FLOAT, []) for name in names
    )
    session = onnxruntime.InferenceSession(inferred.SerializeToString(), providers=["CPUExecutionProvider"])
    largest = np.zeros(len(names))
    for batch in checked(calibration):
        largest = np.maximum(largest, session.run(None, dict(batch)))
    return dict(zip(names, largest.tolist(), strict=True))
