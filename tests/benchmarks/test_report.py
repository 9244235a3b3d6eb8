import json
from pathlib import Path

import pytest

from benchmarks.harness.stored import COMMANDS, RESULTS, Results
from benchmarks.report import main, page

FACTS = {
    "cpu": "Abacus 7",
    "cores": 3,
    "system": "Linux x86_64",
    "packages": {"numpy": "1.2.3"},
    "torch": "4.5.6",
}


def row(name, ms, **more):
    return {"name": name, "ms": ms, "rounds": 7, "speedup": 40 / ms, "equal_labels": 0.975, **more}


def case(name, *rows):
    return {"name": name, "image_size": [60, 80], "classes": 5, "weights": "real", "rows": list(rows)}


def stage(name, ms, floor, **more):
    times = {"ms": ms, "min_ms": ms * 0.9, "floor_ms": floor, "over_floor": ms / floor}
    return {"stage": name, **times, "min_over_floor": ms * 0.9 / floor, **more}


def stages(inference, total, moved):
    """Milliseconds and floor of both, and the bytes of inference."""
    work = {"operations": 3.25e9, "bytes": moved, "bound": "matrix"}
    return [stage("inference", *inference, **work), stage("total", *total)]


def model(name, **rest):
    return {"name": name, "image_size": [60, 80], "input_size": [32, 64], "classes": 5, **rest}


ROOFLINE = {
    "rounds": 11,
    "machine": {
        **{"threads": 3, "matrix": {"best": 123.4e9}},
        **{"integer": {"best": 234.5e9}, "memory": {"best": 45.6e9}},
    },
    "models": [
        model(
            "tiny",
            weight_bytes=9e6,
            stages=stages((12.5, 10.0), (15.0, 10.5), 4.5e6),
            operators=[
                {
                    **{"kind": "Conv 5×5", "nodes": 17, "ms": 8.75, "share": 0.7, "floor_ms": 7.0},
                    **{"over_floor": 1.25, "operations": 2e9, "bytes": 3e6},
                },
                {
                    **{"kind": "between nodes", "nodes": 0, "ms": 3.75, "share": 0.3, "floor_ms": 0.0},
                    **{"over_floor": None, "operations": 0, "bytes": 0},
                },
            ],
        ),
        model(
            "tiny, int8",
            weight_bytes=3e6,
            stages=stages((9.5, 8.0), (12.0, 9.5), 1.5e6),
            operators=[],  # In integers they are not profiled.
        ),
    ],
    "targets": {"tiny": 1.2},
    "ratios": {},
}


def sweep(name, *values):
    rows = [
        {"value": value, "ms": ms, "peak_mb": mb, "time_ratio": ms / 10, "memory_ratio": mb / 100}
        for value, ms, mb in values
    ]
    return {"name": name, "rows": rows}


CONTENT = {
    "lite-latency": {
        **{"model": "tiny", "classes": 5, "image_size": [60, 80], "runs": 33, "fps": 80.6},
        "stages": {"total": {"p50": 12.4, "p95": 13.57}},
        "cold_start_s": {"import": 0.1234},
    },
    "lite-video": {
        **{"model": "tiny", "classes": 5, "image_size": [60, 80], "frames": 444, "fps": 71.5},
        "rss_mb": {"start": 321.0, "end": 322.0},
    },
    "compare-vit": {
        "reference": "PyTorch",
        "cases": [
            case(
                "vit",
                row("PyTorch", 40.0),
                row("ours, int8", 16.0),
                row("CLIPSeg", 987.0, equal_labels=None),
                {"name": "Other", "reason": "is not installed"},
            )
        ],
    },
    "roofline": ROOFLINE,
    "scaling": {
        "sweeps": [
            sweep("classes", ("1", 10.0, 100), ("4096", 25.0, 234)),
            sweep("input", ("64×32", 10.0, 100)),
        ]
    },
    "precision": {
        "models": [
            {
                **{"model": "tiny", "ms": {"fp32": 10.0, "int8": 4.0}, "bytes": {"fp32": 40e6, "fp16": 20e6}},
                **{"reference": "fp32", "speedup": {"fp32": 1.0, "int8": 2.5}},
                "label_agreement": {"int8": 0.9125},
            }
        ]
    },
    "postprocess": {
        "grid": 64,
        "cases": [
            {
                **{"classes": 150, "size": [1080, 1920], "ours_ms": 40.0, "torch_ms": 2345.6},
                **{"ratio": 58.64, "equal_labels": 0.999998, "peak_mb": 8.25},
            }
        ],
    },
    "gpu-latency": {
        "model": "tiny",
        "backends": [
            {"name": "onnx gpu", "stages_ms": {"total": {"p50": 2.5, "p95": 2.75}}},
            {"name": "tensorrt gpu", "reason": "no GPU"},
        ],
    },
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for name, content in CONTENT.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({**content, "environment": FACTS}))
    return tmp_path


