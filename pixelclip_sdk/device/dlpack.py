"""DLPack, the exchange format of arrays on devices: https://dmlc.github.io/dlpack."""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pixelclip_sdk.errors import ImageError

__all__ = ["CPU", "CUDA", "CUDA_MANAGED", "Described", "describe", "export"]

CPU, CUDA, CUDA_MANAGED = 1, 2, 13
"""Kinds of device."""

_NAME, _USED = b"dltensor", b"used_dltensor"
_CODES = {"i": 0, "u": 1, "f": 2}
_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))

_python = ctypes.pythonapi
_Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)(
    ("PyCapsule_New", _python)
)
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _python)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _python))
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _python)
)

# What a consumer has: address of the struct → everything that must live as long.
_lent: dict[int, tuple[Any, ...]] = {}


class Described(NamedTuple):
    """An array of another library: address, shape, strides in elements, dtype as text, device."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    device: tuple[int, int]


def describe(capsule: Any) -> Described:
    """Read what ``__dlpack__`` returned. The capsule keeps the memory; it is not consumed.

    Raises:
        ImageError: It is no capsule of DLPack.
    """
    try:
        address = _pointer(capsule, _NAME)
    except (ValueError, TypeError) as error:
        raise ImageError(f"__dlpack__ returned {capsule!r}; expected a fresh capsule of DLPack") from error
    tensor = ctypes.cast(address, ctypes.POINTER(_Managed)).contents.tensor
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else _contiguous(shape)
    kind = _KINDS.get(tensor.code, f"type {tensor.code} of ")
    lanes = f"x{tensor.lanes}" if tensor.lanes != 1 else ""
    return Described(
        (tensor.data or 0) + tensor.byte_offset,
        shape,
        strides,
        f"{kind}{tensor.bits}{lanes}",
        (tensor.device_type, tensor.device_id),
    )


def export(
    address: int, shape: Sequence[int], dtype: np.dtype[Any], device: tuple[int, int], owner: object
) -> Any:
    """Make a capsule of a C-contiguous array; `owner` lives until the consumer has deleted it."""
    managed = _Managed()
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    strides = (ctypes.c_int64 * len(shape))(*_contiguous(tuple(shape)))
    managed.tensor = _Tensor(
        address,
        *device,
        len(shape),
        _CODES[dtype.kind],
        dtype.itemsize * 8,
        1,
        ctypes.cast(sizes, ctypes.POINTER(ctypes.c_int64)),
        ctypes.cast(strides, ctypes.POINTER(ctypes.c_int64)),
        0,
    )
    managed.deleter = _delete
    key = ctypes.addressof(managed)
    _lent[key] = managed, sizes, strides, owner
    return _new(key, _NAME, _destroy)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1]
    for size in shape[:0:-1]:
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))[: len(shape)]


@_Deleter  # type: ignore[untyped-decorator]
def _delete(managed: Any) -> None:
    _lent.pop(ctypes.addressof(managed.contents), None)


@_Destructor  # type: ignore[untyped-decorator]
def _destroy(capsule: int) -> None:
    """Free what nobody consumed: consumers rename the capsule."""
    if _is_valid(capsule, _NAME):
        _lent.pop(_pointer_of(capsule, _NAME), None)
