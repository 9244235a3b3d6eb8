"""A t-SNE map of the learned clusters among words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.support.packages import imported
from training.figures.clusters import Clustered
from training.figures.grid import literal, new_figure
from training.figures.names import WordVectors

__all__ = ["draw_tsne", "project"]

Floats = npt.NDArray[np.float32]

_MIN_POINTS = 5
_PERPLEXITY = 30  # scikit-learn's default; less for few points
_LABELLED_CLUSTERS = 40
_LABELLED_WORDS = 400  # the most that are tried
_MARK_PX = 6  # free pixels around the centre of a mark
_SPARSE_PX = 16  # free pixels around the label of a word


def project(points: Floats, seed: int = 0) -> Floats:
    """Project unit vectors `(N, D)` to the plane by t-SNE (van der Maaten and Hinton 2008): `(N, 2)`."""
    if len(points) < _MIN_POINTS:
        raise PixelClipError(
            f"t-SNE of {len(points)} points; expected at least {_MIN_POINTS}. Give more words or a run with "
            "more clusters."
        )
    if not np.isfinite(points).all():
        raise PixelClipError("t-SNE of points that are not finite; expected finite embeddings")
    perplexity = min(_PERPLEXITY, (len(points) - 1) / 3)
    tsne = imported("sklearn.manifold").TSNE(perplexity=perplexity, init="pca", random_state=seed)
    return tsne.fit_transform(points)


def draw_tsne(
    words: WordVectors, clustered: Clustered, classes: Sequence[str], nearest: Sequence[str]
) -> Any:
    """Draw a map of a run's clusters among words.

    Words are grey dots, classes black diamonds, clusters discs in their colour; the area of a disc grows with
    its number of masks, and clusters without a mask are rings. Classes, the most used clusters (number and
    nearest name) and some words are labelled. A label that would overlap another one is left out.
    """
    flat = project(np.concatenate([words.embeddings, words.clusters]))
    points, clusters = flat[: len(words.names)], flat[len(words.names) :]
    is_class = np.isin(words.names, list(classes))
    figure = new_figure(15, 10.5)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.scatter(*points[~is_class].T, s=8, color="0.78", linewidth=0)
    # Large discs first, so that small ones stay visible.
    order = np.argsort(-clustered.used, kind="stable")
    used, unused = order[clustered.used[order] > 0], order[clustered.used[order] == 0]
    colours = clustered.colours / 255
    areas = 40 + 300 * clustered.used[used] / max(int(clustered.used.max()), 1)
    axes.scatter(*clusters[used].T, s=areas, c=colours[used], edgecolor="white")
    axes.scatter(*clusters[unused].T, s=40, facecolor="none", edgecolor=colours[unused])
    axes.scatter(*points[is_class].T, s=70, marker="D", color="black")

    figure.draw_without_rendering()  # fixes the transforms that the placement needs
    names, labelled = np.array(words.names), used[:_LABELLED_CLUSTERS]
    # Shuffled, because word lists are alphabetical and the first labels find room.
    shuffled = np.random.default_rng(0).permutation(np.flatnonzero(~is_class))[:_LABELLED_WORDS]
    box = imported("matplotlib.transforms").Bbox.from_extents
    marks = axes.transData.transform(np.concatenate([points[is_class], clusters[used]]))
    taken = [box(x - _MARK_PX, y - _MARK_PX, x + _MARK_PX, y + _MARK_PX) for x, y in marks]
    _place_labels(axes, names[is_class], points[is_class], taken, fontsize=14, color="black")
    numbered = [f"{i} {nearest[i]}" for i in labelled]
    _place_labels(axes, numbered, clusters[labelled], taken, fontsize=10, color="0.1")
    _place_labels(axes, names[shuffled], points[shuffled], taken, _SPARSE_PX, fontsize=8, color="0.5")
    return figure


def _place_labels(
    axes: Any, texts: Sequence[str], points: Floats, taken: list[Any], margin: float = 0, **style: Any
) -> None:
    """Write each text beside its point, unless it would overlap a box in `taken`; add its box to them."""
    places = [((9, 0), "left", "center"), ((-9, 0), "right", "center")]
    places += [((0, 9), "center", "bottom"), ((0, -9), "center", "top")]
    for text, point in zip(texts, points, strict=True):
        for offset, ha, va in places:
            label = axes.annotate(
                literal(text), point, offset, textcoords="offset points", ha=ha, va=va, **style
            )
            box = label.get_window_extent()
            if not box.padded(margin).count_overlaps(taken):
                taken.append(box)
                break
            label.remove()