def cells(text, first):
    """The cells of the first table row that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_has_the_numbers_of_the_results(folder):
    text = page(Results(folder))
    assert cells(text, "tiny, 80×60")[1:4] == ["12.4", "13.6", "80.6"]
    assert cells(text, "tiny, a 80×60 video of 444")[3] == "71.5"
    assert cells(text, "ViT-B/16, 80×60, 5 classes, weights real, int8")[1:4] == ["16.0", "–", "62.5"]
    assert cells(text, "tiny, onnx gpu")[1:4] == ["2.50", "2.75", "400.0"]
    assert cells(text, "tiny, tensorrt gpu: not measured: no GPU")[1] == "–"
    assert cells(text, "import") == ["import", "0.123"]
    assert cells(text, "ours, int8") == ["ours, int8", "16.0", "2.50×", "97.50%"]
    assert cells(text, "CLIPSeg")[3] == "–"
    assert "| Other: is not installed |" in text
    assert "123 Gop/s in fp32 products, 234 Gop/s in int8 products" in text
    assert text.count("| operator | nodes |") == 1 < text.count("### tiny")
    assert "45.6 GB/s" in text
    assert cells(text, "inference")[1:] == ["12.5", "11.2", "10.0", "1.25", "matrix", "3.25", "4.50"]
    assert cells(text, "total")[4:] == ["1.43", "–", "–", "–"]
    assert "Target: inference within 1.2 × its floor. Measured: 1.25 ×, missed." in text
    assert cells(text, "Conv 5×5")[1:] == ["17", "8.75", "70.0%", "7.00", "1.25", "2.00", "3.00"]
    assert cells(text, "between nodes")[1:] == ["0", "3.75", "30.0%", "–", "–", "–", "–"]
    assert cells(text, "int8")[1:] == ["4.00", "2.50×", "–", "91.25%"]
    assert cells(text, "fp16")[1:] == ["–", "–", "20.0", "–"]
    assert cells(text, "150 classes, 1920×1080")[1:] == ["40.0", "2346", "58.6×", "99.9998%", "8.25"]
    assert cells(text, "4096")[1:] == ["25.0", "2.50×", "40.0", "234", "2.34×"]


def test_accuracy_is_there_where_it_was_measured(folder):
    assert "mIoU" not in page(Results(folder))
    content = json.loads((folder / "scaling.json").read_text())
    content["sweeps"][1]["rows"][0]["miou"] = 0.1174
    content["sweeps"][1]["rows"][0]["photo_test"] = 0.905
    (folder / "scaling.json").write_text(json.dumps(content))
    text = page(Results(folder))
    assert cells(text, "64×32")[-2:] == ["11.7%", "90.5%"]
    assert text.count("CamVid val mIoU") == 1


def test_commands_are_those_that_ran_and_machines_stand_beside_them(folder):
    text = page(Results(folder))
    assert "`python benchmarks/latency.py --runs 33 --json benchmarks/results/lite-latency.json`" in text
    assert "compare.py --case vit --rounds 7 " in text
    assert cells(text, "roofline")[2:] == ["Abacus 7, 3 cores, Linux x86_64", "numpy 1.2.3, torch 4.5.6"]
    assert text.count("roofline.json](../benchmarks/results/roofline.json): 3 cores of Abacus 7.") == 1


def test_what_is_missing_is_said_and_nothing_made_up(tmp_path):
    text = page(Results(tmp_path))
    for name in COMMANDS:
        assert text.count(f"there is no `benchmarks/results/{name}.json`") >= 1, name
        assert cells(text, f"{name} ")[2] == "not measured"
    assert " ms |" not in text


def test_the_results_of_this_repository_make_a_page():
    results = Results(RESULTS)
    text = page(results)
    for name in COMMANDS:
        missing = f"there is no `benchmarks/results/{name}.json`" in text
        assert missing == (results.get(name) is None)


def test_plots_and_page_are_the_same_every_time(folder, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    runs = []
    for name in ("one", "two"):
        docs = tmp_path / name
        monkeypatch.setattr("sys.argv", ["report.py", "--results", str(folder), "--docs", str(docs)])
        assert main() == 0
        runs.append({path.relative_to(docs): path.read_bytes() for path in docs.rglob("*.*")})
    assert runs[0] == runs[1]
    plots = {f"images/speed-{name}.png" for name in ("compare-vit", "floors", "scaling")}
    assert {str(path) for path in runs[0]} == {"speed.md", *plots}
    text = runs[0][Path("speed.md")].decode()
    assert all(f"]({plot})" in text for plot in plots)
    assert "speed-compare-lite.png" not in text
    assert all(len(content) < 150_000 for content in runs[0].values())


def test_a_broken_result_is_named(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "roofline.json").write_text("{")
    monkeypatch.setattr(
        "sys.argv", ["report.py", "--results", str(tmp_path), "--docs", str(tmp_path / "docs")]
    )
    with pytest.raises(SystemExit):
        main()
    assert "roofline.json cannot be read as JSON" in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()
