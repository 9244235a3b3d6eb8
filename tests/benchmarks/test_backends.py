import json

import pytest

from benchmarks.backends import main, measure
from benchmarks.harness import tables


def test_every_backend_is_measured_or_says_why_not(tmp_path, monkeypatch, capsys):
    out = tmp_path / "latency.json"
    monkeypatch.setattr(
        "sys.argv", ["backends.py", "--runs", "2", "--engines", str(tmp_path), "--json", str(out)]
    )
    (tmp_path / "broken.plan").write_bytes(b"no engine")
    assert main() == 0
    result = json.loads(out.read_text())
    cpu, *others = result["backends"]
    assert cpu["name"] == "onnx cpu"
    assert 0 < cpu["stages_ms"]["inference"]["p50"] <= cpu["stages_ms"]["total"]["p95"]
    assert cpu["first_s"] > 0
    assert [other["name"] for other in others] == [
        "onnx gpu",
        "onnx-cuda gpu",
        "onnx-tensorrt gpu",
        "broken.plan",
    ]
    assert "no readable sidecar" in others[-1]["reason"]
    shown = capsys.readouterr().out
    assert "1.00×" in shown
    assert "no readable sidecar" in shown


def test_ratios_are_to_the_first_that_ran():
    slow = measure("slow", "pixelclip-lite", "onnx", "cpu", runs=2)
    total = slow["stages_ms"]["total"]
    fast = {
        **slow,
        "stages_ms": {**slow["stages_ms"], "total": {"p50": total["p50"] / 2, "p95": total["p95"]}},
    }
    missing = {"name": "missing", "reason": "not there"}
    shown = tables.backends({"backends": [missing, slow, fast]}).splitlines()
    assert "not there" in shown[2]
    assert "1.00×" in shown[3]
    assert "2.00×" in shown[4]


def test_no_runs_are_refused(monkeypatch):
    monkeypatch.setattr("sys.argv", ["backends.py", "--runs", "0"])
    with pytest.raises(SystemExit):
        main()
