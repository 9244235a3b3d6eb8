"""Does a photo's own name win? ``python benchmarks/photo_test.py FOLDER``.

The folder holds photos of one thing each, named after it: ``n02123045_tabby_cat.jpg`` or ``tabby_cat.jpg``.
Each is segmented with 20 names: its own and 19 drawn with a fixed seed from the other photos' names. It
counts when its own name covers the largest area. Chance is 5 %.
"""

import argparse
import dataclasses
import json
import random
import re
import sys
from pathlib import Path

from pixelclip_sdk import Segmenter, Vocabulary
from pixelclip_sdk.benchmark import environment

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclasses.dataclass(frozen=True)
class PhotoTest:
    """Result of the test.

    Attributes:
        photos: Number of photos.
        names: Names a photo was segmented with.
        largest: Share of photos in which the own name covers the largest area.
        pixels: Mean share of a photo that its own name covers.
        lost: File name → the name that won instead.
    """

    photos: int
    names: int
    largest: float
    pixels: float
    lost: dict[str, str]


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


def photo_test(segmenter: Segmenter, folder: Path, *, count: int = 20, seed: int = 0) -> PhotoTest:
    """Run the test on all photos of a folder.

    Args:
        segmenter: A model with a text encoder; its classes are replaced.
        folder: The photos.
        count: Names a photo is segmented with.
        seed: Of the draw.
    """
    photos = sorted(photo for photo in folder.iterdir() if photo.suffix.lower() in _SUFFIXES)
    names = sorted({name_of(photo) for photo in photos})
    if len(names) < count:
        raise SystemExit(f"{folder} has photos of {len(names)} names; expected at least {count}")
    known = segmenter.set_classes(names)
    row = {name: i for i, name in enumerate(known.names)}
    shares, lost = [], {}
    for photo in photos:
        drawn = draw_names(photo, names, count, seed)
        segmenter.set_classes(
            Vocabulary(names=drawn, embeddings=known.embeddings[[row[name] for name in drawn]])
        )
        areas = segmenter.predict(photo).areas()
        own = name_of(photo)
        shares.append(areas[own])
        if (winner := next(iter(areas))) != own:
            lost[photo.name] = winner
    return PhotoTest(len(photos), count, 1 - len(lost) / len(photos), sum(shares) / len(shares), lost)


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="photos named after what they show")
    parser.add_argument("--model", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    parser.add_argument("--names", type=int, default=20, help="names a photo (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of names (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as well")
    options = parser.parse_args()
    with Segmenter.from_pretrained(options.model) as segmenter:
        result = photo_test(segmenter, options.folder, count=options.names, seed=options.seed)
    print(f"{options.model}: {result.photos} photos, {result.names} names each, seed {options.seed}")
    print(f"own name covers the largest area   {result.largest:6.1%} of the photos")
    print(f"own name covers                    {result.pixels:6.1%} of the pixels")
    for photo, winner in list(result.lost.items())[:10]:
        print(f"  lost: {photo} to {winner}")
    if len(result.lost) > 10:
        print(f"  … and {len(result.lost) - 10} more")
    if options.json:
        content = {**dataclasses.asdict(result), "seed": options.seed, "environment": environment()}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
