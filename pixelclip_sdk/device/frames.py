"""Frames in a GPU's memory that other libraries made: what they are, and when they are ready."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.device import dlpack
from pixelclip_sdk.device.kernels import Pixels
from pixelclip_sdk.errors import ImageError

__all__ = ["DeviceFrame", "is_on_device", "turned"]

_PLACES = (dlpack.CUDA, dlpack.CUDA_MANAGED)


class _Memory(NamedTuple):
    """Address, shape and strides in bytes, and what to keep alive meanwhile."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    keep: object


def is_on_device(image: object) -> bool:
    """Whether an object is an array in a GPU's memory, by either protocol."""
    if isinstance(image, np.ndarray | str | bytes | bytearray):
        return False
    place = getattr(image, "__dlpack_device__", None)
    if place is not None:
        try:
            return int(place()[0]) in _PLACES
        except (TypeError, ValueError, IndexError, RuntimeError, BufferError):
            return False
    # Reading it raises for tensors that are not on a GPU.
    return hasattr(image, "__cuda_array_interface__")


def turned(interface: dict[str, Any], view: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """The ``__cuda_array_interface__`` of an array `(H, W, 3)` uint8, seen by a function that makes a view.

    It is the same memory with other strides: only addresses are computed, nothing is read.
    """
    shape = tuple(interface["shape"])
    origin = np.empty(1, np.uint8)
    whole = as_strided(origin, shape, interface.get("strides") or (3 * shape[1], 3, 1))
    seen = view(whole)
    address = interface["data"][0] + seen.ctypes.data - origin.ctypes.data
    return interface | {"shape": seen.shape, "strides": seen.strides, "data": (address, True)}


class DeviceFrame:
    """A frame `(H, W, 3)` or `(3, H, W)` uint8, 0–255, with any strides.

    Args:
        image: An array with ``__dlpack__`` or ``__cuda_array_interface__``; it is kept.
        order: ``"rgb"`` or ``"bgr"``.
        decoded: Whether the SDK decoded it from a file. Its labels are wanted on the host.

    Attributes:
        shape: `(H, W, 3)`, whatever the layout.
        pixels: Where the frame lies.

    Raises:
        ImageError: It has another dtype or shape, or no pixels.
    """

    def __init__(self, image: Any, order: str = "rgb", *, decoded: bool = False) -> None:
        if order not in ("rgb", "bgr"):
            raise ImageError(f'channel_order is {order!r}; expected "rgb" or "bgr"')
        self._image, self.decoded = image, decoded
        interface = getattr(image, "__cuda_array_interface__", None)
        # PyTorch's interface has no stream, so its DLPack is better: it waits for the work under way.
        self._by_dlpack = hasattr(image, "__dlpack__") and (interface is None or "stream" not in interface)
        self._stream: int | None = None
        memory = self._from_dlpack(image, interface) if self._by_dlpack else self._from_interface(interface)
        self._keep = memory.keep
        self.pixels, self.shape = _layout(memory, order)

    @property
    def size(self) -> tuple[int, int]:
        """`(H, W)`."""
        return self.shape[0], self.shape[1]

    @property
    def extent(self) -> tuple[int, int]:
        """Address of the first byte of the frame, and the number of bytes to its last one."""
        height, width = self.size
        reach = (self.pixels.row * (height - 1), self.pixels.column * (width - 1))
        first = sum(min(step, 0) for step in reach) + min(self.pixels.channels)
        last = sum(max(step, 0) for step in reach) + max(self.pixels.channels)
        return self.pixels.address + first, last - first + 1

    def read(self, content: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The frame `(H, W, 3)` uint8 RGB, copied from the bytes of `extent`."""
        red, green, _ = self.pixels.channels
        view: npt.NDArray[np.uint8] = np.ndarray(
            self.shape,
            np.uint8,
            buffer=content,
            offset=self.pixels.address + red - self.extent[0],
            strides=(self.pixels.row, self.pixels.column, green - red),
        )
        return view.copy()

    def check(self, cuda: Cuda) -> None:
        """Raise ImageError unless the frame is in the memory of this GPU."""
        found = cuda.owner(self.pixels.address)
        if found is None:
            raise ImageError(
                f"the frame's address {self.pixels.address:#x} is not in a GPU's memory; "
                "expected memory that is allocated and not freed"
            )
        if found != cuda.gpu.index:
            raise ImageError(
                f"the frame is on gpu:{found}, the model on gpu:{cuda.gpu.index}. "
                f'Copy the frame, or load the model with device="gpu:{found}".'
            )

    def before(self, cuda: Cuda, stream: Any, event: Any) -> None:
        """Let work that is started on `stream` from now on wait until the producer has written the frame."""
        if self._by_dlpack:
            self._keep = self._image.__dlpack__(stream=int(stream)), self._keep
        elif self._stream is not None:
            cuda.call("cudaEventRecord", event, self._stream)
            cuda.wait(stream, event)

    def _from_dlpack(self, image: Any, interface: Any) -> _Memory:
        try:
            capsule = image.__dlpack__(stream=-1)  # Only to look at it: nothing needs to wait.
        except BufferError as error:
            # PyTorch refuses while another GPU is the thread's current one; in `before` the right one is.
            if interface is None:
                raise ImageError(f"a {type(image).__name__} gives no DLPack capsule: {error}") from error
            return self._from_interface(interface)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ImageError(f"a {type(image).__name__} gives no DLPack capsule: {error}") from error
        found = dlpack.describe(capsule)
        _check_dtype(found.dtype)
        return _Memory(found.address, found.shape, found.strides, (capsule, image))

    def _from_interface(self, interface: Any) -> _Memory:
        try:
            address, shape = int(interface["data"][0]), tuple(map(int, interface["shape"]))
            dtype, strides = np.dtype(interface["typestr"]), interface.get("strides")
            stream = interface.get("stream")
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ImageError(f"__cuda_array_interface__ is damaged: {error!r}; see its definition") from error
        _check_dtype(str(dtype))
        if stream == 0:
            raise ImageError("the frame's stream is 0, which the protocol forbids; expected 1, 2 or a handle")
        self._stream = stream
        if strides is None:
            strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
        return _Memory(address, shape, tuple(map(int, strides)), self._image)


def _check_dtype(dtype: str) -> None:
    if dtype != "uint8":
        raise ImageError(
            f"got a frame of {dtype} on a GPU; expected uint8, 0–255. Convert it there, e.g. "
            "(frame * 255).to(torch.uint8) if it runs from 0 to 1"
        )


def _layout(memory: _Memory, order: str) -> tuple[Pixels, tuple[int, int, int]]:
    shape, strides = memory.shape, memory.strides
    if len(shape) != 3 or len(strides) != 3 or (shape[2] != 3 and shape[0] != 3):
        raise ImageError(
            f"got a frame of shape {shape} on a GPU; expected (H, W, 3) or (3, H, W). "
            "For a batch call predict_batch."
        )
    y, x, c = (0, 1, 2) if shape[2] == 3 else (1, 2, 0)
    if 0 in shape or not memory.address:
        raise ImageError(f"got an empty frame of shape {shape} on a GPU; expected at least one pixel")
    step = strides[c]
    channels = (0, step, 2 * step) if order == "rgb" else (2 * step, step, 0)
    return Pixels(memory.address, strides[y], strides[x], channels), (shape[y], shape[x], 3)
