"""Results as Markdown tables, for commands and for docs/speed.md.

`table` writes any list of entries. The other functions choose the columns for one kind of result.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_NUMBER = re.compile(r"[-+]?\d[\d.]*\D{0,3}|–")
_FORMATS = {
    **dict.fromkeys(["speed", "speedup", "ratio", "time_ratio", "memory_ratio", "inference / floor"], "{}×"),
    **dict.fromkeys(["share", "miou", "photo_test"], "{:.1%}"),
    **dict.fromkeys(["equal_labels", "label_agreement"], "{:.2%}"),
    "equal_pixels": "{:.4%}",
}
_OPERATORS = 3  # Of each model.
_SCORES = {"CamVid val mIoU": "miou", "photo test": "photo_test"}


def table(entries: Sequence[Mapping[str, Any]], columns: Mapping[str, str] | None = None) -> str:
    """Returns a Markdown table with aligned columns; columns of numbers are aligned to the right.

    Columns are heading → key; None for the keys of the first entry. Empty columns are left out, missing
    values are shown as a dash, and known ratios and shares, such as ``speedup`` and ``miou``, as such.
    """
    columns = columns or {key: key for key in entries[0]}
    texts = []
    for i, (heading, key) in enumerate(columns.items()):
        cells = [_cell(entry.get(key), _FORMATS.get(key, "{}")) for entry in entries]
        if set(cells) == {"–"}:
            continue
        right = i > 0 and all(_NUMBER.fullmatch(cell) for cell in cells)
        width = max(map(len, [heading, *cells]))
        rule = "-" * (width - right) + ":" * right
        lines = heading, rule, *cells
        texts.append([line.rjust(width) if right else line.ljust(width) for line in lines])
    return "\n".join("| " + " | ".join(line) + " |" for line in zip(*texts, strict=True))


def _cell(value: Any, form: str) -> str:
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


def seconds(steps: Mapping[str, float]) -> str:
    """Seconds of each step."""
    return table([{"step": step, "seconds": f"{value:.3f}"} for step, value in steps.items()])


def comparison(case: Any, reference: str) -> str:
    """Pipelines of a case of `compare.py`."""
    columns = {"pipeline": "name", "ms": "ms", f"speed against {reference}": "speedup"}
    columns |= {"equal labels": "equal_labels", "stages, ms": "stages_ms", "not measured": "reason"}
    return table(case["rows"], columns)


def backends(content: Any) -> str:
    """Backends of `backends.py`; speed against the first one that ran."""
    entries, first = [], None
    for row in content["backends"]:
        entry = {"backend": row["name"], "first result, s": row.get("first_s")}
        times = row.get("stages_ms", {})
        for stage in ("inference", "total"):
            entry |= {f"{stage} {p}, ms": times.get(stage, {}).get(p) for p in ("p50", "p95")}
        first = first or (times and times["total"]["p50"])
        speed = first / times["total"]["p50"] if times else None
        entries.append({**entry, "speed": speed, "not measured": row.get("reason")})
    return table(entries)


def roofline(content: Any) -> list[str]:
    """Peak rates, stages of all models with the encoder's floor, and the slowest operators of fp32 models."""
    machine, entries, operators = content["machine"], [], []
    for model in content["models"]:
        stages = {row["stage"]: row for row in model["stages"]}
        entries.append(
            {
                "ms": f"{model['name']}, input {size_text(model['input_size'])}",
                **{stage: row["ms"] for stage, row in stages.items()},
                "floor of inference": stages["inference"]["typical_floor_ms"],
                "inference / floor": stages["inference"]["over_typical_floor"],
            }
        )
        for row in model["operators"][:_OPERATORS]:
            row = {key: row[key] for key in ("kind", "nodes", "ms", "share")}
            operators.append({"slowest operators of": model["name"], **row})
    rates = {name: machine[name]["typical"] / 1e9 for name in ("matrix", "integer", "memory")}
    text = (
        f"Peak rates with {machine['threads']} threads: fp32 {rates['matrix']:.0f} Gop/s, int8 "
        f"{rates['integer']:.0f} Gop/s, memory {rates['memory']:.1f} GB/s."
    )
    return [text, table(entries), *([table(operators)] if operators else [])]


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


def postprocess(content: Any) -> str:
    """Cases of `postprocess.py`."""
    entries = []
    for case in content["cases"]:
        name = f"{case['classes']} classes, {size_text(case['size'])}"
        entries.append({**case, "name": name, "equal_pixels": case["equal_labels"]})
    columns = {"logits to labels": "name", "ours, ms": "ours_ms", "PyTorch, ms": "torch_ms", "speed": "ratio"}
    return table(entries, {**columns, "equal labels": "equal_pixels", "peak MB": "peak_mb"})


def regions(content: Any) -> str:
    """Cases of `regions.py`."""
    entries = []
    for case in content["cases"]:
        name = f"{case['classes']} classes, {size_text(case['size'])}"
        entries.append({**case, "name": name, "found": f"{case['regions']:.0f}"})
    columns = {"labels to regions": "name", "ours, ms": "ours_ms", "scipy, ms": "scipy_ms", "speed": "ratio"}
    return table(entries, {**columns, "regions": "found"})


def refinement(content: Any) -> str:
    """Cases of `refine.py`."""
    entries = [
        {**case, "name": f"{case['classes']} classes, {size_text(case['size'])}"} for case in content["cases"]
    ]
    columns = {"labels along edges": "name", "edges, ms": "edges_ms", "off, ms": "off_ms"}
    return table(entries, {**columns, "time ratio": "time_ratio", "peak MB": "peak_mb"})


def sweep(content: Any) -> str:
    """Rows of a sweep of `scaling.py`; ratios are to the first row."""
    entries = [{**row, "rate": 1e3 / row["ms"], "mb": f"{row['peak_mb']:.0f}"} for row in content["rows"]]
    columns = {content["name"]: "value", "ms an image": "ms", "time ratio": "time_ratio", "images/s": "rate"}
    return table(entries, {**columns, "peak MB": "mb", "memory ratio": "memory_ratio", **_SCORES})
