"""ONNX graphs that follow the contract of a bundle, and graphs that break it. Needs `onnx`.

The image encoder is a bundle's in small: an embedding of eight numbers for each cell of 8×8 pixels.
"""

import functools
from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = [
    "broken_image_encoders",
    "broken_text_encoders",
    "endless_image_encoder",
    "endless_text_encoder",
    "image_encoder",
    "text_encoder",
]

DIM, CELL = 8, 8
_F32 = TensorProto.FLOAT


def _value(name: str, kind: int = _F32, rank: int = 4) -> object:
    return helper.make_tensor_value_info(name, kind, [None] * rank)


def _constant(name: str, value: object, kind: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value, kind), name)


def _nodes() -> list[NodeProto]:
    return [
        helper.make_node("Cast", ["image"], ["numbers"], to=_F32),
        helper.make_node("Transpose", ["numbers"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=[CELL] * 2, strides=[CELL] * 2),
        helper.make_node("Transpose", ["pooled"], ["cells"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["cells", "weight"], ["mixed"]),
        helper.make_node("Add", ["mixed", "bias"], ["shifted"]),
        helper.make_node("LpNormalization", ["shifted"], ["features"], axis=-1, p=2),
        helper.make_node("Transpose", ["text"], ["words"], perm=[1, 0]),
        helper.make_node("MatMul", ["features", "words"], ["cosines"]),
        helper.make_node("Transpose", ["cosines"], ["logits"], perm=[0, 3, 1, 2]),
    ]


def _model(
    nodes: list[NodeProto],
    inputs: list[object],
    outputs: list[object],
    constants: list[TensorProto],
    opset: int = 17,
    ir_version: int = 8,
) -> ModelProto:
    graph = helper.make_graph(nodes, "encoder", inputs, outputs, initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    return model


def _image_model(
    after: list[NodeProto] = (),
    *,
    logits: str = "logits",
    features: str = "features",
    constants: list[TensorProto] = (),
    kinds: Mapping[str, object] | None = None,
    inputs: list[object] = (),
    **options: int,
) -> ModelProto:
    """The encoder with nodes after it, whose results are named `logits` and `features` in the end."""
    rng = np.random.default_rng(0)
    own = [_constant("weight", rng.normal(size=(3, DIM))), _constant("bias", rng.normal(size=DIM))]
    renames = {"logits": logits, "features": features}
    nodes = [*_nodes(), *after]
    outputs = []
    for name, source in renames.items():
        if source != name and source:
            for node in nodes:
                for names in (node.input, node.output):
                    for i, other in enumerate(names):
                        if other == name:
                            names[i] = f"own_{name}"
            nodes.append(helper.make_node("Identity", [source], [name]))
        if source:
            outputs.append((kinds or {}).get(name) or _value(name))
    both = [_value("image", TensorProto.UINT8), _value("text", rank=2), *inputs]
    return _model(nodes, both, outputs, [*own, *constants], **options)


@functools.cache
def image_encoder() -> bytes:
    """A graph that keeps the contract: `features` `(N, h, w, 8)` and `logits` `(N, K, h, w)`."""
    return _image_model().SerializeToString()


@functools.cache
def _endless(before: str, after: str) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes that add nothing to a value, after a loop of 2⁶² turns; and their constants."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("MatMul", ["before", "before"], ["after"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", _F32, [DIM, DIM]),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", _F32, [DIM, DIM]),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["turns", "always", "start"], ["never"], body=body),
        helper.make_node("ReduceSum", ["never", "axes"], ["nothing"], keepdims=0),
        helper.make_node("Add", [before, "nothing"], [after]),
    ]
    constants = [
        _constant("turns", 2**62, np.int64),
        _constant("always", True, np.bool_),
        _constant("start", np.zeros((DIM, DIM))),
        _constant("axes", [0, 1], np.int64),
    ]
    return nodes, constants


def endless_image_encoder() -> bytes:
    """A graph that never ends."""
    nodes, constants = _endless("own_logits", "late")
    return _image_model(nodes, logits="late", constants=constants).SerializeToString()


def _after(kind: str, source: str, *more: str, **attributes: object) -> list[NodeProto]:
    return [helper.make_node(kind, [f"own_{source}", *more], ["changed"], **attributes)]


def broken_image_encoders() -> dict[str, bytes]:
    """Name → a graph that breaks the contract of a bundle's image encoder."""
    models: dict[str, ModelProto | bytes] = {
        "no logits": _image_model(logits=""),
        "no features": _image_model(features=""),
        "no text": _model(
            _nodes()[:7],
            [_value("image", TensorProto.UINT8)],
            [_value("features")],
            _image_model().graph.initializer,
        ),
        "one more input": _image_model(inputs=[_value("extra")]),
        "other domain": _image_model(
            [helper.make_node("Magic", ["own_logits"], ["changed"], domain="com.example")], logits="changed"
        ),
        "unknown operator": _image_model(_after("NoSuchOperator", "logits"), logits="changed"),
        "opset of the future": _image_model(opset=999),
        "version of the future": _image_model(ir_version=999),
        "empty": b"",
        "cut off": image_encoder()[: len(image_encoder()) // 2],
        "text": b"hello",
    }
    models |= _with_changed("logits") | _with_changed("features")
    models |= _models_with_other_files()
    return {
        name: model if isinstance(model, bytes) else model.SerializeToString()
        for name, model in models.items()
    }


def _with_changed(name: str) -> dict[str, ModelProto]:
    """Name → the encoder with the output `name` changed."""
    models: dict[str, ModelProto] = {}

    def changed(kind: str, *more: str, output=None, constants=(), **attributes: object) -> ModelProto:
        return _image_model(
            _after(kind, name, *more, **attributes),
            constants=list(constants),
            kinds={name: output} if output is not None else None,
            **{name: "changed"},
        )

    for title, kind in (
        ("half", TensorProto.FLOAT16),
        ("double", TensorProto.DOUBLE),
        ("int", TensorProto.INT32),
        ("bool", TensorProto.BOOL),
        ("text", TensorProto.STRING),
    ):
        models[f"{name} {title}"] = changed("Cast", output=_value(name, kind), to=kind)
    for value in ("nan", "inf", "-inf", "3e38"):
        models[f"{name} {value}"] = changed("Add", "number", constants=[_constant("number", float(value))])
    axes = [_constant("from", [0], np.int64), _constant("to", [0], np.int64)]
    for axis in range(4):
        models[f"{name} without axis {axis}"] = changed(
            "Slice", "from", "to", "axis", constants=[*axes, _constant("axis", [axis], np.int64)]
        )
        if axis in {"logits": (0, 1), "features": (0, 3)}[name]:  # The others are sides of the grid.
            models[f"{name} twice as long in axis {axis}"] = changed("Concat", f"own_{name}", axis=axis)
    models[f"{name} flat"] = changed("Flatten", output=_value(name, rank=2))
    models[f"{name} of rank 5"] = changed(
        "Unsqueeze", "axis", constants=[_constant("axis", [0], np.int64)], output=_value(name, rank=5)
    )
    models[f"{name} as a list"] = changed(
        "SequenceConstruct", output=helper.make_tensor_sequence_value_info(name, _F32, None)
    )
    models[f"{name} of terabytes"] = changed(
        "Expand",
        "shape",
        constants=[_constant("shape", [2**20, 2**20, 1, 1, 1, 1], np.int64)],
        output=_value(name, rank=6),
    )
    models[f"{name} out of range"] = changed(
        "Gather", "number", constants=[_constant("number", 10**9, np.int64)], output=_value(name, rank=3)
    )
    models[f"{name} of an impossible shape"] = changed(
        "Reshape", "shape", constants=[_constant("shape", [7, 7, 7, 7], np.int64)]
    )
    return models


def _models_with_other_files() -> dict[str, ModelProto]:
    models = {}
    for title, place in (
        ("beside", "weights.bin"),
        ("above", "../../etc/passwd"),
        ("elsewhere", "/etc/passwd"),
    ):
        model = _image_model()
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=place)
        models[f"tensors in a file {title}"] = model
    return models


def _text_model(
    after: list[NodeProto] = (),
    output: str = "embedding",
    kind: object = None,
    constants: list[TensorProto] = (),
    inputs: tuple[str, ...] = ("input_ids", "attention_mask"),
) -> ModelProto:
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("Mod", ["input_ids", "rows"], ["numbers"]),
        helper.make_node("Gather", ["table", "numbers"], ["vectors"], axis=0),
        helper.make_node("ReduceMean", ["vectors"], ["means"], axes=[1], keepdims=0),
        helper.make_node("LpNormalization", ["means"], ["embedding" if not after else "unit"], axis=-1, p=2),
        *after,
    ]
    own = [_constant("rows", 12, np.int64), _constant("table", rng.normal(size=(12, DIM)))]
    values = [_value(name, TensorProto.INT64, 2) for name in inputs]
    return _model(nodes, values, [kind or _value(output, rank=2)], [*own, *constants])


