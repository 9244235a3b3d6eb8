"""Which words fit too many photos? ``python export/damping.py --bundle BUNDLE --photos DIR``.

The cosines of some words vary far more from place to place than those of others: pixelclip-lite's "dog" wins
pixels of nearly every photo. Where the standard deviation of a word's cosine over everyday photos is above a
limit, the SDK divides the cosines so that it is the limit (docs/adr/0022). The standard deviation of any word
is computed from its embedding v and the covariance C of the features: the root of ``v @ C @ v``.

Photos need no labels. The folder is searched for images, each counts alike. The bundle gets a file with the
largest principal components of the covariance (`Bundle.damping`).
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from export.embed_text import file_entry, replace_files
from export.staging import bundle_lock
from pixelclip_sdk import Bundle, PixelClipError, Segmenter
from pixelclip_sdk.bundle import DAMPING
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.support.images import find_images

__all__ = ["add_damping", "damping_matrix", "main"]

_LARGEST = 0.15
_COMPONENTS = 128


def damping_matrix(features: Iterable[npt.NDArray[np.float32]], largest: float) -> npt.NDArray[np.float32]:
    """Return the matrix `(R, D)` of `Bundle.damping`.

    Args:
        features: Of each photo, `(h, w, D)`.
        largest: Standard deviation of a cosine over photos above which a word is damped.

    Raises:
        PixelClipError: There are no features.
    """
    count, total, products = 0, np.zeros(()), np.zeros(())
    for grid in features:
        cells = grid.reshape(-1, grid.shape[-1]).astype(np.float64)
        cells /= np.linalg.norm(cells, axis=1, keepdims=True)
        count, total, products = (
            count + 1,
            total + cells.mean(axis=0),
            products + cells.T @ cells / len(cells),
        )
    if not count:
        raise PixelClipError("there are no photos to measure words on")
    mean = total / count
    variances, directions = np.linalg.eigh(products / count - np.outer(mean, mean))
    kept = slice(-_COMPONENTS, None)
    deviations = np.sqrt(np.maximum(variances[kept], 0))
    return (directions[:, kept] * (deviations / largest)).T.astype(np.float32)


def add_damping(bundle: Bundle, matrix: npt.NDArray[np.float32]) -> Bundle:
    """Write a matrix into a bundle, instead of the one that it has; return the changed bundle."""
    with bundle_lock(bundle.path):
        bundle = Bundle.open(bundle.path)  # Another process may have replaced it.
        before = bundle.damping_file
        name = "damping.2.f16" if before == DAMPING else DAMPING
        with atomic_write(bundle.path / name) as temporary:
            matrix.astype("<f2").tofile(temporary)
        return replace_files(bundle, {name: file_entry(bundle.path / name)}, [before] if before else [])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="damping.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bundle", required=True, help="the bundle's folder, or a model's name")
    parser.add_argument(
        "--photos", type=path, nargs="+", required=True, metavar="DIR", help="folders of everyday photos"
    )
    options = parser.parse_args(arguments)
    return run_command("damping", lambda: _run(options.bundle, options.photos))


def _run(name: str, folders: Sequence[Path]) -> int:
    bundle = find_bundle(name)
    photos = [photo for folder in folders for photo in find_images(folder)]
    with Segmenter.from_pretrained(bundle.path) as segmenter:
        seen = tqdm(photos, unit="photo", disable=None)
        matrix = damping_matrix((segmenter.features(photo) for photo in seen), _LARGEST)
    bundle = add_damping(bundle, matrix)
    file = bundle.damping_file
    assert file is not None
    print(f"{len(photos)} photos → {bundle.path / file} ({bundle.files[file]['size'] / 1e3:.0f} kB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
