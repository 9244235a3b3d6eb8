"""The benchmark of the GPU, on a GPU in host memory."""

import json
import subprocess
import sys

import pytest
from host_gpu.kernels import compiler

from benchmarks.harness.results import ROOT


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler (g++ or clang++)")
def test_a_dry_run_measures_every_case(tmp_path):
    result = tmp_path / "gpu.json"
    command = [sys.executable, "benchmarks/gpu.py", "--dry", "--rounds", "1", "--json", str(result)]
    subprocess.run(command, check=True, cwd=ROOT)
    found = json.loads(result.read_text())
    cases = {row["case"]: row for row in found["rows"]}
    ways = ["device to device", "numpy to numpy", "JPEG by Pillow to numpy", "JPEG by nvImageCodec to numpy"]
    assert {f"{model}, {way}" for model in ("vit", "lite") for way in ways} < set(cases)
    assert all(row["equal_labels"] > 0.9 for row in cases.values())
    for model in ("vit", "lite"):
        for what in ("threads, ratio (goal 3)", "sources, ratio (goal 3)", "ms of 20 other words (goal 30)"):
            assert found["extra"][f"{model}: {what}"] > 0
