import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_short_run_measures_everything_and_finds_no_wrong_answer(tmp_path):
    out = tmp_path / "serve.json"
    words = [
        "--rounds",
        "1",
        "--seconds",
        "0.5",
        "--load-seconds",
        "2",
        "--viewers",
        "4",
        "--viewers-seconds",
        "3",
    ]
    command = [sys.executable, "benchmarks/serve.py", *words, "--json", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    result = json.loads(out.read_text())
    assert [row["threads"] for row in result["throughput"]] == [1, 2, 4]
    calm = [span for spans in result["at_70_percent"].values() for span in spans]
    assert len(calm) == 6
    for load in (*calm, result["at_500_percent"]):
        assert load["wrong"] == 0
        assert load["statuses"].keys() <= {"200", "503"}
        assert sum(load["statuses"].values()) == load["requests"] > 0
    assert result["at_500_percent"]["shed"] > 0.5
    assert result["viewers"]["results"] > 0
    assert result["viewers"]["wrong"] == 0
    assert all(ratio > 0 for ratio in result["ratios"].values())
