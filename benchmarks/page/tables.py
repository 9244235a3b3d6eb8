"""Results as the Markdown tables of docs/speed.md: each function takes one result's content."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "backend_rows",
    "cold",
    "compare_rows",
    "compared",
    "latency_rows",
    "postprocess",
    "precision",
    "roofline",
    "scaling",
    "table",
    "video_rows",
]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns but the first are numbers, to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _number(value: float) -> str:
    """Three figures or a few more; nothing in the thousands behind the point."""
    digits = 0 if value >= 1000 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:.{digits}f}"


_OPERATORS = (
    "By kind of operator, in ONNX Runtime's profiler. An operator's floor has all that it reads and writes\n"
    "at the rate of main memory; a factor below 1 means that much of it stayed in a cache."
)


def latency_rows(content: Any) -> list[list[str]]:
    """End to end: what, median, 95th percentile, frames a second."""
    height, width = content["image_size"]
    total = content["stages"]["total"]
    what = f"{content['model']}, {width}×{height}, {content['classes']} classes"
    return [[what, _number(total["p50"]), _number(total["p95"]), _number(content["fps"])]]


def video_rows(content: Any) -> list[list[str]]:
    """The same of a video, which has a rate only."""
    height, width = content["image_size"]
    memory = content["rss_mb"]
    what = (
        f"{content['model']}, a {width}×{height} video of {content['frames']} frames, "
        f"{content['classes']} classes; memory {memory['start']:.0f} MB at the start, "
        f"{memory['end']:.0f} MB at the end"
    )
    return [[what, "–", "–", _number(content["fps"])]]


def compare_rows(content: Any) -> list[list[str]]:
    """The same of our pipelines in a comparison."""
    return [
        [
            f"{_case(case)}, {row['name'].removeprefix('ours, ')}",
            _number(row["ms"]),
            "–",
            _number(1e3 / row["ms"]),
        ]
        for case in content["cases"]
        for row in case["rows"]
        if row["name"].startswith("ours") and "ms" in row
    ]


def _case(case: Mapping[str, Any]) -> str:
    height, width = case["image_size"]
    name = {"lite": "pixelclip-lite", "vit": "ViT-B/16"}.get(case["name"], case["name"])
    return f"{name}, {width}×{height}, {case['classes']} classes, weights {case['weights']}"


def backend_rows(content: Any) -> list[list[str]]:
    """The same of every backend, or why it was not measured."""
    rows = []
    for row in content["backends"]:
        if "stages_ms" not in row:
            rows.append([f"{content['model']}, {row['name']}: not measured: {row['reason']}", "–", "–", "–"])
            continue
        total = row["stages_ms"]["total"]
        what = f"{content['model']}, {row['name']}"
        rows.append([what, _number(total["p50"]), _number(total["p95"]), _number(1e3 / total["p50"])])
    return rows


def cold(content: Any) -> list[str]:
    """What one waits for once."""
    rows = [[step, f"{seconds:.3f}"] for step, seconds in content["cold_start_s"].items()]
    text = [table(["in a fresh process", "seconds"], rows)]
    if content.get("peak_mb"):
        text.append(f"Such a process holds {content['peak_mb']:.0f} MB at most, the text encoder included.")
    return text


def compared(content: Any) -> list[str]:
    """Everybody in a comparison, a table a case."""
    text = []
    for case in content["cases"]:
        rows = []
        for row in case["rows"]:
            if "reason" in row:
                rows.append([f"{row['name']}: {row['reason']}", "–", "–", "–"])
                continue
            equal = "–" if row["equal_labels"] is None else f"{row['equal_labels']:.2%}"
            rows.append([row["name"], _number(row["ms"]), f"{_number(row['speedup'])}×", equal])
        head = [_case(case), "ms", f"speed against {content['reference']}", "equal labels"]
        text.append(table(head, rows))
    return text


def roofline(content: Any) -> list[str]:
    """Stages and operators of every model, beside their floors."""
    machine, targets = content["machine"], content["targets"]
    text = [
        f"Best rates with {machine['threads']} threads: {machine['matrix']['best'] / 1e9:.0f} Gop/s in fp32 "
        f"products, {machine['integer']['best'] / 1e9:.0f} Gop/s in int8 products, "
        f"{machine['memory']['best'] / 1e9:.1f} GB/s of main memory."
    ]
    for model in content["models"]:
        (height, width), (rows, columns) = model["image_size"], model["input_size"]
        text.append(
            f"### {model['name']}: {width}×{height}, input {columns}×{rows}, {model['classes']} classes, "
            f"{model['weight_bytes'] / 1e6:.0f} MB of weights"
        )
        head = ["stage", "ms", "fastest", "floor", "× floor", "limit", "Gop", "MB"]
        text.append(table(head, [_stage(row) for row in model["stages"]]))
        if target := targets.get(model["name"]):
            text.append(_reached(model, target))
        if model["operators"]:
            head = ["operator", "nodes", "ms", "share", "floor", "× floor", "Gop", "MB"]
            text += [_OPERATORS, table(head, [_operator(row) for row in model["operators"]])]
    return text


def _reached(model: Mapping[str, Any], target: float) -> str:
    """What was asked of the encoder's time and what was measured."""
    encoder = model.get("encoder")
    inference = next(row for row in model["stages"] if row["stage"] == "inference")
    reached = encoder["over_typical_floor"] if encoder else inference["over_floor"]
    text = f"Target: inference within {target} × its floor. Measured: {reached:.2f} ×"
    text += f", {'reached' if reached <= target else 'missed'}."
    if encoder:
        text += f" Beside the best call's rate: {inference['over_floor']:.2f} ×."
        if encoder["over_own_products"]:
            text += f"\nBeside ONNX Runtime's own products: {encoder['over_own_products']:.2f} ×."
        text += f" Beside the sum of the operators' floors below: {encoder['over_operator_floors']:.2f} ×."
    return text


