"""Machines for the TensorRT backend: real GPUs, and one whose GPU memory is the host's (`host_gpu`).

Whether the real libraries agree with the second is tested on a GPU with the same tests (`make test-gpu`).
"""

import contextlib
import dataclasses
import json
import shutil
import sys
import types
from pathlib import Path

import pytest
from host_gpu.cuda import HostCuda
from host_gpu.kernels import compiler
from host_gpu.tensorrt import HostTensorRT

from export.to_trt import Options, compile_engine
from pixelclip_sdk import BackendUnavailableError, Bundle
from pixelclip_sdk.backends import tensorrt as backend_module
from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.backends.engine import ENGINES, FLAVORS, RTX_CAPABILITIES, EngineInfo, runs_on
from pixelclip_sdk.backends.trt import load_tensorrt
from pixelclip_sdk.device import pipeline as pipeline_module
from pixelclip_sdk.models import find_bundle


@dataclasses.dataclass
class Machine:
    """Where the backend is tested.

    Attributes:
        flavor: Of TensorRT.
        cuda: The GPU in host memory; None on a real one.
    """

    flavor: str
    cuda: HostCuda | None

    def compile(self, folder: Path, options: Options) -> Path:
        """A copy of the bundled model in `folder`, with an engine."""
        shutil.copytree(find_bundle("pixelclip-lite").path, folder, ignore=lambda *_: [ENGINES])
        if self.cuda is None:
            compile_engine(Bundle.open(folder), self.flavor, folder / ENGINES, options)
            return folder
        plan = compile_engine(Bundle.open(folder), "tensorrt-rtx", folder / ENGINES, options)
        sidecar = plan.with_suffix(".json")
        # TensorRT compiles on a GPU only, so its engine here is one by name.
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"flavor": self.flavor}))
        return folder

    def free_memory(self) -> int:
        """Bytes of the GPU that nobody has."""
        from cuda.bindings import runtime

        return int(runtime.cudaMemGetInfo()[1])


_MACHINES = [
    *(pytest.param((flavor, False), id=f"host-{flavor}") for flavor in FLAVORS),
    *(pytest.param((flavor, True), id=f"gpu-{flavor}", marks=pytest.mark.gpu) for flavor in FLAVORS),
]


@pytest.fixture(scope="module", params=_MACHINES)
def machine(request) -> Machine:
    """Each flavour of TensorRT, on host memory and (marked gpu) on a GPU."""
    flavor, real = request.param
    if real:
        try:
            load_tensorrt(flavor)
            capability = Cuda().gpu.compute_capability
        except BackendUnavailableError as error:
            pytest.skip(str(error))
        if flavor == "tensorrt-rtx" and not runs_on(RTX_CAPABILITIES, capability):
            pytest.skip(f"TensorRT-RTX runs on {RTX_CAPABILITIES}; this GPU has {capability}")
        yield Machine(flavor, None)
        return
    pytest.importorskip("tensorrt_rtx")
    cuda = HostCuda()
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyError):
        patch.setitem(sys.modules, "cuda.bindings", types.SimpleNamespace(runtime=cuda, driver=cuda))
        plans: dict[bytes, EngineInfo] = {}
        read = EngineInfo.read

        def remember(plan: Path) -> EngineInfo:
            info = read(plan)
            plans[plan.read_bytes()] = info
            trt.__version__ = info.tensorrt_version
            return info

        trt = HostTensorRT(cuda, plans.__getitem__)
        patch.setattr(backend_module, "load_tensorrt", lambda _: trt)
        if compiler() is not None:
            patch.setattr(pipeline_module, "compiled", lambda _: b"code")
        patch.setattr(backend_module.EngineInfo, "read", remember)
        yield Machine(flavor, cuda)
