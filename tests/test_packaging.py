"""What people install."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_the_sdk_its_model_and_the_licences_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"pixelclip_sdk", next(top for top in tops if top.endswith(".dist-info"))}
    for file in (ROOT / "pixelclip_sdk").rglob("*"):
        if file.is_file() and not {"__pycache__", "engines"} & set(file.parts):
            assert str(file.relative_to(ROOT)) in names
    assert sum(name.endswith(("/LICENSE", "/NOTICE")) for name in names) == 2
    assert not any("__pycache__" in name for name in names)


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size < 33.5e6  # the model, and 1.2 MB for a font of all scripts


def test_the_base_install_is_four_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {requirement.split(">")[0] for requirement in project["dependencies"]}
    assert names == {"numpy", "onnxruntime", "pillow", "tokenizers"}
    for extra in project["optional-dependencies"].values():
        # Two distributions of one module overwrite each other (docs/adr/0002).
        assert not any(requirement.startswith("onnxruntime-gpu") for requirement in extra)


def test_the_live_page_is_small():
    files = (ROOT / "pixelclip_sdk" / "serve" / "static").rglob("*")
    assert sum(file.stat().st_size for file in files if file.is_file()) <= 200_000