def _amounts(row: Mapping[str, Any]) -> list[str]:
    """Operations and bytes; the total of all stages has none."""
    amounts = row.get("operations", 0) / 1e9, row.get("bytes", 0) / 1e6
    return [_number(amount) if amount else "–" for amount in amounts]


def _stage(row: Mapping[str, Any]) -> list[str]:
    times = [_number(row[key]) for key in ("ms", "min_ms", "floor_ms", "over_floor")]
    return [row["stage"], *times, row.get("bound", "–"), *_amounts(row)]


def _operator(row: Mapping[str, Any]) -> list[str]:
    least = [_number(row["floor_ms"]), _number(row["over_floor"])] if row["over_floor"] else ["–", "–"]
    return [row["kind"], str(row["nodes"]), _number(row["ms"]), f"{row['share']:.1%}", *least, *_amounts(row)]


def precision(content: Any) -> list[str]:
    """Speed, size and labels of every precision."""
    text = []
    for model in content["models"]:
        rows = []
        scored = {key for found in model.get("accuracy", {}).values() for key in found}
        scores = {key: name for key, name in _SCORES.items() if key in scored}
        for name in dict.fromkeys([*model["ms"], *model["bytes"]]):
            ms, size = model["ms"].get(name), model["bytes"].get(name)
            agreement = model.get("label_agreement", {}).get(name)
            accuracy = model.get("accuracy", {}).get(name, {})
            rows.append(
                [
                    name,
                    _number(ms) if ms else "–",
                    f"{_number(model['speedup'][name])}×" if ms else "–",
                    _number(size / 1e6) if size else "–",
                    f"{agreement:.2%}" if agreement else "–",
                    *(f"{accuracy[key]:.1%}" if key in accuracy else "–" for key in scores),
                ]
            )
        head = [
            model["model"] + (f" ({model['weights']})" if "weights" in model else "") + ", encoder",
            "ms",
            f"speed against {model['reference']}",
            "MB",
            "equal labels",
            *scores.values(),
        ]
        text.append(table(head, rows))
    return text


def postprocess(content: Any) -> list[str]:
    """Logits to labels, beside PyTorch."""
    rows = [
        [
            f"{case['classes']} classes, {case['size'][1]}×{case['size'][0]}",
            _number(case["ours_ms"]),
            _number(case["torch_ms"]),
            f"{_number(case['ratio'])}×",
            f"{case['equal_labels']:.4%}",
            _number(case["peak_mb"]),
        ]
        for case in content["cases"]
    ]
    head = [f"logits {content['grid']}×{content['grid']} → labels", "ours, ms", "PyTorch, ms", "speed"]
    return [table([*head, "equal labels, least", "memory, MB"], rows)]


_SWEEPS = {
    "classes": "More classes",
    "picture": "Larger pictures",
    "batch": "More pictures in a call (milliseconds are for one)",
    "threads": "More threads for a picture",
    "together": "Several threads that call, or several videos, on one engine (decoded frames)",
    "input": "Choose the input size",
}
_CHOOSE = (
    "Smaller inputs are faster, larger ones see smaller things. Where a size is free, as pixelclip-lite's,\n"
    "`Segmenter.from_pretrained(input_size=(H, W))` and `pixelclip predict … --imgsz H W` choose it. Sides\n"
    "are multiples of 32; a picture of another shape is scaled to about as many pixels."
)
_SCORES = {"miou": "CamVid val mIoU", "photo_test": "photos whose name wins"}


def scaling(content: Any) -> list[str]:
    """A table a sweep."""
    text = []
    for sweep in content["sweeps"]:
        scores = {key: name for key, name in _SCORES.items() if key in sweep["rows"][0]}
        rows = [
            [
                row["value"],
                _number(row["ms"]),
                f"{_number(row['time_ratio'])}×",
                _number(1e3 / row["ms"]),
                f"{row['peak_mb']:.0f}",
                f"{_number(row['memory_ratio'])}×",
                *(f"{row[key]:.1%}" for key in scores),
            ]
            for row in sweep["rows"]
        ]
        head = [sweep["name"], "ms a picture", "ratio", "pictures a second", "peak MB", "ratio"]
        text += [f"### {_SWEEPS[sweep['name']]}", *([_CHOOSE] if sweep["name"] == "input" else [])]
        text.append(table([*head, *scores.values()], rows))
    return text
