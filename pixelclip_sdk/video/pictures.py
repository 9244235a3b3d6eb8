"""Sources of single pictures: a folder of image files, and an iterable of pictures."""

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

__all__ = ["FolderSource", "IterableSource"]

_log = logging.getLogger(__name__)


class FolderSource:
    """The image files of a folder, in natural order: 2 before 10.

    Hidden files and pictures that `pixelclip predict` wrote there are left out.

    Attributes:
        skip_damaged: Whether unreadable files are logged and counted as damaged instead of raising.
    """

    live: bool = False
    fps: Fraction | None = None

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self.skip_damaged = False
        self._files = [file for file in find_images(folder) if not file.name.endswith(RESULT_SUFFIXES)]
        if not self._files:
            raise ImageError(
                f"the folder {folder} has only results ({', '.join(RESULT_SUFFIXES)}); expected pictures"
            )
        self.count: int | None = len(self._files)

    def __iter__(self) -> Generator[Frame, None, None]:
        return _load(self._files, "rgb", skip_damaged=self.skip_damaged)

    def close(self) -> None:
        """Do nothing: no file is held open."""


class IterableSource:
    """Pictures from an iterable.

    Attributes:
        skip_damaged: Whether unreadable files are logged and counted as damaged instead of raising. Arrays
            that cannot be used always raise.
        raised: The exception that the iterable raised, if any. It reaches the caller unchanged.
    """

    live: bool = False
    fps: Fraction | None = None

    def __init__(self, pictures: Iterable[ImageInput], channel_order: ChannelOrder) -> None:
        self.name = f"iterable ({type(pictures).__name__})"
        self.count: int | None = len(pictures) if isinstance(pictures, Sized) else None
        self.skip_damaged = False
        self.raised: Exception | None = None
        self._pictures = pictures
        self._order = channel_order

    def __iter__(self) -> Generator[Frame, None, None]:
        return _load(self._recorded(), self._order, skip_damaged=self.skip_damaged)

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


def _load(
    pictures: Iterable[ImageInput], order: ChannelOrder, *, skip_damaged: bool
) -> Generator[Frame, None, None]:
    """Yield pictures as frames.

    Raises:
        ImageError: A picture cannot be used; with `skip_damaged`, only arrays and the last of all files.
    """
    given = damaged = 0
    failure: ImageError | None = None
    for picture in pictures:
        start = time.perf_counter()
        try:
            image = load_image(picture, order)
        except ImageError as error:
            if not skip_damaged or not isinstance(picture, str | os.PathLike | bytes):
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
