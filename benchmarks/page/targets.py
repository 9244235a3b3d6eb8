"""The project's speed targets and their place in the results."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["TARGETS", "Target", "find", "rows"]

Path = tuple[str | Mapping[str, Any], ...]


@dataclass(frozen=True)
class Target:
    """A number with a limit.

    Attributes:
        name: Description.
        result: Name of the result.
        path: Place in the result; see `find`.
        limit: Value to reach.
        form: Format of the value.
        most: Whether the limit is an upper bound; otherwise it is a lower bound.
        over: Place of a number to divide by.
    """

    name: str
    result: str
    path: Path
    limit: float
    form: str = "{:.2f}×"
    most: bool = False
    over: Path = ()

    @property
    def asked(self) -> str:
        """The limit in words."""
        return f"{'at most' if self.most else 'at least'} {self.form.format(self.limit)}"

    def value(self, content: Any) -> float | None:
        """Returns the value in the content of a result, or None if it is not there."""
        value, divisor = find(content, self.path), find(content, self.over) if self.over else 1
        return None if value is None or divisor is None else value / divisor

    def reached(self, value: float) -> bool:
        """Whether a value meets the limit."""
        return value <= self.limit if self.most else value >= self.limit


def find(content: Any, path: Path) -> float | None:
    """Returns a number in a result, or None if it is not there.

    Args:
        content: The result.
        path: A key for each dict on the way; for each list, the items of the wanted entry.
    """
    for step in path:
        if isinstance(step, str):
            content = (content or {}).get(step)
        else:
            content = next((entry for entry in content or [] if step.items() <= entry.items()), None)
    return content


def _large(key: str) -> Path:
    return ("cases", {"classes": 150, "size": [1080, 1920]}, key)


def _speed(case: str, row: str) -> Path:
    return ("cases", {"name": case}, "rows", {"name": row}, "speedup")


def _vit(key: str, precision: str) -> Path:
    return ("models", {"model": "ViT-B-16-quickgelu, random weights"}, key, precision)


def _floor(name: str) -> Path:
    return ("models", {"name": name}, "stages", {"stage": "inference"}, "over_typical_floor")


_SMALL = ("cases", {"classes": 20, "size": [480, 640]}, "ratio")
_LABELS = "postprocessing, 150 classes, 64×64 grid → 1080×1920"
_LITE = "pixelclip-lite, 640×480 JPEG → labels, 20 classes, against PyTorch"
_VIT = "ViT-B/16 320², 1080p JPEG → labels, 150 classes, against PyTorch"
_ALONE = "ViT-B/16 320², encoder alone, against eager PyTorch"
_VIDEO = "pixelclip-lite on 480×360 video"
_SHARE = "pixelclip-lite, 640×480, 20 classes, encoder's share of the time"
_ENCODER, _TOTAL = ("stages", "inference", "p50"), ("stages", "total", "p50")
_END, _START = ("rss_mb", "end"), ("rss_mb", "start")
TARGETS = (
    Target(f"{_LABELS}, against PyTorch", "postprocess", _large("ratio"), 30),
    Target(f"{_LABELS}, equal labels", "postprocess", _large("equal_labels"), 0.99999, "{:.4%}"),
    Target(f"{_LABELS}, peak memory", "postprocess", _large("peak_mb"), 64, "{:.1f} MB", most=True),
    Target("postprocessing, 20 classes → 480×640, against PyTorch", "postprocess", _SMALL, 8),
    Target(f"{_LITE}, fp32", "compare-lite", _speed("lite", "ours, fp32"), 3),
    Target(f"{_LITE}, int8", "compare-lite", _speed("lite", "ours, int8"), 4),
    Target(f"{_VIT}, fp32", "compare-vit", _speed("vit", "ours, fp32"), 3),
    Target(f"{_VIT}, int8", "compare-vit", _speed("vit", "ours, int8"), 4.5),
    Target(f"{_ALONE}, fp32", "precision", _vit("speedup", "fp32"), 1.45),
    Target(f"{_ALONE}, int8", "precision", _vit("speedup", "int8"), 2.2),
    Target("ViT-B/16, fp16 file against fp32", "precision", _vit("size_ratio", "fp16"), 0.55, most=True),
    Target("ViT-B/16, int8 file against fp32", "precision", _vit("size_ratio", "int8"), 0.35, most=True),
    Target(
        "ViT-B/16, encoder over its floor", "roofline", _floor("ViT-B/16, random weights"), 1.15, most=True
    ),
    Target("pixelclip-lite, encoder over its floor", "roofline", _floor("pixelclip-lite"), 1.5, most=True),
    Target(_SHARE, "lite-latency", _ENCODER, 0.75, "{:.1%}", over=_TOTAL),
    Target(f"{_VIDEO}, frames a second", "lite-video", ("fps",), 30, "{:.1f}"),
    Target(f"{_VIDEO}, frames", "lite-video", ("frames",), 20000, "{:.0f}"),
    # Memory varies by the frames in flight.
    Target(f"{_VIDEO}, memory, end over start", "lite-video", _END, 1.05, most=True, over=_START),
)
"""All targets, in the order of the table."""


def rows(results: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str | None]]:
    """Returns a table row for each target: limit, value here, and values of other machines.

    Args:
        results: Results of this machine, by name.
        others: Machine → results.
    """
    columns = {"this machine": results, **others}
    return [
        {
            "target": f"{target.name}: {target.asked}",
            **{name: _verdict(target, loaded) for name, loaded in columns.items()},
            "result": target.result,
        }
        for target in TARGETS
    ]


def _verdict(target: Target, results: Mapping[str, Any]) -> str | None:
    value = target.value(results.get(target.result))
    if value is None:
        return None
    return f"{target.form.format(value)} {'reached' if target.reached(value) else '**missed**'}"
