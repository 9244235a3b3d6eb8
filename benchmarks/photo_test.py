"""Does a photo's own name win? ``python benchmarks/photo_test.py FOLDER``.

The folder holds photos of one thing each, named after it: ``n02123045_tabby_cat.jpg`` or ``tabby_cat.jpg``.
Each is segmented with 20 names: its own and 19 drawn with a fixed seed from the other photos' names. It
counts when its own name covers the largest area. Chance is 5 %. ``--draws`` repeats that with other names,
and ``--against MODEL`` compares two models on the same photos and names, with an interval of confidence: a
few photos more or less are chance.
"""

import argparse
import dataclasses
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness.stored import store
from pixelclip_sdk import Segmenter, Vocabulary
from pixelclip_sdk.benchmark import environment
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.command import run_command

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class PhotoTest:
    """Result of the test.

    Attributes:
        photos: Number of photos.
        names: Names a photo was segmented with.
        largest: Share of photos in which the own name covers the largest area, the mean of all draws.
        pixels: Mean share of a photo that its own name covers.
        lost: File name → the name that won instead, in the first draw.
        won: Share of the draws in which each photo's own name won, in the order of the files' names.
    """

    photos: int
    names: int
    largest: float
    pixels: float
    lost: dict[str, str]
    won: tuple[float, ...]


def name_of(photo: Path) -> str:
    """``n02123045_Siamese_cat.jpg`` → ``siamese cat``: class names do not differ by capitals alone."""
    return re.sub(r"^n\d{8}_", "", photo.stem).replace("_", " ").lower()


def draw_names(photo: Path, names: list[str], count: int, seed: int) -> list[str]:
    """The photo's own name and `count - 1` others, shuffled; depends on the file's name and the seed only."""
    rng = random.Random(f"{seed}/{photo.name}")
    own = name_of(photo)
    drawn = [own, *rng.sample([name for name in names if name != own], count - 1)]
    rng.shuffle(drawn)
    return drawn


def photo_test(
    segmenter: Segmenter, folder: Path, *, count: int = 20, seed: int = 0, draws: int = 1
) -> PhotoTest:
    """Run the test on all photos of a folder.

    Args:
        segmenter: A model with a text encoder; its classes are replaced.
        folder: The photos.
        count: Names a photo is segmented with.
        seed: Of the first draw of names; those of the others follow it.
        draws: How often each photo is segmented, with other names each time.
    """
    photos = sorted(photo for photo in folder.iterdir() if photo.suffix.lower() in _SUFFIXES)
    names = sorted({name_of(photo) for photo in photos})
    if len(names) < count:
        raise SystemExit(f"{folder} has photos of {len(names)} names; expected at least {count}")
    known = segmenter.set_classes(names)
    row = {name: i for i, name in enumerate(known.names)}
    shares, won, lost = [], [], {}
    for photo in photos:
        own, wins = name_of(photo), 0
        for draw in range(draws):
            drawn = draw_names(photo, names, count, seed + draw)
            segmenter.set_classes(
                Vocabulary(names=drawn, embeddings=known.embeddings[[row[name] for name in drawn]])
            )
            areas = segmenter.predict(photo).areas()
            shares.append(areas[own])
            winner = next(iter(areas))
            wins += winner == own
            if winner != own and draw == 0:
                lost[photo.name] = winner
        won.append(wins / draws)
    return PhotoTest(len(photos), count, float(np.mean(won)), float(np.mean(shares)), lost, tuple(won))


def difference(won: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """How much more often the first wins, and between what that lies with 95 % confidence.

    The percentile bootstrap over photos, paired (Efron and Tibshirani 1993, chapter 13), seeded.

    Args:
        won: `PhotoTest.won` of a model.
        other: That of another, of the same photos.
    """
    paired = np.subtract(won, other)
    chosen = np.random.default_rng(0).integers(len(paired), size=(_RESAMPLES, len(paired)))
    low, high = np.percentile(paired[chosen].mean(1), [2.5, 97.5])
    return float(paired.mean()), float(low), float(high)


def _test(model: str, options: argparse.Namespace) -> PhotoTest:
    with Segmenter.from_pretrained(model) as segmenter:
        return photo_test(
            segmenter, options.folder, count=options.names, seed=options.seed, draws=options.draws
        )


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="photos named after what they show")
    parser.add_argument("--model", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    parser.add_argument("--names", type=positive, default=20, help="names a photo (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of names (default: %(default)s)")
    parser.add_argument(
        "--draws", type=positive, default=1, help="times a photo gets other names (default: %(default)s)"
    )
    parser.add_argument("--against", metavar="MODEL", help="another model, name or folder, to compare with")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as well")
    options = parser.parse_args()
    result, *others = (
        _test(model, options) for model in (options.model, options.against) if model is not None
    )
    print(
        f"{options.model}: {result.photos} photos, {result.names} names each, seed {options.seed}"
        + (f" and the {options.draws - 1} after it" if options.draws > 1 else "")
    )
    print(f"own name covers the largest area   {result.largest:6.1%} of the photos")
    print(f"own name covers                    {result.pixels:6.1%} of the pixels")
    for photo, winner in list(result.lost.items())[:10]:
        print(f"  lost: {photo} to {winner}")
    if len(result.lost) > 10:
        print(f"  … and {len(result.lost) - 10} more")
    content = {**dataclasses.asdict(result), "seed": options.seed, "draws": options.draws}
    for other in others:
        more, low, high = difference(result.won, other.won)
        print(f"{options.against}: {other.largest:.1%} of the photos, {other.pixels:.1%} of the pixels")
        print(
            f"{options.model} beside it: {100 * more:+.2f} points, {100 * low:+.2f} to {100 * high:+.2f} "
            "with 95 % confidence"
        )
        content |= {"against": dataclasses.asdict(other), "difference": more, "interval": [low, high]}
    if options.json:
        files = {name: entry["sha256"] for name, entry in find_bundle(options.model).files.items()}
        store(options.json, {"files": files, **content, "environment": environment()})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("photo_test", main))
