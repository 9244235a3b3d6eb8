"""Write docs/speed.md from benchmarks/results: ``python benchmarks/report.py``.

The text is in `benchmarks/page/speed.md.template`. Missing results are listed with their command.
"""

import argparse
import string
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import tables
from benchmarks.harness.results import COMMANDS, RESULTS, ROOT, command_of, load_other_machines, load_results
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.files import atomic_write

_TEMPLATE = Path(__file__).parent / "page" / "speed.md.template"
_SWEEPS = ("classes", "threads", "input")


def page(
    results: Mapping[str, Any],
    others: Mapping[str, Mapping[str, Any]] | None = None,
    images: Mapping[str, str] | None = None,
) -> str:
    """Returns the page in Markdown, with rows for other machines' results.

    Images are result → Markdown; see `benchmarks.page.plots.draw`.
    """
    machines = {"": results, **(others or {})}
    rows = [row for name, loaded in machines.items() for row in _end_to_end(loaded, name)]
    commands = [{"result": name, "command": f"`{command_of(results, name)}`"} for name in COMMANDS]
    blocks = {
        "end_to_end": tables.table(rows) if rows else "",
        "commands": tables.table(commands),
        "environments": "\n".join(_environments(results)),
    }
    sections: dict[str, Callable[[Any], list[str]]] = {
        "gpu-latency": lambda _: [""],
        "lite-latency": _start_up,
        "compare-lite": _comparison,
        "compare-vit": _comparison,
        "precision": _precisions,
        "roofline": tables.roofline,
        "postprocess": lambda content: ["", tables.postprocess(content)],
        "scaling": lambda _: [""],
    }
    for name, write in sections.items():
        missing = f"*Not measured: there is no `benchmarks/results/{name}.json`.*"
        text = [f"{missing} Command: `{command_of(results, name)}`"]
        if content := results.get(name):
            facts, *shown = write(content)
            text = [f"{facts} Result: {name}, {_machine(content)}.".strip(), *shown]
            text[:0] = [images[name]] if images and name in images else []
        blocks[name.replace("-", "_")] = "\n\n".join(text)
    measured = {sweep["name"]: tables.sweep(sweep) for sweep in results.get("scaling", {}).get("sweeps", [])}
    blocks |= {f"sweep_{name}": measured.get(name, "*Not measured.*") for name in _SWEEPS}
    return string.Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(blocks)


def _machine(content: Any) -> str:
    return f"{content['environment']['cpu']}, {content['environment']['cores']} cores"


def _end_to_end(results: Mapping[str, Any], folder: str) -> Iterator[dict[str, Any]]:
    """Rows of one machine; `folder` is the folder of another machine's results."""

    def row(result: str, model: str, case: Any, **times: Any) -> dict[str, Any]:
        return {
            "model": model,
            "image": tables.size_text(case["image_size"]),
            "classes": case["classes"],
            "median, ms": times.get("p50"),
            "95th percentile, ms": times.get("p95"),
            "frames/s": times["fps"] if "fps" in times else 1e3 / times["p50"],
            "peak MB": times.get("mb"),
            "machine": _machine(results[result]) + (f" ({folder})" if folder else ""),
            "result": f"{folder}/{result}".lstrip("/"),
        }

    if latency := results.get("lite-latency"):
        total, mb = latency["stages"]["total"], latency.get("peak_mb")
        yield row("lite-latency", latency["model"], latency, p50=total["p50"], p95=total["p95"], mb=mb)
    if video := results.get("lite-video"):
        name = f"{video['model']}, video"
        yield row("lite-video", name, video, fps=video["fps"], mb=video["rss_mb"]["peak"])
    for case in results.get("compare-vit", {}).get("cases", []):
        for ours in case["rows"]:
            if ours["name"].startswith("ours") and "ms" in ours:
                name = f"ViT-B/16, {ours['name'].removeprefix('ours, ')}"
                yield row("compare-vit", name, case, p50=ours["ms"])
    gpu = results.get("gpu-latency", {"backends": []})
    for backend in gpu["backends"]:
        if "stages_ms" in backend:
            case, total = {"image_size": (480, 640), "classes": 20}, backend["stages_ms"]["total"]
            name = f"{gpu['model']}, {backend['name']}"
            yield row("gpu-latency", name, case, p50=total["p50"], p95=total["p95"])


def _start_up(content: Any) -> list[str]:
    peak = content.get("peak_mb")
    text = f"Peak memory of this process, the text encoder included: {peak:.0f} MB." if peak else ""
    return [text, tables.seconds(content["cold_start_s"])]


def _comparison(content: Any) -> list[str]:
    (case,) = content["cases"]
    facts = f"{tables.size_text(case['image_size'])} JPEG, {case['classes']} classes"
    return [f"A {facts}, weights {case['weights']}.", tables.comparison(case, content["reference"])]


def _precisions(content: Any) -> list[str]:
    models = content["models"]
    return ["", *(text for model in models for text in (f"{model['model']}:", tables.precision(model)))]


def _environments(results: Mapping[str, Any]) -> Iterator[str]:
    """One line for each machine and set of versions, with its results."""
    names: dict[str, list[str]] = {}
    for name in COMMANDS:
        if name in results:
            facts = results[name]["environment"]
            versions = facts["packages"] | {key: facts[key] for key in ("torch",) if key in facts}
            text = ", ".join(f"{package} {version}" for package, version in versions.items())
            names.setdefault(f"{_machine(results[name])}, {facts['system']}; {text}", []).append(name)
    for key, made in names.items():
        yield f"- {', '.join(made)}: {key}"


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", metavar="DIR", help="default: docs")
    options = parser.parse_args()
    try:
        from benchmarks.page.plots import draw
    except ImportError as error:
        parser.error(f'{error}; pip install -e ".[bench]"')
    try:
        results, others = load_results(options.results), load_other_machines(options.results)
    except ValueError as error:
        parser.error(str(error))
    images = draw(results, options.docs / "images")
    with atomic_write(options.docs / "speed.md") as file:
        file.write_text(page(results, others, images), encoding="utf-8")
    print(f"{options.docs / 'speed.md'} and {len(images)} plots")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("report", main))
