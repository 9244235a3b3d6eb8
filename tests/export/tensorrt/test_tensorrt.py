"""The checks of the TensorRT backend before it uses a GPU; test_tensorrt_runs.py has the rest."""

import ast
import json
import logging
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from export.to_trt import Options, compile_engine
from pixelclip_sdk import BackendError, BackendUnavailableError, Bundle, BundleError, Segmenter
from pixelclip_sdk.backends import choose
from pixelclip_sdk.backends.base import Device
from pixelclip_sdk.backends.choose import open_backend
from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.backends.engine import ENGINES, EngineInfo, engine_files, trust
from pixelclip_sdk.backends.fake import FakeBackend
from pixelclip_sdk.bundle import IMAGE_ENCODER
from pixelclip_sdk.cli.doctor import diagnose
from pixelclip_sdk.cli.main import main
from pixelclip_sdk.models import find_bundle

ROOT = Path(__file__).parents[3]


def has_gpu() -> bool:
    try:
        Cuda()
    except BackendUnavailableError:
        return False
    return True


without_gpu = pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    """The bundled model with a real engine."""
    pytest.importorskip("tensorrt_rtx")
    folder = tmp_path_factory.mktemp("models") / "lite"
    shutil.copytree(find_bundle("pixelclip-lite").path, folder, ignore=lambda *_: [ENGINES])
    compile_engine(Bundle.open(folder), "tensorrt-rtx", folder / ENGINES, Options())
    return folder


@pytest.fixture
def bundle(compiled, tmp_path) -> Path:
    """A copy of it, to damage."""
    return Path(shutil.copytree(compiled, tmp_path / "lite"))


def change_sidecar(bundle: Path, **fields) -> None:
    (plan,) = engine_files(bundle)
    sidecar = plan.with_suffix(".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | fields))


def names_used(*files: str) -> set[str]:
    """Every attribute and every string of the source files."""
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse((ROOT / "pixelclip_sdk" / "backends" / file).read_text())):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_every_cuda_function_that_is_used_exists():
    runtime = pytest.importorskip("cuda.bindings.runtime")
    used = {name for name in names_used("cuda.py", "tensorrt.py") if re.fullmatch(r"cuda[A-Z]\w+", name)}
    assert len(used) > 20
    members = {*dir(runtime), *dir(runtime.cudaError_t), *dir(runtime.cudaMemcpyKind)}
    assert used <= members | {*dir(runtime.cudaStreamCaptureMode), *dir(runtime.cudaMemoryType)}
    driver = pytest.importorskip("cuda.bindings.driver")
    assert {"cuDevicePrimaryCtxGetState", "CUresult"} <= {*dir(driver)}
    assert driver.CUresult.CUDA_SUCCESS == 0


def test_every_tensorrt_method_that_is_used_exists():
    trt = pytest.importorskip("tensorrt_rtx")
    used = names_used("trt.py", "tensorrt.py")
    for owner, names in {
        trt: ["Runtime", "ILogger", "CudaGraphStrategy", "ExecutionContextAllocationStrategy", "__version__"],
        trt.Runtime: ["deserialize_cuda_engine"],
        trt.ICudaEngine: ["create_execution_context", "create_runtime_config", "device_memory_size_v2"],
        trt.IRuntimeConfig: ["cuda_graph_strategy"],
        trt.CudaGraphStrategy: ["WHOLE_GRAPH_CAPTURE"],
        trt.ExecutionContextAllocationStrategy: ["USER_MANAGED"],
        trt.ILogger: ["ERROR", "INTERNAL_ERROR", "WARNING"],
        trt.IExecutionContext: [
            "execute_async_v3",
            "get_tensor_shape",
            "infer_shapes",
            "set_device_memory",
            "set_input_shape",
            "set_tensor_address",
        ],
    }.items():
        for name in names:
            assert hasattr(owner, name), f"{owner.__name__}.{name}"
            assert name in used or name == "__version__", f"{name} is not used any more"
    # The keyword by which the context gets its configuration.
    assert "runtime_config:" in trt.ICudaEngine.create_execution_context.__doc__


@without_gpu
def test_without_a_gpu_the_error_says_so(compiled):
    with pytest.raises(BackendUnavailableError, match=r"no NVIDIA GPU .* \(CUDA error \d+\)"):
        Segmenter.from_pretrained(compiled, backend="tensorrt")


