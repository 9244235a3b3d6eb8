"""Suggested words and classes from pictures: ``python benchmarks/prompts.py --root DATA``.

Suggestions: the share of things whose word is among ten suggested ones, on photos of VOC (each class on 3 %
of a photo or more) and on photos of one thing. A word counts if its embedding has a cosine of 0.75 or more
with the true word's. A photo of one thing is reachable if the list of nouns has such a word at all.

Image prompts: classes from one or a few pictures against their words, on photos that are no examples. On VOC
the examples are photos with masks of one half of the set, and mIoU counts on the other half. On groceries
they are whole photos, and the share of photos counts whose own class has the largest area, among all classes.
In "mixed" every other class is given by pictures and the others by words, then the other way round.
"""

import functools
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness.results import ROOT, command_parser, store
from benchmarks.photo_test import name_of
from pixelclip_sdk import Segmenter
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.postprocess import labels_upsampled
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import find_images
from pixelclip_sdk.words.classes import NOUNS
from pixelclip_sdk.words.image_prompts import Example, embed_examples
from pixelclip_sdk.words.suggestions import COMMON, TEMPERATURE, suggest_words
from training.evaluation.datasets import Dataset
from training.evaluation.metrics import Confusion
from training.evaluation.sets import load_sets

SETS = ROOT / "training" / "evaluation" / "development.yaml"
_SAME = 0.75
_LEAST_SHARE = 0.03
SETTINGS = (TEMPERATURE, COMMON), (0.05, COMMON), (TEMPERATURE, 0.0)
"""Temperature and bonus of common words; the first is the default."""
SCALES = 1.0, 0.7, 0.5

Rows = npt.NDArray[np.float32]


