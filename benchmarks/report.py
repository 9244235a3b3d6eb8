"""The page docs/speed.md from the results in benchmarks/results: ``python benchmarks/report.py``.

The same results give the same page. What was not measured is named, with the command that would.
"""

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.stored import COMMANDS, RESULTS, Results
from benchmarks.page import tables
from benchmarks.page.targets import rows
from pixelclip_sdk.support.files import atomic_write

__all__ = ["main", "page"]

_ROOT = Path(__file__).resolve().parents[1]

_TITLE = """# Speed

<!-- Written by `python benchmarks/report.py` from benchmarks/results. Change those, not this. -->"""

_HEAD = (
    "Times are medians unless another word stands beside them. Every table names the result it is from; "
    "commands and machines are [at the end](#commands-and-machines). Numbers of different machines do not "
    "compare."
)

_FLOORS = (
    "A **floor** is the least time that this machine could take: a stage's operations at the best matrix "
    "rate, or its bytes at the best rate of main memory, whichever is longer. Products of two arrays that "
    "a model has in int8 go by the rate of integers, all others by that of fp32. Only what no method can "
    "avoid is counted. For decoding, preprocessing and postprocessing that is little more than reading and "
    "writing the pixels once, so their factors say how far away the limit is, not how much is to be had. The "
    "encoder's is nearer: it is the rate of the best library's large matrix products."
)

_TARGETS = (
    "Targets are of medians against medians: the floor is at the median rate of the best library's "
    "products, in the same run. The tables' floors are at the rate of the best call of all, which is "
    "stricter. Two more numbers say where the rest is. *Beside ONNX Runtime's own products* is the "
    "encoder's time over what its operations would take at the rate of this runtime's large products: "
    "what the library loses beside others is left out. *Beside the sum of the operators' floors* counts "
    "for each operator what it has to read and write as well: a depthwise convolution, say, moves far "
    "more than it computes."
)

_GROWTH = (
    "From a 640×480 JPEG's bytes to labels of 20 classes where a table does not say otherwise. Memory is the "
    "most that a process which does this alone ever holds, with the model being loaded. Ratios are to a "
    "table's first row."
)

_KEPT = (
    "A ratio depends on the processor: eager PyTorch gains and loses other things than ONNX Runtime by "
    "AVX-512, VNNI and AMX. Columns named after a processor are of results that were kept from it, in "
    "`benchmarks/results/NAME`, measured with the code of their day."
)

_REPEAT = (
    'Commands run in a checkout with the extra `bench` (`pip install -e ".[bench]"`). PHOTOS are real '
    "photos, NAMED ones named after what they show, CAMVID is the data set "
    "([evaluation.md](evaluation.md)). "
    "`python benchmarks/check.py OLD.json NEW.json` says which ratios got worse."
)

# Plots of `benchmarks.page.plots` and what they show, for those who do not see them.
_PLOTS = {
    "speed-compare-lite": "Milliseconds of each with pixelclip-lite, ours in blue",
    "speed-compare-vit": "Milliseconds of each with ViT-B/16, ours in blue",
    "speed-floors": "Milliseconds by kind of operator, with the floor of each as a line across its bar",
    "speed-scaling": "Milliseconds a picture, with peak memory or accuracy, in every sweep",
}


def page(results: Results, images: Sequence[str] = ()) -> str:
    """The page, in Markdown.

    Args:
        results: What there is.
        images: Names of the plots that were drawn, of `benchmarks.page.plots.PLOTS`.
    """
    sections = [
        _TITLE,
        _prose(_HEAD),
        *_asked(results),
        *_gets(results, images),
        *_goes(results, images),
        *_grows(results, images),
    ]
    return "\n\n".join([*sections, *_sources(results)]) + "\n"


