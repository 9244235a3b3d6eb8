import json
import re
from pathlib import Path

import pytest

from benchmarks.harness.results import COMMANDS, RESULTS, ROOT, load_other_machines, load_results
from benchmarks.report import main, page
from pixelclip_sdk.models import find_bundle

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


def model(name, inference, total, floor, operators):
    stages = [
        {
            "stage": "inference",
            "ms": inference,
            "typical_floor_ms": floor,
            "over_typical_floor": inference / floor,
        },
        {"stage": "total", "ms": total},
    ]
    return {"name": name, "input_size": [32, 64], "stages": stages, "operators": operators}


ROOFLINE = {
    "machine": {
        "threads": 3,
        "matrix": {"typical": 123.4e9},
        "integer": {"typical": 234.5e9},
        "memory": {"typical": 45.6e9},
    },
    "models": [
        model("tiny", 12.5, 15.0, 10.0, [{"kind": "Conv 5×5", "nodes": 17, "ms": 8.75, "share": 0.7}]),
        model("tiny, int8", 9.5, 12.0, 8.0, []),  # int8 models are not profiled.
    ],
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
        "rss_mb": {"start": 321.0, "end": 322.0, "peak": 323.0},
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


def cells(text, first, which=0):
    """The cells of a table row that starts with a text."""
    line = [line for line in text.splitlines() if line.startswith(f"| {first}")][which]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_has_the_numbers_of_the_results(folder):
    text = page(load_results(folder))
    machine = ["Abacus 7, 3 cores"]
    assert cells(text, "tiny ")[:8] == ["tiny", "80×60", "5", "12.4", "13.6", "80.6", "–", *machine]
    assert cells(text, "tiny, video")[1:8] == ["80×60", "5", "–", "–", "71.5", "323.0", *machine]
    assert cells(text, "ViT-B/16, int8")[1:8] == ["80×60", "5", "16.0", "–", "62.5", "–", *machine]
    assert cells(text, "tiny, onnx gpu")[1:8] == ["640×480", "20", "2.50", "2.75", "400.0", "–", *machine]
    assert "tensorrt gpu" not in text
    assert cells(text, "import") == ["import", "0.123"]
    assert cells(text, "ours, int8")[:4] == ["ours, int8", "16.0", "2.50×", "97.50%"]
    assert cells(text, "CLIPSeg")[3] == "–"
    assert cells(text, "Other")[-1] == "is not installed"
    assert "fp32 123 Gop/s, int8 234 Gop/s, memory 45.6 GB/s" in text
    assert cells(text, "tiny, input 64×32")[1:] == ["12.5", "15.0", "10.0", "1.25×"]
    assert cells(text, "tiny, int8, input")[1:] == ["9.50", "12.0", "8.00", "1.19×"]
    assert [cell.strip() for cell in re.search("tiny .*Conv 5×5.*", text)[0].strip("|").split("|")] == [
        *("tiny", "Conv 5×5", "17", "8.75", "70.0%"),
    ]
    assert cells(text, "int8 ")[1:] == ["4.00", "2.50×", "–", "91.25%"]
    assert cells(text, "fp16 ")[1:] == ["–", "–", "20.0", "–"]
    assert cells(text, "150 classes, 1920×1080")[1:] == ["40.0", "2346", "58.6×", "99.9998%", "8.25"]
    assert cells(text, "4096")[1:] == ["25.0", "2.50×", "40.0", "234", "2.34×"]


def test_accuracy_is_shown_where_it_was_measured(folder):
    assert "mIoU" not in page(load_results(folder))
    content = json.loads((folder / "scaling.json").read_text())
    content["sweeps"][1]["rows"][0]["miou"] = 0.1174
    content["sweeps"][1]["rows"][0]["photo_test"] = 0.905
    (folder / "scaling.json").write_text(json.dumps(content))
    text = page(load_results(folder))
    assert cells(text, "64×32")[-2:] == ["11.7%", "90.5%"]
    assert text.count("CamVid val mIoU") == 1


def test_commands_are_those_that_ran_and_machines_have_their_results(folder):
    command = "python benchmarks/latency.py --runs 33 --json benchmarks/results/lite-latency.json"
    content = json.loads((folder / "lite-latency.json").read_text())
    (folder / "lite-latency.json").write_text(json.dumps({**content, "command": command}))
    text = page(load_results(folder))
    assert cells(text, "lite-latency")[1] == f"`{command}`"
    assert cells(text, "roofline")[1] == f"`{COMMANDS['roofline']}`"
    made = ", ".join(name for name in COMMANDS if name in CONTENT)
    assert f"- {made}: Abacus 7, 3 cores, Linux x86_64; numpy 1.2.3, torch 4.5.6" in text
    assert "Result: roofline, Abacus 7, 3 cores." in text


def test_other_machines_have_rows_with_their_folder(folder):
    (folder / "other").mkdir()
    content = json.loads((folder / "lite-latency.json").read_text())
    (folder / "other" / "lite-latency.json").write_text(json.dumps({**content, "fps": 1234.0}))
    row = cells(page(load_results(folder), load_other_machines(folder)), "tiny ", which=1)
    assert row[7:] == ["Abacus 7, 3 cores (other)", "other/lite-latency"]


def test_missing_results_are_listed_with_their_command():
    text = page({})
    for name in COMMANDS:
        assert cells(text, f"{name} ")[1] == f"`{COMMANDS[name]}`"
        if name != "lite-video":
            assert f"there is no `benchmarks/results/{name}.json`.* Command: `{COMMANDS[name]}`" in text
    assert " ms |" not in text


def test_the_results_of_this_repository_make_the_page_of_the_docs():
    text = page(load_results(RESULTS), load_other_machines(RESULTS))
    stored = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    plots = [line for line in stored.splitlines() if line.startswith("![")]
    assert len(plots) == 2
    assert len(stored.splitlines()) < 200  # Readable in two minutes.
    assert text == re.sub(r"!\[.*\n\n", "", stored)


def test_the_guide_to_models_has_the_numbers_of_the_results():
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.count("|") == 7 and "`" in line}
    results, others = load_results(RESULTS), load_other_machines(RESULTS)
    totals = {
        model["name"]: f"{stage['ms']:.0f}"
        for model in results["roofline"]["models"]
        for stage in model["stages"]
        if stage["stage"] == "total"
    }
    vit = "ViT-B/16, random weights"
    megabytes = f"{find_bundle('pixelclip-lite').size / 1e6:.0f} MB"
    assert f"| {megabytes} | {totals['pixelclip-lite']} |" in rows["pixelclip-lite"]
    assert f"| {totals[vit]}, as int8 {totals[f'{vit}, int8']} |" in rows["pixelclip-vit-b16"]
    score = json.loads((RESULTS / "lite-camvid-val.json").read_text())["miou"]
    assert f"{score:.1%} mIoU".replace("%", " %") in rows["pixelclip-lite"]
    amx = others["xeon-amx"]
    assert f"lite\n  took {amx['lite-latency']['stages']['total']['p50']:.0f} ms" in text
    int8 = next(row for row in amx["compare-vit"]["cases"][0]["rows"] if row["name"] == "ours, int8")
    assert f"ViT-B/16 as int8 {int8['ms']:.0f} ms for 1920×1080 with 150 classes" in text


def test_plots_and_page_are_the_same_every_time(folder, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    runs = []
    for name in ("one", "two"):
        docs = tmp_path / name
        monkeypatch.setattr("sys.argv", ["report.py", "--results", str(folder), "--docs", str(docs)])
        assert main() == 0
        runs.append({path.relative_to(docs): path.read_bytes() for path in docs.rglob("*.*")})
    assert runs[0] == runs[1]
    plots = {"images/speed-compare-vit.png"}
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
