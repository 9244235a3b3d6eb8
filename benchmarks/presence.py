"""Is it there? ``python benchmarks/presence.py --voc DIR``.

Photos of PASCAL VOC with its label ids are segmented with 15 words. For six of them, photos that show the
thing (at least 0.5 % of the pixels) are told from photos without it, by several numbers of a result. Reported
is the area under the ROC curve: the probability that a photo with the thing has the larger number. The first
two numbers need no confidence. A second test asks for each thing beside three words for surroundings only.

Also reported: for each `min_confidence`, the share of photos with the thing where it is still found, and the
share of photos without it where it is found wrongly, as means of the six words.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness.results import command_parser, store
from pixelclip_sdk import Segmentation, Segmenter, class_list
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import run_command
from training.evaluation.labels import LabelFile

THINGS = ("cat", "dog", "horse", "cow", "sheep", "person")
OTHERS = ("chair", "sofa", "bird", "car", "tree", "grass", "sky", "wall", "floor")
SURROUNDINGS = ("wall", "floor", "grass")
LIMITS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_CONFIDENT = 0.3
_SMALLEST = 0.005  # Share of a photo's pixels.
_FOUND = 0.005


@dataclasses.dataclass(frozen=True)
class Numbers:
    """What a result says about one word."""

    area: float
    best_cosine: float
    confident_area: float
    best_confidence: float
    presence: float
    areas: tuple[float, ...]  # With each of LIMITS.


Truth = dict[str, bool | None]
Photo = tuple[Truth, dict[str, Numbers]]


def numbers_of(result: Segmentation, name: str) -> Numbers:
    """Returns what a result says about a word.

    Where a photo has no confident pixel of the word, its presence decides between such photos.
    """
    won = result.mask(name)
    confidence = result.confidence[won]
    best = float(confidence.max(initial=0))
    presence = result.presence()[name]
    areas = tuple(float((confidence >= limit).sum() / won.size) for limit in LIMITS)
    return Numbers(
        area=areas[0],
        best_cosine=float(result.logits[result.names.index(name)].max()),
        confident_area=float((confidence >= _CONFIDENT).sum() / won.size) + 1e-6 * presence,
        best_confidence=best,
        presence=presence,
        areas=areas,
    )


def area_under_curve(present: Sequence[float], absent: Sequence[float]) -> float:
    """Returns the probability that a number of `present` is larger than one of `absent`; ties count half."""
    difference = np.subtract.outer(np.asarray(present), np.asarray(absent))
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def truth_of(labels: Path) -> Truth:
    """Returns for each thing whether a photo shows it; None if it shows too little."""
    ids = LabelFile(labels).read()
    names = list(class_list("voc-20"))
    shares = {name: float((ids == names.index(name) + 1).mean()) for name in THINGS}
    return {name: None if 0 < share < _SMALLEST else share > 0 for name, share in shares.items()}


def curves(photos: Sequence[Photo]) -> dict[str, dict[str, float]]:
    """Returns number → thing → area under the curve, with the mean."""
    result = {}
    for field in ("area", "best_cosine", "confident_area", "best_confidence", "presence"):
        row = {}
        for thing in THINGS:
            present, absent = (
                [getattr(numbers[thing], field) for truth, numbers in photos if truth[thing] is there]
                for there in (True, False)
            )
            row[thing] = area_under_curve(present, absent)
        result[field] = {"mean": float(np.mean(list(row.values()))), **row}
    return result


def shares(photos: Sequence[Photo]) -> list[dict[str, float]]:
    """Returns for each of LIMITS how often a thing is found where it is, and where it is not."""

    def share(limit: int, thing: str, there: bool) -> float:
        areas = [numbers[thing].areas[limit] for truth, numbers in photos if truth[thing] is there]
        return float(np.mean(np.array(areas) >= _FOUND))

    return [
        {
            "min_confidence": value,
            "found": float(np.mean([share(i, thing, True) for thing in THINGS])),
            "false_alarms": float(np.mean([share(i, thing, False) for thing in THINGS])),
        }
        for i, value in enumerate(LIMITS)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__)
    parser.add_argument(
        "--voc", type=path, required=True, metavar="DIR", help="folder with images and labels"
    )
    parser.add_argument("--bundle", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    options = parser.parse_args(arguments)
    together: list[Photo] = []
    alone: list[Photo] = []
    with Segmenter.from_pretrained(options.bundle) as segmenter:
        all_words = segmenter.set_classes([*THINGS, *OTHERS])
        few_words = {thing: segmenter.set_classes([thing, *SURROUNDINGS]) for thing in THINGS}
        for photo in tqdm(sorted((options.voc / "images").glob("*.jpg")), unit="photo", disable=None):
            truth = truth_of(options.voc / "labels" / f"{photo.stem}.png")
            segmenter.set_classes(all_words)
            result = segmenter.predict(photo)
            together.append((truth, {thing: numbers_of(result, thing) for thing in THINGS}))
            found = {}
            for thing, words in few_words.items():
                segmenter.set_classes(words)
                found[thing] = numbers_of(segmenter.predict(photo), thing)
            alone.append((truth, found))
    truths = [truth for truth, _ in together]
    content: dict[str, Any] = {
        "photos": {x: [sum(t[x] is there for t in truths) for there in (True, False)] for x in THINGS},
        "among_15_words": curves(together),
        "beside_surroundings": curves(alone),
        "limits": shares(together),
        "limits_beside_surroundings": shares(alone),
    }
    for key in ("among_15_words", "beside_surroundings"):
        print(key.replace("_", " "))
        for number, row in content[key].items():
            print(f"  {number:<16}", " ".join(f"{name} {value:.3f}" for name, value in row.items()))
    for row in content["limits"]:
        print("  " + ", ".join(f"{key} {value:.2f}" for key, value in row.items()))
    files = {name: entry["sha256"] for name, entry in find_bundle(options.bundle).files.items()}
    store(options.json, {"files": files, **content})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("presence", main))
