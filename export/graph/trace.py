"""PyTorch module → lean ONNX file."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch

__all__ = ["OPSET", "trace"]

OPSET = 20
# The exporter also names inner values, after their operators (`embedding`, say), and does not see a clash.
_OUTPUT_MARK = "output/"


def trace(
    module: torch.nn.Module,
    arguments: Sequence[torch.Tensor],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, Any]],
) -> onnx.ModelProto:
    """Export a module.

    Args:
        module: In evaluation mode.
        arguments: Example inputs; their sizes in dynamic dimensions do not matter.
        inputs: Names of the inputs, in the order of `arguments`.
        outputs: Names of the outputs.
        dynamic: Input → dimension → ``torch.export.Dim``.

    Returns:
        A checked model with all weights inside and nothing else: no traces of the machine it was made on.

    Raises:
        RuntimeError: A dynamic dimension did not survive the export.
    """
    with warnings.catch_warnings():
        # Inputs that share a dynamic dimension share its name; that is meant.
        warnings.filterwarnings("ignore", message=".*axis name.*will not be used", category=UserWarning)
        program = torch.onnx.export(
            module,
            tuple(arguments),
            input_names=list(inputs),
            output_names=[_OUTPUT_MARK + name for name in outputs],
            dynamic_shapes=tuple(dict(dynamic.get(name, {})) for name in inputs),
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None  # None only with a file name
    model = program.model_proto
    _strip(model)
    _rename_outputs(model.graph)
    _check_dynamic(model.graph, dynamic)
    onnx.checker.check_model(model, full_check=True)
    return model


def _check_dynamic(graph: onnx.GraphProto, dynamic: Mapping[str, Mapping[int, Any]]) -> None:
    """Refuse a graph in which a dimension that was to be free became the example's."""
    for value in graph.input:
        for dimension in dynamic.get(value.name, {}):
            size = value.type.tensor_type.shape.dim[dimension]
            if not size.dim_param:
                raise RuntimeError(
                    f"dimension {dimension} of {value.name} was to be dynamic and was exported as "
                    f"{size.dim_value}: something in the module reads it as a number"
                )


def _strip(model: onnx.ModelProto) -> None:
    """Drop stack traces and other notes: they hold paths, and make equal exports differ."""
    model.doc_string = ""
    del model.metadata_props[:]
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        del graph.metadata_props[:]
        graph.doc_string = ""
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer]:
        del value.metadata_props[:]
        value.doc_string = ""


def _rename_outputs(graph: onnx.GraphProto) -> None:
    """Give the outputs their names; an inner value of that name makes way."""
    final = {value.name: value.name.removeprefix(_OUTPUT_MARK) for value in graph.output}
    rename = {name: f"{name}/inner" for name in final.values()} | final
    for node in graph.node:
        node.input[:] = [rename.get(name, name) for name in node.input]
        node.output[:] = [rename.get(name, name) for name in node.output]
    for value in [*graph.output, *graph.value_info]:
        value.name = rename.get(value.name, value.name)
