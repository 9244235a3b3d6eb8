import json

import pytest

from benchmarks.backends import Row, main, measure, table


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
    assert "1.0×" in shown
    assert "broken.plan: not measured" in shown


def test_ratios_are_to_the_first_that_ran():
    slow = measure("slow", "pixelclip-lite", "onnx", "cpu", runs=2)
    missing = Row("missing", reason="not there")
    shown = table([missing, slow, slow]).splitlines()
    assert shown[1].endswith("1.0×")
    assert shown[2].endswith("1.0×")
    assert shown[3] == "missing: not measured: not there"


def test_no_runs_are_refused(monkeypatch):
    monkeypatch.setattr("sys.argv", ["backends.py", "--runs", "0"])
    with pytest.raises(SystemExit):
        main()