class Features:
    """Computes features once per picture file."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.features = functools.cache(segmenter.features)


def suggestions(segmenter: Segmenter, features: Features, voc: Dataset, photos: Sequence[Path]) -> Any:
    """Returns the scores of every setting."""
    nouns = segmenter.embed(NOUNS)
    things = segmenter.embed({name: list(words) for name, words in voc.classes.items()}).embeddings
    names = sorted({name_of(photo) for photo in photos})
    known = dict(zip(names, segmenter.embed(names).embeddings, strict=True))
    index = {name: i for i, name in enumerate(nouns.names)}

    def best(photo: Path, temperature: float, common: float) -> Rows:
        seen = features.features(photo)
        found = suggest_words(seen, nouns, 10, temperature=temperature, common=common)
        return nouns.embeddings[[index[word.name] for word in found]]

    result = []
    for temperature, common in SETTINGS:
        hits: dict[str, list[bool]] = defaultdict(list)
        for i, photo in enumerate(voc.photos):
            found = best(photo, temperature, common)
            shares = np.bincount(voc.truth(i).ravel(), minlength=256)[: len(things)] / voc.truth(i).size
            for thing in np.flatnonzero(shares >= _LEAST_SHARE):
                hits["voc"].append(bool((found @ things[thing]).max() >= _SAME))
        for photo in photos:
            cosines = best(photo, temperature, common) @ known[name_of(photo)]
            hits["photos, first"].append(bool(cosines[0] >= _SAME))
            hits["photos"].append(bool(cosines.max() >= _SAME))
            hits["photos, reachable"].append(bool((nouns.embeddings @ known[name_of(photo)]).max() >= _SAME))
        scores = {name: float(np.mean(values)) for name, values in hits.items()}
        print(f"temperature {temperature}, common {common}:", _shown(scores), flush=True)
        counts = {name: len(values) for name, values in hits.items()}
        result.append({"temperature": temperature, "common": common, "scores": scores, "counts": counts})
    return result


def voc_prompts(segmenter: Segmenter, features: Features, voc: Dataset, shots: int) -> Any:
    """Returns mIoU on odd photos, with masks of the first `shots` even photos that show a class."""
    truths = [voc.truth(i) for i in range(len(voc))]
    shown: dict[int, list[int]] = defaultdict(list)
    for i in range(0, len(voc), 2):
        for k in np.unique(truths[i][truths[i] < len(voc.classes)]).tolist():
            if (truths[i] == k).mean() >= _LEAST_SHARE and len(shown[k]) < shots:
                shown[k].append(i)
    kept = [k for k in sorted(shown) if len(shown[k]) == shots]
    names = [list(voc.classes)[k] for k in kept]
    examples: dict[str, list[Example]] = {
        name: [(voc.photos[i], truths[i] == k) for i in shown[k]] for name, k in zip(names, kept, strict=True)
    }
    place = np.full(256, 255, np.uint8)
    place[kept] = range(len(kept))
    text = segmenter.embed({name: list(voc.classes[name]) for name in names}).embeddings

    def score(rows: Rows) -> npt.NDArray[np.float64]:
        total = Confusion.empty(len(rows))
        for i in range(1, len(voc), 2):
            logits = np.ascontiguousarray((features.features(voc.photos[i]) @ rows.T).transpose(2, 0, 1))
            size = truths[i].shape[0], truths[i].shape[1]
            total += Confusion.of(place[truths[i]], labels_upsampled(logits, size), len(rows))
        return total.ious

    return {"classes": names, "rows": _compared(segmenter, examples, text, score, f"voc, {shots} examples")}


def grocery_prompts(segmenter: Segmenter, features: Features, folder: Path, shots: int) -> Any:
    """Returns the share of photos with their own class as the largest area."""
    captions = json.loads((folder / "words.json").read_text(encoding="utf-8"))
    photos: dict[str, list[Path]] = defaultdict(list)
    for file, words in captions.items():
        if file.startswith("grocery_"):
            photos[words[0]].append(folder / "images" / file)
    photos = {name: files for name, files in photos.items() if len(files) > shots}
    text = segmenter.embed(list(photos)).embeddings

    def score(rows: Rows) -> npt.NDArray[np.float64]:
        won: list[list[bool]] = [
            [
                bool(np.bincount((features.features(file) @ rows.T).argmax(2).ravel()).argmax() == k)
                for file in files[shots:]
            ]
            for k, files in enumerate(photos.values())
        ]
        return np.array([np.mean(wins) for wins in won])

    examples: dict[str, list[Example]] = {name: list(files[:shots]) for name, files in photos.items()}
    rows = _compared(segmenter, examples, text, score, f"groceries, {shots} examples")
    return {"classes": list(photos), "photos": sum(len(f) - shots for f in photos.values()), "rows": rows}


def _compared(
    segmenter: Segmenter, examples: Any, text: Rows, score: Any, title: str
) -> list[dict[str, Any]]:
    """Returns the mean scores of words, of pictures, and of both in one vocabulary, for every scale."""
    common = segmenter.embed("common-150").embeddings
    even = np.arange(len(text)) % 2 == 0
    rows = []
    alone = {"words": float(np.nanmean(score(text)))}
    for scale in SCALES:
        pictures = embed_examples(examples, segmenter, common, scale)[1]
        first = score(np.where(even[:, None], pictures, text))
        second = score(np.where(even[:, None], text, pictures))
        scores = alone | {
            "pictures": float(np.nanmean(score(pictures))),
            "mixed, pictures": float(np.nanmean(np.where(even, first, second))),
            "mixed, words": float(np.nanmean(np.where(even, second, first))),
        }
        print(f"{title}, scale {scale}:", _shown(scores), flush=True)
        rows.append({"scale": scale, "scores": scores})
    return rows


def _shown(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * value:.1f} %" for name, value in scores.items())


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__)
    parser.add_argument("--root", type=Path, required=True, metavar="DATA", help="folder of the data sets")
    parser.add_argument("--model", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    options = parser.parse_args()
    voc = load_sets(SETS, options.root)["voc"]
    with Segmenter.from_pretrained(options.model) as segmenter:
        features = Features(segmenter)
        content = {
            "suggestions": suggestions(segmenter, features, voc, find_images(options.root / "photos")[::5]),
            "voc": {shots: voc_prompts(segmenter, features, voc, shots) for shots in (1, 4)},
            "groceries": {
                shots: grocery_prompts(segmenter, features, options.root / "words", shots) for shots in (1, 3)
            },
        }
    files = {name: entry["sha256"] for name, entry in find_bundle(options.model).files.items()}
    store(options.json, {"files": files, **content})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("prompts", main))