@functools.cache
def text_encoder() -> bytes:
    """A graph that keeps the contract: ids `(N, L)` to unit rows `embedding` `(N, 8)`."""
    return _text_model().SerializeToString()


def endless_text_encoder() -> bytes:
    """A graph that never ends."""
    nodes, constants = _endless("unit", "embedding")
    return _text_model(nodes, constants=constants).SerializeToString()


def broken_text_encoders() -> dict[str, bytes]:
    """Name → a graph that breaks the contract of a bundle's text encoder."""

    def changed(kind: str, *more: str, constants=(), output=None, **attributes: object) -> ModelProto:
        node = helper.make_node(kind, ["unit", *more], ["embedding"], **attributes)
        return _text_model([node], kind=output, constants=list(constants))

    models = {
        "another output": _text_model([helper.make_node("Identity", ["unit"], ["vector"])], output="vector"),
        "another input": _text_model(inputs=("input_ids", "token_type_ids")),
        "wider": changed("Concat", "unit", axis=1),
        "twice the rows": changed("Concat", "unit", axis=0),
        "half": changed("Cast", output=_value("embedding", TensorProto.FLOAT16, 2), to=TensorProto.FLOAT16),
        "text": changed("Cast", output=_value("embedding", TensorProto.STRING, 2), to=TensorProto.STRING),
        "as a list": changed(
            "SequenceConstruct", output=helper.make_tensor_sequence_value_info("embedding", _F32, None)
        ),
    }
    for value in (0.0, 3.0, float("nan"), float("inf")):
        models[f"times {value}"] = changed("Mul", "factor", constants=[_constant("factor", value)])
    return {name: model.SerializeToString() for name, model in models.items()}
