"""Proposes `min_confidence` from photos that show a class and photos that do not."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.image import ImageInput
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.support.hints import did_you_mean, find_name

__all__ = ["Proposal", "propose_min_confidence"]

MIN_AREA = 0.005
"""A class counts as found if it covers this share of an image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proposal:
    """A limit for one class, and what it does to the photos it was chosen on.

    Attributes:
        min_confidence: The limit, 0–1.
        found: Share of the photos with the class where it is found, 0–1.
        false_alarms: Share of the photos without it where it is found, 0–1.
        photos: Number of photos with the class.
        others: Number of photos without it.

    Examples:
        >>> from pixelclip_sdk import Proposal
        >>> proposal = Proposal(min_confidence=0.4, found=0.9, false_alarms=0.1, photos=10, others=20)
        >>> proposal.min_confidence
        0.4
    """

    min_confidence: float
    found: float
    false_alarms: float
    photos: int
    others: int


def propose_min_confidence(
    segmenter: Segmenter,
    photos: Mapping[str, Sequence[ImageInput]],
    others: Sequence[ImageInput] = (),
    *,
    max_false_alarms: float | None = None,
) -> dict[str, Proposal]:
    """Propose a limit for each class from a few photos.

    A class is found in a photo if at least 0.5 % of the pixels have its label and reach the limit. Of all
    limits, the one with the largest difference between found and false alarms is taken: Youden's J (Youden,
    "Index for rating diagnostic tests", Cancer, 1950). Ten photos of each kind are a start; with fewer the
    limit is mostly chance.

    Args:
        segmenter: With its classes set. All of them compete, as they will later.
        photos: Class → photos that show it. They are also the photos without the other classes. A photo that
            shows several classes must be listed with each of them: as the same path or the same object.
        others: Photos that show none of the classes of `photos`.
        max_false_alarms: Largest share of false alarms, 0–1; the limit that finds most is taken. None for
            Youden's J.

    Returns:
        Class → proposal. Assign the limits:
        ``segmenter.min_confidence = {name: p.min_confidence for name, p in proposals.items()}``.

    Raises:
        PixelClipError: A name is no class, or there are no photos with or without a class.
        ImageError: A photo cannot be used.

    Examples:
        >>> import numpy as np
        >>> from pixelclip_sdk import Segmenter, propose_min_confidence
        >>> black, white = (np.full((48, 64, 3), value, np.uint8) for value in (0, 255))
        >>> with Segmenter.from_pretrained(classes="night, snow, cat") as segmenter:
        ...     proposals = propose_min_confidence(segmenter, {"night": [black], "snow": [white]})
        >>> sorted(proposals)
        ['night', 'snow']
    """
    if max_false_alarms is not None and not 0 <= max_false_alarms <= 1:
        raise PixelClipError(f"max_false_alarms is {max_false_alarms}; expected 0 to 1")
    names = {name: _class(name, segmenter) for name in photos}
    shown: dict[object, tuple[ImageInput, set[str]]] = {}
    for name, images in photos.items():
        for image in images:
            shown.setdefault(_key(image), (image, set()))[1].add(name)
    for image in others:
        shown.setdefault(_key(image), (image, set()))
    reached: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in photos}
    for image, there in shown.values():
        result = segmenter.predict(image, min_confidence=0)
        for name, (present, absent) in reached.items():
            (present if name in there else absent).append(_reached(result, names[name]))
    for name, (present, absent) in reached.items():
        if not present or not absent:
            kind = "without" if present else "with"
            raise PixelClipError(f"there are no photos {kind} {name!r}; expected some of both kinds")
    return {name: _best(*pair, max_false_alarms) for name, pair in reached.items()}


def _class(name: str, segmenter: Segmenter) -> str:
    classes = segmenter.vocabulary.names
    if found := find_name(name, classes):
        return found
    raise PixelClipError(
        f"there are photos of {name!r}, which is no class.{did_you_mean(name, classes)} "
        f"Classes: {', '.join(classes[:20])}"
    )


def _key(image: ImageInput) -> object:
    return str(image) if isinstance(image, str) or hasattr(image, "__fspath__") else id(image)


def _reached(result: Segmentation, name: str) -> float:
    """The largest limit with which the class still covers `MIN_AREA`; 0 if it never does."""
    confidences = result.confidence[result.mask(name)]
    needed = max(int(np.ceil(MIN_AREA * result.labels.size)), 1)
    if len(confidences) < needed:
        return 0.0
    return float(np.partition(confidences, len(confidences) - needed)[len(confidences) - needed])


def _best(present: list[float], absent: list[float], max_false_alarms: float | None) -> Proposal:
    """The best limit between the values that photos with the class and photos without it reach."""
    values = np.unique([0.0, *present, *absent])
    limits = np.append((values[:-1] + values[1:]) / 2, min(float(values[-1]) + 1e-3, 1.0))
    found = (np.array(present)[:, None] >= limits).mean(axis=0)
    alarms = (np.array(absent)[:, None] >= limits).mean(axis=0)
    if max_false_alarms is None:
        choice = int(np.argmax(found - alarms))
    else:
        few = np.flatnonzero(alarms <= max_false_alarms)
        choice = int(few[0]) if len(few) else len(limits) - 1  # The lowest limit finds most.
    return Proposal(
        min_confidence=round(float(limits[choice]), 3),
        found=float(found[choice]),
        false_alarms=float(alarms[choice]),
        photos=len(present),
        others=len(absent),
    )