@without_gpu
def test_auto_falls_back_to_the_cpu_and_says_why(compiled, caplog, photo):
    with caplog.at_level(logging.INFO), Segmenter.from_pretrained(compiled, classes=["cat"]) as segmenter:
        assert segmenter.backend == "onnx"
        assert segmenter.predict(photo).labels.shape == photo.shape[:2]
    assert "no engine runs here" in caplog.text
    assert "no NVIDIA GPU" in caplog.text
    assert "backend onnx (onnxruntime on cpu" in caplog.text


def test_auto_on_the_cpu_asks_no_engine(compiled, caplog):
    with open_backend(Bundle.open(compiled), device="cpu") as backend:
        assert "onnxruntime on cpu" in backend.description
    assert not caplog.text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tensorrt_version": "1.0.0.21"}, r"version of tensorrt-rtx is .*; .* compiled for 1\.0\.0\.21"),
        ({"onnx_sha256": "0" * 64}, "the hash of its ONNX file"),
        ({"plan_size": 7}, "size in bytes"),
        ({"plan_sha256": "0" * 64}, "SHA-256"),
    ],
)
def test_an_engine_of_something_else_is_refused_before_it_is_loaded(bundle, fields, said):
    change_sidecar(bundle, **fields)
    with pytest.raises(BackendError, match=said) as error:
        Segmenter.from_pretrained(bundle, backend="tensorrt")
    assert f"python export/to_trt.py --bundle {bundle} --flavor tensorrt-rtx" in str(error.value)


@pytest.mark.parametrize("backend", ["tensorrt", "auto"])
def test_an_onnx_file_changed_after_the_engine_was_built_is_noticed(bundle, backend):
    """One byte differs and the manifest does not: an error before TensorRT or a GPU is used."""
    file = bundle / IMAGE_ENCODER
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        BundleError, match=rf"{IMAGE_ENCODER} was changed or damaged.*export the bundle again"
    ):
        Segmenter.from_pretrained(bundle, backend=backend)


def test_an_engine_of_the_other_flavour_names_the_package(bundle):
    change_sidecar(bundle, flavor="tensorrt")
    pytest.importorskip("tensorrt_rtx")
    if "tensorrt" in sys.modules:
        pytest.skip("this machine has both flavours")
    with pytest.raises(BackendUnavailableError, match="pip install tensorrt"):
        Segmenter.from_pretrained(bundle, backend="tensorrt")


def test_a_plan_cut_short_is_refused(bundle):
    (plan,) = engine_files(bundle)
    plan.write_bytes(plan.read_bytes()[:100_000])
    with pytest.raises(BackendError, match="size in bytes is 100000"):
        Segmenter.from_pretrained(bundle, backend="tensorrt")
    with pytest.raises(BackendError, match="size in bytes is 100000"):
        Segmenter.from_pretrained(bundle, backend=plan)
    found = [check for check in diagnose() if check.name.startswith("engine of")]
    assert not found  # The doctor looks at models that have names.


def test_the_doctor_looks_at_engines(bundle, monkeypatch):
    monkeypatch.setenv("PIXELCLIP_HOME", str(bundle.parent))
    (check,) = [c for c in diagnose() if c.name == "engine of lite"]
    assert check.status == "ok"
    assert ", not trusted" in check.detail
    (plan,) = engine_files(bundle)
    trust(EngineInfo.read(plan).plan_sha256)
    (check,) = [c for c in diagnose() if c.name == "engine of lite"]
    assert check.detail.endswith(", trusted")
    plan.write_bytes(b"")
    (check,) = [c for c in diagnose() if c.name == "engine of lite"]
    assert check.status == "broken"
    assert "compile it again" in check.detail.lower()


def test_every_engine_that_does_not_run_is_named(bundle):
    (plan,) = engine_files(bundle)
    shutil.copy(plan, plan.with_name("other.plan"))
    plan.write_bytes(b"short")
    with pytest.raises(BackendError) as error:
        Segmenter.from_pretrained(bundle, backend="tensorrt")
    assert plan.name in str(error.value)
    assert "other.plan has no readable sidecar" in str(error.value)


