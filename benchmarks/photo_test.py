"""Does a photo's own name win? ``python benchmarks/photo_test.py FOLDER``.

Each photo shows one thing and is named after it: ``n02123045_tabby_cat.jpg`` or ``tabby_cat.jpg``. It is
segmented with its own name and 19 names of other photos, drawn with a fixed seed. The photo is won if its
own name covers the largest area; chance is 5 %. ``--draws`` repeats the test with other names.
``--against MODEL`` compares two models on the same photos and names, with a confidence interval.
"""

import argparse
import dataclasses
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness.results import command_parser, store
from pixelclip_sdk import Segmenter, Vocabulary
from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import find_images

_RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class PhotoTest:
    """Result of the test. Shares are 0–1."""

    photos: int
    names: int  # Per photo.
    largest: float  # Share of photos won, mean of all draws.
    pixels: float  # Mean share of a photo's pixels with its own name.
    lost: dict[str, str]  # File name → winning name, for photos lost in the first draw.
    won: tuple[float, ...]  # Share of draws won by each photo, in the order of `find_images`.


def name_of(photo: Path) -> str:
    """Returns the name of a photo's content: ``n02123045_Siamese_cat.jpg`` → ``siamese cat``."""
    return re.sub(r"^n\d{8}_", "", photo.stem).replace("_", " ").lower()


def draw_names(photo: Path, names: list[str], count: int, seed: int) -> list[str]:
    """Returns the photo's own name and `count - 1` others, shuffled, by file name and seed."""
    rng = random.Random(f"{seed}/{photo.name}")
    own = name_of(photo)
    drawn = [own, *rng.sample([name for name in names if name != own], count - 1)]
    rng.shuffle(drawn)
    return drawn


def photo_test(
    segmenter: Segmenter, folder: Path, *, count: int = 20, seed: int = 0, draws: int = 1
) -> PhotoTest:
    """Run the test on all photos of a folder, with `count` names per photo. Replaces the classes.

    The first draw of names uses `seed`; later draws use the seeds after it. Raises ImageError if the folder
    has no photos, or photos of fewer than `count` names.
    """
    photos = find_images(folder)
    names = sorted({name_of(photo) for photo in photos})
    if len(names) < count:
        raise ImageError(f"{folder} has photos of {len(names)} names; expected at least {count}")
    known = segmenter.set_classes(names)
    embedding = dict(zip(known.names, known.embeddings, strict=True))
    shares, won, lost = [], [], {}
    for photo in photos:
        own, wins = name_of(photo), 0
        for draw in range(draws):
            drawn = draw_names(photo, names, count, seed + draw)
            embeddings = np.stack([embedding[name] for name in drawn])
            segmenter.set_classes(Vocabulary(names=drawn, embeddings=embeddings))
            areas = segmenter.predict(photo).areas()
            shares.append(areas[own])
            winner = next(iter(areas))
            wins += winner == own
            if winner != own and draw == 0:
                lost[photo.name] = winner
        won.append(wins / draws)
    return PhotoTest(len(photos), count, float(np.mean(won)), float(np.mean(shares)), lost, tuple(won))


def difference(won: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean difference of two models' `PhotoTest.won` and its 95 % confidence interval.

    The percentile bootstrap over photos, paired (Efron and Tibshirani 1993, chapter 13), seeded.
    """
    paired = np.subtract(won, other)
    chosen = np.random.default_rng(0).integers(len(paired), size=(_RESAMPLES, len(paired)))
    low, high = np.percentile(paired[chosen].mean(1), [2.5, 97.5])
    return float(paired.mean()), float(low), float(high)


def _test(model: str, options: argparse.Namespace) -> PhotoTest:
    with Segmenter.from_pretrained(model) as segmenter:
        result = photo_test(
            segmenter, options.folder, count=options.names, seed=options.seed, draws=options.draws
        )
    print(f"{model}: {result.largest:.1%} of {result.photos} photos won, {result.pixels:.1%} of the pixels")
    return result


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__)
    parser.add_argument("folder", type=Path, help="photos named after their content")
    parser.add_argument("--model", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    parser.add_argument("--names", type=positive, default=20, help="names per photo (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the names (default: %(default)s)")
    parser.add_argument("--draws", type=positive, default=1, help="draws per photo (default: %(default)s)")
    parser.add_argument("--against", metavar="MODEL", help="another model to compare with, name or folder")
    options = parser.parse_args()
    result = _test(options.model, options)
    for photo, winner in list(result.lost.items())[:10]:
        print(f"  lost: {photo} to {winner}")
    content = {**dataclasses.asdict(result), "seed": options.seed, "draws": options.draws}
    if options.against:
        other = _test(options.against, options)
        mean, low, high = difference(result.won, other.won)
        interval = f"{100 * low:+.2f} to {100 * high:+.2f} with 95 % confidence"
        print(f"difference: {100 * mean:+.2f} points, {interval}")
        content |= {"against": dataclasses.asdict(other), "difference": mean, "interval": [low, high]}
    files = {name: entry["sha256"] for name, entry in find_bundle(options.model).files.items()}
    store(options.json, {"files": files, **content})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("photo_test", main))
