"""What the project asks of its speed, and where each number is found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.stored import Results

__all__ = ["TARGETS", "Target", "rows"]


@dataclass(frozen=True)
class Target:
    """A number that is asked for.

    Attributes:
        what: For people.
        result: Name of the result that it is in.
        value: Finds it there; may raise KeyError, IndexError or StopIteration where it is not.
        limit: What is asked.
        most: Whether the limit is the most, not the least.
        form: How to write the number.
    """

    what: str
    result: str
    value: Callable[[Any], float]
    limit: float
    most: bool = False
    form: str = "{:.2f}×"

    def reached(self, value: float) -> bool:
        """Whether a value is what is asked."""
        return value <= self.limit if self.most else value >= self.limit

    @property
    def asked(self) -> str:
        """The limit for people."""
        return f"{'at most' if self.most else 'at least'} {self.form.format(self.limit)}"


def _labels(classes: int, height: int, width: int, key: str) -> Callable[[Any], float]:
    def value(content: Any) -> float:
        wanted = {"classes": classes, "size": [height, width]}
        return float(next(case[key] for case in content["cases"] if wanted.items() <= case.items()))

    return value


def _speed(name: str) -> Callable[[Any], float]:
    def value(content: Any) -> float:
        (case,) = content["cases"]
        return float(next(row["speedup"] for row in case["rows"] if row["name"] == name and "ms" in row))

    return value


def _model(by: str, begin: str, key: str, name: str) -> Callable[[Any], float]:
    def value(content: Any) -> float:
        model = next(model for model in content["models"] if model[by].startswith(begin))
        return float(model[key][name])

    return value


def _floor(begin: str) -> Callable[[Any], float]:
    return _model("name", begin, "encoder", "over_typical_floor")


def _vit(key: str, name: str) -> Callable[[Any], float]:
    return _model("model", "ViT", key, name)


_ALONE = "ViT-B/16 320², encoder alone, against eager PyTorch"
_LARGE = "150 classes, 64×64 grid → 1080×1920, against PyTorch"
_LITE = "pixelclip-lite, 640×480 JPEG → labels, 20 classes, against PyTorch"
_VIT = "ViT-B/16 320², 1080p JPEG → labels, 150 classes, against PyTorch"
TARGETS = (
    Target(f"labels: {_LARGE}", "postprocess", _labels(150, 1080, 1920, "ratio"), 30, form="{:.1f}×"),
    Target(
        "the same: equal labels",
        "postprocess",
        _labels(150, 1080, 1920, "equal_labels"),
        0.99999,
        form="{:.4%}",
    ),
    Target(
        "the same: memory beside the result",
        "postprocess",
        _labels(150, 1080, 1920, "peak_mb"),
        64,
        most=True,
        form="{:.1f} MB",
    ),
    Target(
        "the same, 20 classes → 480×640", "postprocess", _labels(20, 480, 640, "ratio"), 8, form="{:.1f}×"
    ),
    Target(f"{_LITE}, fp32", "compare-lite", _speed("ours, fp32"), 3),
    Target(f"{_LITE}, int8", "compare-lite", _speed("ours, int8"), 4),
    Target(f"{_VIT}, fp32", "compare-vit", _speed("ours, fp32"), 3),
    Target(f"{_VIT}, int8", "compare-vit", _speed("ours, int8"), 4.5),
    Target(f"{_ALONE}, fp32", "precision", _vit("speedup", "fp32"), 1.45),
    Target(f"{_ALONE}, int8", "precision", _vit("speedup", "int8"), 2.2),
    Target("ViT-B/16, file in fp16 over fp32", "precision", _vit("size_ratio", "fp16"), 0.55, most=True),
    Target("ViT-B/16, file in int8 over fp32", "precision", _vit("size_ratio", "int8"), 0.35, most=True),
    Target("encoder over its floor, ViT-B/16", "roofline", _floor("ViT"), 1.15, most=True),
    Target("encoder over its floor, pixelclip-lite", "roofline", _floor("pixelclip-lite"), 1.5, most=True),
    Target(
        "everything but the encoder, pixelclip-lite, 640×480, 20 classes",
        "lite-latency",
        lambda content: 1 - content["stages"]["inference"]["p50"] / content["stages"]["total"]["p50"],
        0.25,
        most=True,
        form="{:.1%}",
    ),
    Target(
        "pixelclip-lite on 480×360 video, frames a second",
        "lite-video",
        lambda content: float(content["fps"]),
        30,
        form="{:.1f}",
    ),
    Target("the same: frames", "lite-video", lambda content: float(content["frames"]), 20000, form="{:.0f}"),
    # Memory wavers by a few frames that are under way.
    Target(
        "the same: memory at the end over the start",
        "lite-video",
        lambda content: content["rss_mb"]["end"] / content["rss_mb"]["start"],
        1.05,
        most=True,
    ),
)
"""All of them, in the order of the table."""


def rows(results: Results, kept: Sequence[Results] = ()) -> list[list[str]]:
    """Asked, reached, verdict, what other processors reached, and the result's name, for people.

    Args:
        results: Of this processor.
        kept: Of others.
    """
    found = []
    for target in TARGETS:
        here, verdict = _reached(target, results)
        others = [" ".join(_reached(target, other)).removesuffix(" not measured") for other in kept]
        found.append([f"{target.what}: {target.asked}", here, verdict, *others, target.result])
    return found


def _reached(target: Target, results: Results) -> tuple[str, str]:
    """A value and whether it is what is asked, for people."""
    try:
        value = target.value(results.get(target.result) or {})
    except (KeyError, IndexError, StopIteration, ValueError):
        return "–", "not measured"
    return target.form.format(value), "reached" if target.reached(value) else "**missed**"
