"""Export a PyTorch module as an ONNX model without notes of the exporter."""

import ast
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch

__all__ = ["trace"]

_OPSET = 20
# The exporter names inner values after their operators, such as `embedding`, which may be an output's name.
_OUTPUT_MARK = "output/"


def trace(
    module: torch.nn.Module,
    arguments: Sequence[torch.Tensor],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, Any]],
) -> onnx.ModelProto:
    """Export a module in evaluation mode as a checked ONNX model with all weights inside.

    The model holds no trace of the machine. Nodes are named ``MODULE/OPERATOR``, for example
    ``tower.blocks.0.expand.0/MatMul``.

    `arguments` are example inputs; their sizes in dynamic dimensions do not matter. `inputs` and `outputs`
    are names, and `dynamic` maps input → dimension → ``torch.export.Dim``.
    """
    with warnings.catch_warnings():
        # Inputs share a dynamic dimension and so its name, on purpose.
        warnings.filterwarnings("ignore", message=".*axis name.*will not be used", category=UserWarning)
        program = torch.onnx.export(
            module,
            tuple(arguments),
            input_names=list(inputs),
            output_names=[_OUTPUT_MARK + name for name in outputs],
            dynamic_shapes=tuple(dict(dynamic.get(name, {})) for name in inputs),
            opset_version=_OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None  # It is None only when a file name is given.
    model = program.model_proto
    _name_nodes(model.graph)
    _strip(model)
    _rename_outputs(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name each node after the module that it was exported from."""
    seen: Counter[str] = Counter()
    for node in graph.node:
        notes = {note.key: note.value for note in node.metadata_props}
        # The last two scopes are the module and the operation: ['', 'tower', 'tower.ln_pre', 'layer_norm'].
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
        name = f"{scopes[-2]}/{node.op_type}" if len(scopes) > 2 else node.op_type
        node.name = f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1


def _strip(model: onnx.ModelProto) -> None:
    """Remove stack traces and other notes: they hold paths, and differ between equal exports."""
    graphs = [model.graph, *model.functions]
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer]
    for part in (model, *graphs, *values, *(node for graph in graphs for node in graph.node)):
        del part.metadata_props[:]
        part.doc_string = ""


def _rename_outputs(graph: onnx.GraphProto) -> None:
    """Give the outputs their names, and rename inner values that have the same name."""
    final = {value.name: value.name.removeprefix(_OUTPUT_MARK) for value in graph.output}
    rename = {name: f"{name}/inner" for name in final.values()} | final
    for node in graph.node:
        node.input[:] = [rename.get(name, name) for name in node.input]
        node.output[:] = [rename.get(name, name) for name in node.output]
    for value in [*graph.output, *graph.value_info]:
        value.name = rename.get(value.name, value.name)