def test_a_model_without_engines_gets_the_command(tmp_path):
    shutil.copytree(find_bundle("pixelclip-lite").path, tmp_path / "b", ignore=lambda *_: [ENGINES])
    with pytest.raises(BackendUnavailableError, match=r"python export/to_trt\.py --bundle"):
        Segmenter.from_pretrained(tmp_path / "b", backend="tensorrt")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"backend": "tensorrt", "device": "cpu"}, "GPUs only"),
        ({"backend": "onnx-cuda", "device": "cpu"}, "GPUs only"),
        ({"backend": "some/engine.plan"}, "does not exist"),
        ({"backend": "torch"}, "expected one of auto"),
        ({"device": "gpu:x"}, "gpu:1"),
        ({"device": "cpu:1"}, "gpu:1"),
    ],
)
def test_what_cannot_be_is_refused(arguments, said):
    with pytest.raises(BackendUnavailableError, match=said):
        Segmenter.from_pretrained(**arguments)


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("auto", Device("auto")),
        ("cpu", Device("cpu")),
        ("gpu", Device("gpu", 0)),
        ("gpu:12", Device("gpu", 12)),
    ],
)
def test_devices_are_spelt_in_one_way(text, device):
    assert Device.parse(text) == device


@pytest.mark.parametrize("backend", ["onnx-cuda", "onnx-tensorrt"])
def test_providers_of_onnxruntime_gpu_are_never_a_quiet_cpu(backend):
    """With onnxruntime the package is named; with onnxruntime-gpu and no GPU the session is refused."""
    if has_gpu():
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendError, match=r"onnxruntime-gpu|asked for|libraries"):
        Segmenter.from_pretrained(backend=backend)


@pytest.mark.parametrize(
    ("module", "said"),
    [("tensorrt_rtx", "pip install tensorrt-rtx-cu12"), ("cuda.bindings", r"pixelclip-sdk\[cuda\]")],
)
def test_a_missing_package_is_named(compiled, module, said):
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from pixelclip_sdk import BackendUnavailableError, Segmenter\n"
        "try:\n"
        f"    Segmenter.from_pretrained({str(compiled)!r}, backend='tensorrt')\n"
        "except BackendUnavailableError as error:\n"
        "    assert isinstance(error.__cause__, Exception)\n"
        "    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.replace("\\", "") in result.stdout


def test_the_command_line_takes_a_backend(compiled, photo, tmp_path, capsys):
    from PIL import Image

    Image.fromarray(photo).save(tmp_path / "photo.png")
    arguments = ["predict", str(tmp_path / "photo.png"), "--classes", "cat", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--backend", "onnx", "--device", "cpu"]) == 0
    assert main([*arguments, "--model", str(compiled), "--backend", "tensorrt", "--device", "cpu"]) == 1
    assert "GPUs only" in capsys.readouterr().err


def test_pictures_are_padded_to_the_size_of_an_engine_of_one_size(monkeypatch):
    """The bundled model follows the picture's shape, which an engine of it may not; then it is kept so."""
    engine = FakeBackend()
    engine.fixed_size = (96, 64)
    monkeypatch.setattr(choose, "open_backend", lambda *_: engine)
    with Segmenter.from_pretrained() as segmenter:
        assert segmenter.features(np.zeros((300, 200, 3), np.uint8)).shape == (12, 8, 3)
        assert segmenter.features(np.zeros((50, 400, 3), np.uint8)).shape == (1, 8, 3)


@pytest.mark.parametrize(("in_use", "set_to"), [({1}, [1]), ({0, 1}, [1, 0])])
def test_a_gpu_that_the_program_does_not_use_is_left_alone(monkeypatch, in_use, set_to):
    """Making GPU 0 current again takes memory on it, and fails if another process reserved it."""
    calls: list[int] = []
    facts = types.SimpleNamespace(name=b"some GPU", major=8, minor=6)
    runtime = types.SimpleNamespace(
        cudaError_t=types.SimpleNamespace(cudaSuccess=0),
        cudaGetDeviceCount=lambda: (0, 2),
        cudaGetDeviceProperties=lambda _: (0, facts),
        cudaGetDevice=lambda: (0, 0),
        cudaSetDevice=lambda index: (calls.append(index) or 0,),
        cudaStreamCaptureMode=types.SimpleNamespace(cudaStreamCaptureModeThreadLocal=1),
        cudaThreadExchangeStreamCaptureMode=lambda mode: (0, mode),
    )
    driver = types.SimpleNamespace(
        CUresult=types.SimpleNamespace(CUDA_SUCCESS=0),
        cuDevicePrimaryCtxGetState=lambda index: (0, 0, int(index in in_use)),
    )
    bindings = types.SimpleNamespace(runtime=runtime, driver=driver)
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    with Cuda(1).current():
        assert calls == [1]
    assert calls == set_to
