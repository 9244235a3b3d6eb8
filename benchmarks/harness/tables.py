"""Results as Markdown tables, for commands and for docs/speed.md.

`table` writes any list of entries. The other functions choose the columns for one kind of result.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "backends",
    "cold_start",
    "comparison",
    "number",
    "postprocess",
    "precision",
    "roofline",
    "size_text",
    "sweep",
    "table",
    "video",
]

_NUMBER = re.compile(r"[-+]?\d[\d.]*\D{0,3}|–")
_FORMATS = {
    **dict.fromkeys(["speedup", "ratio", "time_ratio", "memory_ratio", "over_floor"], "{}×"),
    **dict.fromkeys(["share", "miou", "photo_test"], "{:.1%}"),
    **dict.fromkeys(["equal_labels", "label_agreement"], "{:.2%}"),
    "equal_pixels": "{:.4%}",
}


def table(entries: Sequence[Mapping[str, Any]], columns: Mapping[str, str] | None = None) -> str:
    """Returns a Markdown table with aligned columns; columns of numbers are aligned to the right.

    Args:
        entries: Key → value. Missing values are shown as a dash. Known ratios and shares, such as
            ``speedup`` and ``miou``, are shown as such.
        columns: Heading → key; dots lead into nested entries, as in ``stages_ms.total.p50``. None for the
            keys of the first entry. Columns of which no entry has a value are left out.
    """
    columns = columns or {key: key for key in entries[0]}
    texts = []
    for i, (heading, path) in enumerate(columns.items()):
        cells = [_cell(entry, path) for entry in entries]
        if set(cells) == {"–"}:
            continue
        right = i > 0 and all(_NUMBER.fullmatch(cell) for cell in cells)
        width = max(map(len, [heading, *cells]))
        rule = "-" * (width - right) + ":" * right
        lines = heading, rule, *cells
        texts.append([line.rjust(width) if right else line.ljust(width) for line in lines])
    return "\n".join("| " + " | ".join(line) + " |" for line in zip(*texts, strict=True))


def _cell(entry: Any, path: str) -> str:
    *parents, key = path.split(".") if path not in entry else [path]
    for parent in parents:
        entry = entry.get(parent) or {}
    value, form = entry.get(key), _FORMATS.get(key, "{}")
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number(part)}" for name, part in value.items())
    if isinstance(value, str):
        return value.replace("\n", " ").replace("|", "\\|")
    return form.format(number(value) if isinstance(value, float) and "%" not in form else value)


def number(value: float) -> str:
    """Returns a number with about three significant digits."""
    digits = 0 if value >= 1000 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:.{digits}f}"


def size_text(size: Sequence[int]) -> str:
    """Returns a size `(H, W)` as width×height."""
    return f"{size[1]}×{size[0]}"


def cold_start(latency: Any) -> str:
    """Seconds of each step in a fresh process."""
    entries = [{"step": step, "seconds": f"{s:.3f}"} for step, s in latency["cold_start_s"].items()]
    return table(entries)


def comparison(case: Any, reference: str) -> str:
    """Pipelines of a case of `compare.py`."""
    speed = {"pipeline": "name", "ms": "ms", f"speed against {reference}": "speedup"}
    return table(
        case["rows"],
        {**speed, "equal labels": "equal_labels", "stages, ms": "stages_ms", "not measured": "reason"},
    )


def backends(content: Any) -> str:
    """Backends of `backends.py`; speed against the first one that ran."""
    totals = [row["stages_ms"]["total"]["p50"] for row in content["backends"] if "stages_ms" in row]
    entries = [
        {**row, "speedup": totals[0] / row["stages_ms"]["total"]["p50"]} if "stages_ms" in row else row
        for row in content["backends"]
    ]
    columns = {"backend": "name", "first result, s": "first_s"}
    for stage in ("inference", "total"):
        columns |= {f"{stage} {p}, ms": f"stages_ms.{stage}.{p}" for p in ("p50", "p95")}
    return table(entries, {**columns, "speed": "speedup", "not measured": "reason"})


def roofline(content: Any) -> list[str]:
    """Peak rates, stages of all models with the encoder's floor, and operators of fp32 models."""
    machine, entries = content["machine"], []
    for model in content["models"]:
        stages = {row["stage"]: row for row in model["stages"]}
        entries.append(
            {
                "ms": f"{model['name']}, input {size_text(model['input_size'])}",
                **{stage: row["ms"] for stage, row in stages.items()},
                "floor of inference": stages["inference"]["typical_floor_ms"],
                "over_floor": stages["inference"]["over_typical_floor"],
            }
        )
    columns = {key: key for key in entries[0]} | {"inference / floor": "over_floor"}
    del columns["over_floor"]
    rates = {name: machine[name]["typical"] / 1e9 for name in ("matrix", "integer", "memory")}
    return [
        f"Peak rates with {machine['threads']} threads: fp32 {rates['matrix']:.0f} Gop/s, int8 "
        f"{rates['integer']:.0f} Gop/s, memory {rates['memory']:.1f} GB/s.",
        table(entries, columns),
        *(
            table(
                model["operators"],
                {f"{model['name']}, operators": "kind", "nodes": "nodes", "ms": "ms", "share": "share"},
            )
            for model in content["models"]
            if model["operators"]
        ),
    ]


def precision(model: Any) -> str:
    """Precisions of a model of `precision.py`."""
    entries = []
    for name in dict.fromkeys([*model["ms"], *model["bytes"]]):
        values = {key: model.get(key, {}).get(name) for key in ("ms", "speedup", "label_agreement")}
        size = model["bytes"].get(name)
        scores = model.get("accuracy", {}).get(name, {})
        entries.append({"name": name, "mb": size and size / 1e6, **values, **scores})
    columns = {"precision": "name", "encoder, ms": "ms", f"speed against {model['reference']}": "speedup"}
    return table(entries, {**columns, "MB": "mb", "equal labels": "label_agreement", **_SCORES})


_SCORES = {"CamVid val mIoU": "miou", "photo test": "photo_test"}


def postprocess(content: Any) -> str:
    """Cases of `postprocess.py`."""
    entries = []
    for case in content["cases"]:
        name = f"{case['classes']} classes, {size_text(case['size'])}"
        entries.append({**case, "name": name, "equal_pixels": case["equal_labels"]})
    columns = {"logits to labels": "name", "ours, ms": "ours_ms", "PyTorch, ms": "torch_ms", "speed": "ratio"}
    return table(entries, {**columns, "equal labels": "equal_pixels", "peak MB": "peak_mb"})


def sweep(content: Any) -> str:
    """Rows of a sweep of `scaling.py`; ratios are to the first row."""
    entries = [{**row, "rate": 1e3 / row["ms"], "mb": f"{row['peak_mb']:.0f}"} for row in content["rows"]]
    columns = {content["name"]: "value", "ms an image": "ms", "time ratio": "time_ratio", "images/s": "rate"}
    return table(entries, {**columns, "peak MB": "mb", "memory ratio": "memory_ratio", **_SCORES})


def video(content: Any) -> str:
    """Stages of a stream."""
    entries = [{"stage": stage, **values} for stage, values in content["stages_ms"].items()]
    return table(entries, {"stage": "stage", "p50, ms": "p50", "p95, ms": "p95"})
