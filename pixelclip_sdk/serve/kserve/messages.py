"""Bodies of the Open Inference Protocol: JSON, with tensors in it or as bytes behind it.

The format is that of KServe's REST API, version 2, with Triton's binary tensor data extension. Everything
here runs without waiting for anything, in a worker thread if a body is large.
"""

import base64
import binascii
import dataclasses
import itertools
import json
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.serve.errors import ServeError
from pixelclip_sdk.serve.tensors import INPUTS, OUTPUTS

__all__ = ["InferRequest", "read_request", "unpacked", "write_answer"]

Array = npt.NDArray[Any]

_DATATYPES = {tensor.name: tensor.datatype for tensor in (*INPUTS, *OUTPUTS)}
_INPUTS = [tensor.name for tensor in INPUTS]
_OUTPUTS = [tensor.name for tensor in OUTPUTS]
_DIMENSIONS = 4
# Values that an answer may have as JSON, where each takes many bytes.
_JSON_VALUES = 4_000_000


@dataclasses.dataclass(frozen=True)
class InferRequest:
    """What a client asked.

    Attributes:
        id: What the answer repeats, or None.
        tensors: Name → array; BYTES are arrays of `bytes` objects.
        outputs: The wanted outputs: name → whether as bytes behind the JSON.
    """

    id: str | None
    tensors: dict[str, Array]
    outputs: dict[str, bool]


def unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """Undo a body's Content-Encoding.

    Raises:
        ServeError: 413 if there are more than `most` bytes, 415 for another encoding, 400 for damaged data.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise ServeError(415, f"the content encoding is {encoding[:50]!r}; expected gzip, deflate or none")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | (16 if encoding == "gzip" else 0))
    try:
        data = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise ServeError(400, f"the body is not {encoding} data: {error}") from None
    if len(data) > most:
        raise ServeError(413, f"the body has more than {most} bytes when it is unpacked, the limit")
    if not unpacker.eof or unpacker.unused_data:
        raise ServeError(400, f"the {encoding} data of the body is cut off, or more follows it")
    return data


def read_request(body: bytes, header_length: str | None) -> InferRequest:
    """Read the body of a request.

    Args:
        body: The body, unpacked.
        header_length: The header ``Inference-Header-Content-Length``: bytes of the JSON; None for all.

    Raises:
        ServeError: 400; the message says what came and what was expected.
    """
    length = len(body)
    if header_length is not None:
        digits = header_length.isascii() and header_length.isdigit() and len(header_length) < 16
        if not digits or int(header_length) > length:
            raise _wrong(
                f"Inference-Header-Content-Length is {header_length[:20]!r}, and the body has {length} bytes"
            )
        length = int(header_length)
    try:
        request = json.loads(body[:length])
    except (ValueError, RecursionError) as error:  # UnicodeError is a ValueError.
        raise _wrong(f"the body is not JSON: {type(error).__name__}") from None
    request = _mapping(request, "the body")
    identifier = request.get("id")
    if not (identifier is None or isinstance(identifier, str)):
        raise _wrong("id is not text")
    tensors: dict[str, Array] = {}
    offset = length
    for entry in _list(request.get("inputs"), "inputs"):
        tensor = _mapping(entry, "an input")
        name, size = _name(tensor, _INPUTS, "input"), _binary_size(tensor)
        if name in tensors:
            raise _wrong(f"the input {name} came twice")
        shape = _shape(tensor, name)
        if size is None:
            tensors[name] = _from_json(tensor.get("data"), name, shape)
        else:
            if "data" in tensor:
                raise _wrong(f"the input {name} has data and binary_data_size; expected one of them")
            if offset + size > len(body):
                left = len(body) - offset
                raise _wrong(f"the input {name} has {size} bytes, but {left} are left of the body")
            tensors[name] = _from_bytes(memoryview(body)[offset : offset + size], name, shape)
            offset += size
    if offset != len(body):
        raise _wrong(f"{len(body) - offset} bytes at the end of the body belong to no input")
    return InferRequest(identifier, tensors, _wanted(request))


def write_answer(model: str, request: InferRequest, outputs: Mapping[str, Array]) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the length of its JSON if bytes follow it."""
    entries, binary = [], []
    values = 0
    for name, as_bytes in request.outputs.items():
        array = outputs[name]
        entry: dict[str, Any] = {"name": name, "datatype": _DATATYPES[name], "shape": list(array.shape)}
        if as_bytes:
            data = _to_bytes(array)
            binary.append(data)
            entry["parameters"] = {"binary_data_size": len(data)}
        else:
            values += array.size
            if values > _JSON_VALUES:
                raise ServeError(
                    413, f"the outputs have more than {_JSON_VALUES} values; ask for them with binary_data"
                )
            flat = array.ravel().tolist()
            entry["data"] = [item.decode() for item in flat] if array.dtype == np.object_ else flat
        entries.append(entry)
    answer: dict[str, Any] = {"model_name": model, "model_version": "1", "outputs": entries}
    if request.id is not None:
        answer["id"] = request.id
    head = json.dumps(answer).encode()
    return b"".join([head, *binary]), len(head) if binary else None


