"""A source of single pictures: the image files of a folder, or an iterable."""

import logging
import os
import time
from collections.abc import Generator, Iterable, Iterator, Sized
from fractions import Fraction
from pathlib import Path

import numpy as np

from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.image import ChannelOrder, ImageInput, load_image
from pixelclip_sdk.support.images import RESULT_SUFFIXES, find_images
from pixelclip_sdk.video.frames import Frame

__all__ = ["PictureSource", "open_folder"]

_log = logging.getLogger(__name__)


class PictureSource:
    """Pictures from an iterable.

    Attributes:
        skip_damaged: Whether unreadable files are logged and counted as damaged instead of raising. Arrays
            that cannot be used always raise, and so does the last file if all are unreadable.
        raised: The exception that the iterable raised, if any. It reaches the caller unchanged.
    """

    live: bool = False
    fps: Fraction | None = None

    def __init__(self, pictures: Iterable[ImageInput], channel_order: ChannelOrder, name: str) -> None:
        self.name = name
        self.count: int | None = len(pictures) if isinstance(pictures, Sized) else None
        self.skip_damaged = False
        self.raised: Exception | None = None
        self._pictures = pictures
        self._order = channel_order

    def __iter__(self) -> Generator[Frame, None, None]:
        given = damaged = 0
        failure: ImageError | None = None
        for picture in self._recorded():
            start = time.perf_counter()
            try:
                image = load_image(picture, self._order)
            except ImageError as error:
                if not self.skip_damaged or not isinstance(picture, str | os.PathLike | bytes):
                    raise
                _log.warning("%s. Skipped.", error)
                failure = error
                damaged += 1
                continue
            # An iterable may write its next frame into the same memory.
            if isinstance(picture, np.ndarray) and np.may_share_memory(image, picture):
                image = image.copy()
            yield Frame(image, None, (time.perf_counter() - start) * 1e3, damaged)
            given += 1
        if failure is not None and not given:
            raise failure

    def _recorded(self) -> Iterator[ImageInput]:
        try:
            # `yield from` would close a generator that its owner continues to use.
            for picture in self._pictures:  # noqa: UP028
                yield picture
        except Exception as error:
            self.raised = error
            raise

    def close(self) -> None:
        """Drop the iterable. A generator that nobody else references ends and releases its camera."""
        self._pictures = ()


def open_folder(folder: Path) -> PictureSource:
    """Open the image files of a folder in natural order, without hidden files and results of `predict`."""
    files = [file for file in find_images(folder) if not file.name.endswith(RESULT_SUFFIXES)]
    if not files:
        raise ImageError(
            f"the folder {folder} has only results ({', '.join(RESULT_SUFFIXES)}); expected pictures"
        )
    return PictureSource(files, "rgb", str(folder))
