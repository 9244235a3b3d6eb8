"""The choice of ``backend="auto"``: GPUs first, else the fastest engine of the CPU whose labels are right."""

import ctypes
import importlib.metadata
import itertools
import json
import logging
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from pixelclip_sdk import BackendUnavailableError, FakeBackend
from pixelclip_sdk.agreement import Samples, gate
from pixelclip_sdk.backends import choose, fastest
from pixelclip_sdk.backends.choose import open_backend
from pixelclip_sdk.backends.cuda import Gpu
from pixelclip_sdk.backends.fastest import fastest_on_cpu
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.race import race


@pytest.fixture(scope="module")
def lite():
    return find_bundle("pixelclip-lite")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder on a machine where OpenVINO can be raced."""
    monkeypatch.setenv("PIXELCLIP_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fastest.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(fastest.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(fastest, "_versions", lambda: ("1.32", "2026.4"))
    return tmp_path / "cache"


def records(cache: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in (cache / "fastest").iterdir()]


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Sets what is run in place of Python, as a script of the shell that counts its runs."""

    def use(script: str) -> Path:
        path = tmp_path / "python-of-the-test"
        path.write_text(f"#!/bin/sh\necho run >> {tmp_path}/runs\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(fastest.sys, "executable", str(path))
        return tmp_path / "runs"

    return use


def line(**message) -> str:
    return f"echo '{json.dumps(message)}'"


WON = {"backend": "openvino", "gate": 0.98, "engines": {"openvino": {"speedup": 2.0, "agreement": 1.0}}}


def test_a_measurement_is_made_once_and_kept(cache, lite, program, caplog):
    runs = program(line(trying="openvino") + "\necho noise of a library\n" + line(result=WON))
    with caplog.at_level(logging.INFO):
        assert fastest_on_cpu(lite, None) == ("openvino", "openvino is 2.00 times as fast as onnx")
        name, why = fastest_on_cpu(lite, None)
    assert (name, "measured before" in why) == ("openvino", True)
    assert caplog.text.count("measuring once") == 1
    assert runs.read_text() == "run\n"
    assert records(cache) == [
        {"model": "pixelclip-lite", **WON, "why": "openvino is 2.00 times as fast as onnx"}
    ]


@pytest.mark.parametrize("changed", ["threads", "processor", "versions", "damaged", "unknown"])
def test_another_machine_measures_again(cache, lite, program, monkeypatch, changed):
    runs = program(line(result=WON))
    fastest_on_cpu(lite, 1)
    (file,) = (cache / "fastest").iterdir()
    if changed == "processor":
        monkeypatch.setattr(fastest, "processor", lambda: "another")
    elif changed == "versions":
        monkeypatch.setattr(fastest, "_versions", lambda: ("1.0", "1.0"))
    elif changed == "damaged":
        file.write_text("{")
    elif changed == "unknown":
        file.write_text('{"backend": "rm -rf", "why": ""}')
    fastest_on_cpu(lite, 2 if changed == "threads" else 1)
    assert runs.read_text() == "run\nrun\n"


@pytest.mark.usefixtures("cache")
def test_an_engine_that_ends_its_process_is_left_out(lite, program):
    """As OpenVINO 2026.4 does in bf16 with some models."""
    runs = program(
        f'case "$*" in *bf16*) {line(trying="openvino-bf16")}; kill -FPE $$;; esac\n' + line(result=WON)
    )
    name, why = fastest_on_cpu(lite, None)
    assert name == "openvino"
    assert "openvino-bf16: ended the process with status -8" in why
    assert runs.read_text() == "run\nrun\n"
    assert fastest_on_cpu(lite, None)[0] == "openvino"
    assert runs.read_text() == "run\nrun\n"


@pytest.mark.parametrize(
    ("script", "said"),
    [("exit 3", "the measurement: ended the process with status 3"), ("sleep 60", "took more than 0.5 s")],
)
@pytest.mark.usefixtures("cache")
def test_a_measurement_that_fails_means_onnx(lite, program, monkeypatch, script, said):
    monkeypatch.setattr(fastest, "_LIMIT_S", 0.5)
    program(f"exec {script}" if "sleep" in script else script)
    name, why = fastest_on_cpu(lite, None)
    assert name == "onnx"
    assert said in why


def test_where_nothing_can_be_kept_nothing_is_measured(cache, lite, program, monkeypatch):
    runs = program(line(result=WON))
    cache.write_text("a file in place of the folder")
    assert fastest_on_cpu(lite, None)[0] == "onnx"
    monkeypatch.setenv("PIXELCLIP_HOME", "")
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr(fastest, "cache_folder", lambda: None)
    assert fastest_on_cpu(lite, None)[0] == "onnx"
    monkeypatch.undo()
    assert not runs.exists()


@pytest.mark.parametrize("executable", ["", "/usr/bin/uwsgi", None])
def test_a_program_without_python_starts_no_process(cache, lite, monkeypatch, executable):
    monkeypatch.setattr(fastest.sys, "executable", executable)
    assert fastest_on_cpu(lite, None) == (
        "onnx",
        "a program without a Python of its own cannot measure other engines",
    )
    assert not list((cache / "fastest").iterdir())


def test_other_processors_and_missing_packages_mean_onnx(cache, lite, monkeypatch):
    monkeypatch.setattr(fastest.platform, "machine", lambda: "aarch64")
    assert fastest_on_cpu(lite, None)[0] == "onnx"
    monkeypatch.setattr(fastest.importlib.util, "find_spec", lambda _: None)
    assert fastest_on_cpu(lite, None) == ("onnx", "openvino is not installed")
    assert not cache.exists()


def test_the_engines_of_this_machine_are_raced(lite, tmp_path, monkeypatch, caplog):
    """The real thing. Which wins depends on the machine; that its labels are right does not."""
    pytest.importorskip("openvino")
    monkeypatch.setenv("PIXELCLIP_HOME", str(tmp_path))
    monkeypatch.setattr(choose, "fastest_on_cpu", fastest_on_cpu)
    with caplog.at_level(logging.INFO), open_backend(lite, device="cpu") as chosen:
        pass
    (record,) = records(tmp_path)
    assert chosen.name == record["backend"]
    assert set(record["engines"]) == {"openvino", "openvino-bf16"}
    exact = record["engines"]["openvino"]
    assert exact["agreement"] > 0.999
    assert exact["ms"] > 0
    if record["backend"] != "onnx":
        won = record["engines"][record["backend"]]
        assert won["speedup"] >= 1.1
        assert won["agreement"] >= record["gate"] == 0.98
    assert f"{record['backend']} on the CPU: {record['why']}" in caplog.text


def test_an_engine_with_other_labels_does_not_win(lite, monkeypatch, capsys):
    """However fast it is."""

    class Wrong(FakeBackend):
        def _logits(self, images, text):
            return np.zeros(
                (len(images), len(text), images.shape[1] // 32, images.shape[2] // 32), np.float32
            )

    real = open_backend
    monkeypatch.setattr(
        "pixelclip_sdk.race.open_backend",
        lambda bundle, name, *rest: real(bundle, name, *rest) if name == "onnx" else Wrong384(Wrong),
    )
    result = race(lite, ["openvino"], None)
    assert result["backend"] == "onnx"
    assert result["engines"]["openvino"]["speedup"] > 1.1
    assert result["engines"]["openvino"]["agreement"] < 0.9
    assert json.loads(capsys.readouterr().out) == {"trying": "openvino"}


def Wrong384(kind):  # noqa: N802 - makes an engine as wide as the bundled model
    engine = kind(stride=32)
    engine.embedding_dim = 384
    return engine


def test_the_gate_is_that_of_the_bundle(lite):
    import dataclasses

    assert gate(lite) == 0.98
    for strange in ({}, {"gate": "no"}, {"gate": 7}, {"gate": None}):
        assert gate(dataclasses.replace(lite, verification=strange)) == 0.999


def test_samples_of_a_bundle_without_words(lite):
    import dataclasses

    bare = dataclasses.replace(
        lite, files={name: entry for name, entry in lite.files.items() if name == "image_encoder.onnx"}
    )
    with open_backend(lite, "onnx", "cpu") as engine:
        samples = Samples(bare, engine)
        assert samples.text.shape == (20, 384)
        assert samples.agreements(engine) == [1.0] * 4
        assert all(len(np.unique(labels)) > 1 for labels in samples._expected)


# NVIDIA's GPUs. This machine has none, so what the driver and the libraries say is put in.


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU of this compute capability, and these of ONNX Runtime's ways to use it."""

    def has(capability: str, *names: str, fails: tuple[str, ...] = ()) -> list[tuple[str, str]]:
        loaded = []
        monkeypatch.setattr(choose, "_has_cuda", lambda: "onnx-cuda" in names)
        monkeypatch.setattr(choose, "_has_plugin", lambda: "onnx" in names)
        monkeypatch.setattr(choose, "nvidia_gpus", lambda: [Gpu(0, "A GPU", capability)])
        real = choose._named

        def named(bundle, name, place, threads, deadline_s=None):
            if place.kind != "gpu":
                return real(bundle, name, place, threads, deadline_s)
            loaded.append((name, str(place)))
            if name in fails:
                raise BackendUnavailableError(f"{name} lacks a library")
            return FakeBackend()

        monkeypatch.setattr(choose, "_named", named)
        return loaded

    return has


def test_a_gpu_that_can_be_used_comes_first(lite, gpu, caplog):
    loaded = gpu("9.0", "onnx-cuda", "onnx")
    with caplog.at_level(logging.INFO), open_backend(lite) as engine:
        assert isinstance(engine, FakeBackend)
    assert loaded == [("onnx-cuda", "gpu:0")]
    assert "because this GPU can be used" in caplog.text


def test_what_cannot_run_on_a_gpu_is_not_tried(lite, gpu, caplog):
    loaded = gpu("9.0", "onnx")
    with open_backend(lite) as engine:
        assert engine.name == "onnx"
        assert "on cpu" in engine.description
    assert loaded == []
    assert "TensorRT-RTX runs on 8.0, 8.6, 8.9, 12.0+, not on 9.0" in caplog.text


def test_the_next_way_is_tried_and_the_reason_is_said(lite, gpu):
    loaded = gpu("8.6", "onnx-cuda", "onnx", fails=("onnx-cuda",))
    with open_backend(lite, device="cuda") as engine:
        assert isinstance(engine, FakeBackend)
    assert loaded == [("onnx-cuda", "gpu:0"), ("onnx", "gpu:0")]


def test_a_gpu_that_was_asked_for_is_no_wish(lite, gpu):
    gpu("8.6", "onnx-cuda", fails=("onnx-cuda",))
    with pytest.raises(
        BackendUnavailableError, match=r"no backend runs on gpu:0: onnx-cuda: .* lacks a library"
    ):
        open_backend(lite, device="gpu")
    with pytest.raises(BackendUnavailableError, match="gpu:3: there is no such GPU"):
        open_backend(lite, device="cuda:3")


@pytest.mark.skipif(os.name != "posix", reason="the script is for a shell")
def test_the_machine_without_a_driver_has_no_gpus(monkeypatch):
    from pixelclip_sdk.backends import nvidia

    monkeypatch.setattr(nvidia, "_DRIVER", "no-such-library.so")
    assert nvidia.nvidia_gpus() == []


@pytest.mark.skipif(sys.platform != "linux", reason="compiles a library for Linux")
def test_gpus_are_read_from_the_driver(tmp_path, monkeypatch):
    import shutil
    import subprocess

    from pixelclip_sdk.backends import nvidia

    if not (compiler := shutil.which("cc")):
        pytest.skip("there is no C compiler")
    source = tmp_path / "cuda.c"
    source.write_text(
        "#include <string.h>\n"
        "int cuInit(unsigned flags) { return flags; }\n"
        "int cuDeviceGetCount(int *count) { *count = 2; return 0; }\n"
        "int cuDeviceGet(int *device, int index) { *device = 40 + index; return 0; }\n"
        'int cuDeviceGetName(char *name, int size, int device) { strcpy(name, "NVIDIA X"); return 0; }\n'
        "int cuDeviceGetAttribute(int *value, int attribute, int device) {\n"
        "  *value = attribute == 75 ? device - 31 : attribute == 76 ? 7 : -1; return 0; }\n"
    )
    library = tmp_path / "libcuda.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setattr(nvidia, "_DRIVER", str(library))
    assert nvidia.nvidia_gpus() == [Gpu(0, "NVIDIA X", "9.7"), Gpu(1, "NVIDIA X", "10.7")]


@pytest.mark.parametrize(
    ("capability", "said", "not_said"),
    [
        ("8.6", "engines of TensorRT-RTX run", "cannot run"),
        ("9.0", "TensorRT-RTX cannot run: it needs 8.0, 8.6, 8.9, 12.0+", "RTX run"),
        ("8.7", "engines of TensorRT run with pip install tensorrt", "RTX run"),
        ("11.0", "TensorRT-RTX cannot run", "RTX run"),
        ("12.1", "engines of TensorRT-RTX run", "cannot run"),
        ("13.0", "engines of TensorRT-RTX run", "cannot run"),
        ("7.0", "too old", "TensorRT"),
    ],
)
def test_the_doctor_says_what_runs_on_a_gpu(monkeypatch, capability, said, not_said):
    from pixelclip_sdk.cli import doctor

    monkeypatch.setattr(doctor, "nvidia_gpus", lambda: [Gpu(0, "A GPU", capability)])
    check = next(check for check in doctor.diagnose() if check.name == "GPU 0")
    assert f"A GPU, compute capability {capability}: " in check.detail
    assert said in check.detail
    assert not_said not in check.detail


def test_the_doctor_says_what_decodes_on_a_gpu(monkeypatch):
    pytest.importorskip("av")
    from pixelclip_sdk.cli import doctor

    monkeypatch.setattr(doctor, "nvidia_gpus", lambda: [Gpu(0, "A GPU", "9.0")])
    before = itertools.takewhile(lambda check: check.name != "model folder", doctor.diagnose())
    names = [check.name for check in before]
    assert {"JPEG files on a GPU", "video files on a GPU"} < set(names)

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(BackendUnavailableError, match=r'pip install "pixelclip-sdk\[nvcodec\]"'):
        doctor._nvimgcodec()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"1.0 of {name}")
    assert doctor._nvimgcodec() == "nvidia-nvimgcodec-cu13 1.0 of nvidia-nvimgcodec-cu13"

    def library(name: str) -> object:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", library)
    with pytest.raises(BackendUnavailableError, match=r"CPU decodes them.*NVIDIA_DRIVER_CAPABILITIES"):
        doctor._nvdec()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: name)
    assert doctor._nvdec()