def _wanted(request: dict[str, Any]) -> dict[str, bool]:
    as_bytes = _flag(request, "binary_data_output", default=False)
    if not request.get("outputs"):
        return {name: as_bytes for name in _OUTPUTS if name != "confidence"}
    wanted: dict[str, bool] = {}
    for entry in _list(request["outputs"], "outputs"):
        output = _mapping(entry, "an output")
        name = _name(output, _OUTPUTS, "output")
        if "classification" in _parameters(output):
            raise _wrong(f"the output {name} has the parameter classification, which is not known here")
        wanted[name] = _flag(output, "binary_data", default=as_bytes)
    return wanted


def _from_json(data: Any, name: str, shape: tuple[int, ...]) -> Array:
    """Values in JSON, flat or nested. An image file is text in base64: JSON cannot hold its bytes."""
    flat = _list(data, f"data of the input {name}")
    while flat and all(isinstance(item, list) for item in flat):
        flat = list(itertools.chain.from_iterable(flat))
    kind = _DATATYPES[name]
    try:
        if kind == "UINT8":
            array: Array = np.frombuffer(bytes(flat), np.uint8)
        elif kind == "FP32":
            if not all(type(item) in (int, float) for item in flat):
                raise TypeError
            with np.errstate(over="ignore"):
                array = np.array(flat, np.float64).astype(np.float32)
        else:
            encode = _base64 if name == "image" else str.encode
            array = _objects([encode(item) for item in flat])
    except (TypeError, ValueError, OverflowError):
        expected = {"UINT8": "whole numbers from 0 to 255", "FP32": "numbers"}.get(kind, "texts")
        if name == "image":
            expected = "image files in base64 (or as binary tensor data)"
        raise _wrong(f"the data of the input {name} are not {expected}") from None
    return _shaped(array, name, shape)


def _from_bytes(data: memoryview, name: str, shape: tuple[int, ...]) -> Array:
    kind = _DATATYPES[name]
    if kind != "BYTES":
        dtype = np.dtype(np.uint8 if kind == "UINT8" else "<f4")
        if len(data) != (size := math.prod(shape) * dtype.itemsize):
            raise _wrong(f"the input {name} has {len(data)} bytes; its shape {list(shape)} has {size}")
        return np.frombuffer(data, dtype).reshape(shape)
    items = []
    offset = 0
    while offset < len(data):
        if offset + 4 > len(data):
            raise _wrong(f"the input {name} is cut off at byte {offset}")
        (length,) = struct.unpack_from("<I", data, offset)
        offset += 4
        if offset + length > len(data):
            left = len(data) - offset
            raise _wrong(f"the input {name} is cut off: an item has {length} bytes, and {left} are left")
        items.append(bytes(data[offset : offset + length]))
        offset += length
    return _shaped(_objects(items), name, shape)


def _to_bytes(array: Array) -> bytes:
    if array.dtype == np.object_:
        return b"".join(struct.pack("<I", len(item)) + item for item in array.ravel())
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _objects(items: list[bytes]) -> Array:
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError from error


def _shaped(array: Array, name: str, shape: tuple[int, ...]) -> Array:
    if array.size != (size := math.prod(shape)):
        raise _wrong(f"the input {name} has {array.size} values; its shape {list(shape)} has {size}")
    return array.reshape(shape)


def _shape(tensor: dict[str, Any], name: str) -> tuple[int, ...]:
    kind = tensor.get("datatype")
    if kind != _DATATYPES[name]:
        raise _wrong(f"the input {name} has the datatype {str(kind)[:20]!r}; expected {_DATATYPES[name]}")
    sizes = _list(tensor.get("shape"), f"shape of the input {name}")
    # No body has 2³¹ values.
    if len(sizes) > _DIMENSIONS or not all(type(size) is int and 0 <= size < 2**31 for size in sizes):
        raise _wrong(f"the shape of {name} is {str(sizes)[:60]!r}; expected at most {_DIMENSIONS} sizes")
    return tuple(sizes)


def _binary_size(tensor: dict[str, Any]) -> int | None:
    size = _parameters(tensor).get("binary_data_size")
    if size is not None and not (type(size) is int and 0 <= size < 2**63):
        raise _wrong(f"binary_data_size is {str(size)[:20]!r}; expected a number of bytes")
    return size


def _parameters(entry: dict[str, Any]) -> dict[str, Any]:
    parameters = _mapping(entry.get("parameters", {}), "parameters")
    if "shared_memory_region" in parameters:
        raise _wrong("shared memory is not known here; send and ask for data in the bodies")
    return parameters


def _flag(entry: dict[str, Any], name: str, *, default: bool) -> bool:
    value = _parameters(entry).get(name, default)
    if not isinstance(value, bool):
        raise _wrong(f"{name} is {str(value)[:20]!r}; expected true or false")
    return value


def _name(entry: dict[str, Any], known: list[str], what: str) -> str:
    name = entry.get("name")
    if not (isinstance(name, str) and name in known):
        raise _wrong(f"the {what} {str(name)[:50]!r} is not known; expected {', '.join(known)}")
    return name


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(f"{what} is not a JSON object")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(f"{what} is missing or not a list")
    return value


def _wrong(message: str) -> ServeError:
    return ServeError(400, message)
