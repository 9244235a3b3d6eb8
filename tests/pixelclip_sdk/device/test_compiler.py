"""NVRTC compiles the kernels without a GPU, and the result is kept."""

import logging
import os

import pytest

from pixelclip_sdk import BackendError, BackendUnavailableError
from pixelclip_sdk.device import compiler
from pixelclip_sdk.device.edges import EDGE_KERNELS
from pixelclip_sdk.device.smooth import SMOOTH_KERNELS

nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")


@pytest.fixture(autouse=True)
def installed() -> None:
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:
        pytest.skip(f"NVRTC is not installed: {error}")


def test_the_kernels_compile_for_every_kind_of_gpu():
    for capability in ("7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "11.0", "12.0"):
        code = compiler.compiled(capability)
        assert code.startswith(b"\x7fELF"), capability
        for name in ("resize", "check_finite", "label", *EDGE_KERNELS, *SMOOTH_KERNELS):
            assert name.encode() in code


def test_a_newer_gpu_gets_ptx():
    assert b".target sm_121" in compiler.compiled("12.9") or b".target sm_120" in compiler.compiled("12.9")


def test_an_older_gpu_is_refused():
    with pytest.raises(BackendUnavailableError, match=r"compute capability 6\.1; NVRTC .* compiles for 7\.5"):
        compiler.compiled("6.1")


def test_the_code_is_kept_and_a_damaged_file_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELCLIP_HOME", str(tmp_path))
    code = compiler.compiled("8.6")
    (file,) = (tmp_path / "kernels").iterdir()
    before = file.stat().st_mtime_ns
    assert compiler.compiled("8.6") == code
    assert file.stat().st_mtime_ns == before
    file.write_bytes(file.read_bytes()[:-1])
    assert compiler.compiled("8.6") == code
    assert file.read_bytes().endswith(code)


def test_without_a_place_to_keep_it_a_warning_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PIXELCLIP_HOME", os.fspath(tmp_path / "file" / "below"))
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        assert compiler.compiled("8.6")
    assert "compiled again at every start" in caplog.text


def test_a_source_that_does_not_compile_says_why(tmp_path, monkeypatch):
    source = tmp_path / "broken.cu"
    source.write_text('extern "C" __global__ void label() { return nothing; }')
    monkeypatch.setattr(compiler, "SOURCES", (source,))
    with pytest.raises(BackendError, match=r"(?s)for sm_86: broken\.cu.*nothing.* undefined"):
        compiler.compiled("8.6")
