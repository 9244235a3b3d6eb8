"""Which photos lie in a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PICTURES", "files_below"]

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
"""Endings of photos, in small letters."""


def files_below(folder: Path, endings: set[str]) -> Iterator[Path]:
    """The files in a folder, at any depth and behind links to folders, each folder once; hidden ones are not.

    Args:
        folder: Where to look; a folder that does not exist has none.
        endings: As in `PICTURES`, with the dot and in small letters.
    """
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in endings:
                yield Path(place, name)
