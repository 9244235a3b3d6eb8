"""The NVIDIA GPUs of this machine, by the driver alone, and what runs on them."""

import ctypes
import sys

from pixelclip_sdk.backends.cuda import Gpu
from pixelclip_sdk.backends.engine import RTX_CAPABILITIES, runs_on

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
# Of `cuDeviceGetAttribute`.
_MAJOR, _MINOR = 75, 76
_OLDEST = (7, 5)


def nvidia_gpus() -> list[Gpu]:
    """Return the GPUs that the driver lists, as far as ``CUDA_VISIBLE_DEVICES`` shows them; none without one.

    No package is needed. The driver is started, so a child that is forked later cannot use CUDA.
    """
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    found = []
    for index in range(count.value):
        device, name, value = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_int()
        if driver.cuDeviceGet(ctypes.byref(device), index) or driver.cuDeviceGetName(name, 256, device):
            continue
        numbers = []
        for attribute in (_MAJOR, _MINOR):
            if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
                break
            numbers.append(str(value.value))
        else:
            found.append(Gpu(index, name.value.decode(errors="replace"), ".".join(numbers)))
    return found


def advice(capability: str) -> str:
    """Return what runs on a compute capability, such as ``"9.0"``, what to install, and what cannot run."""
    if tuple(map(int, capability.split("."))) < _OLDEST:
        return (
            "too old for today's packages of CUDA, which need 7.5; use device='cpu', or an onnxruntime-gpu "
            "for CUDA 12"
        )
    onnx = 'backend="onnx-cuda" runs with onnxruntime-gpu in place of onnxruntime'
    if runs_on(RTX_CAPABILITIES, capability):
        return f'{onnx}; engines of TensorRT-RTX run with pip install "pixelclip-sdk[gpu]"'
    return (
        f"{onnx}; engines of TensorRT run with pip install tensorrt cuda-bindings; "
        f"TensorRT-RTX cannot run: it needs {RTX_CAPABILITIES}"
    )