def _prose(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _missing(results: Results, name: str) -> str:
    path = f"benchmarks/results/{name}.json"
    return f"*Not measured: there is no `{path}`. This makes it:* `{results.command(name)}`"


def _from(results: Results, name: str) -> str:
    facts = results.get(name)["environment"]
    return f"[{name}.json](../benchmarks/results/{name}.json): {facts['cores']} cores of {facts['cpu']}."


def _section(
    results: Results,
    name: str,
    write: Callable[[Any], list[str]],
    images: Sequence[str] = (),
    image: str = "",
) -> list[str]:
    """A result's plot, what it says, and where it is from; or that it is missing."""
    content = results.get(name)
    if content is None:
        return [_missing(results, name)]
    plot = [f"![{_PLOTS[image]}](images/{image}.png)"] if image in images else []
    return [*plot, *write(content), _from(results, name)]


def _asked(results: Results) -> list[str]:
    kept = results.kept()
    head = ["asked", "reached", "", *kept, "result"]
    table = tables.table(head, rows(results, [*kept.values()])).replace("---:", "---")
    return ["## Asked and reached", *([_prose(_KEPT)] if kept else []), table]


def _gets(results: Results, images: Sequence[str]) -> list[str]:
    rows = []
    for name, write in (
        ("lite-latency", tables.latency_rows),
        ("lite-video", tables.video_rows),
        ("compare-vit", tables.compare_rows),
        ("gpu-latency", tables.backend_rows),
    ):
        content = results.get(name)
        if content is not None:
            rows += [[*row, f"[{name}](../benchmarks/results/{name}.json)"] for row in write(content)]
    head = ["from a picture's bytes to labels", "ms", "95 of 100 within", "frames a second", "result"]
    text = ["## What you get, end to end", *([tables.table(head, rows)] if rows else [])]
    # The others are missed where they have a section.
    text += [_missing(results, name) for name in ("lite-video", "gpu-latency") if results.get(name) is None]
    text += ["### Before the first picture", *_section(results, "lite-latency", tables.cold)]
    for name, case in (("compare-lite", "pixelclip-lite"), ("compare-vit", "ViT-B/16")):
        text += [f"### {case} beside others"]
        text += _section(results, name, tables.compared, images, f"speed-{name}")
    return text


def _goes(results: Results, images: Sequence[str]) -> list[str]:
    text = [
        "## Where each millisecond goes, and how far it is from the limit",
        _prose(_FLOORS),
        _prose(_TARGETS),
    ]
    text += _section(results, "roofline", tables.roofline, images, "speed-floors")
    text += ["### Other precisions", *_section(results, "precision", tables.precision)]
    text += ["### Labels at the picture's size", *_section(results, "postprocess", tables.postprocess)]
    return text


def _grows(results: Results, images: Sequence[str]) -> list[str]:
    return [
        "## How it grows",
        _prose(_GROWTH),
        *_section(results, "scaling", tables.scaling, images, "speed-scaling"),
    ]


def _sources(results: Results) -> list[str]:
    rows = []
    for name in COMMANDS:
        content = results.get(name)
        where, versions = "not measured", ""
        if content is not None:
            facts = content["environment"]
            where = f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}"
            packages = {**facts["packages"], **({"torch": facts["torch"]} if "torch" in facts else {})}
            versions = ", ".join(f"{package} {version}" for package, version in packages.items())
        rows.append([name, f"`{results.command(name)}`", where, versions])
    return [
        "## Commands and machines",
        _prose(_REPEAT),
        tables.table(["result", "command", "machine", "versions"], rows).replace("---:", "---"),
    ]


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--docs", type=Path, default=_ROOT / "docs", metavar="DIR", help="default: %(default)s"
    )
    options = parser.parse_args()
    try:
        from benchmarks.page.plots import draw
    except ImportError as error:
        parser.error(f'{error}; pip install -e ".[bench]"')
    try:
        results = Results(options.results)
    except ValueError as error:
        parser.error(str(error))
    images = draw(results, options.docs / "images")
    with atomic_write(options.docs / "speed.md") as file:
        file.write_text(page(results, images), encoding="utf-8")
    print(f"{options.docs / 'speed.md'} and {len(images)} plots")
    return 0


if __name__ == "__main__":
    sys.exit(main())
