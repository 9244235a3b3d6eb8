"""The structure of an ONNX file, without the package `onnx`, as far as the SDK must know it."""

__all__ = ["keeps_tensors_elsewhere"]

# Message → number of a field → message in it, as in onnx.proto: every way from a model to a tensor.
_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


def keeps_tensors_elsewhere(content: bytes) -> bool:
    """Return whether a tensor of an ONNX model is stored in another file.

    Raises ValueError if the content is no protobuf message.
    """
    waiting = [("model", memoryview(content))]
    while waiting:
        kind, message = waiting.pop()
        position = 0
        while position < len(message):
            key, position = _varint(message, position)
            number, wire = key >> 3, key & 7
            if wire == _VARINT:
                value, position = _varint(message, position)
                if kind == "tensor" and number == _DATA_LOCATION and value:
                    return True
                continue
            length = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(wire)
            if wire == _BYTES:
                length, position = _varint(message, position)
            if length is None or position + length > len(message):
                raise ValueError(f"field {number} of a {kind} is damaged")
            if kind == "tensor":
                if number == _EXTERNAL_DATA:
                    return True
            elif wire == _BYTES and (inner := _FIELDS[kind].get(number)):
                waiting.append((inner, message[position : position + length]))
            position += length
    return False


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Read a number of 7 bits a byte; returns it with the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is damaged")
