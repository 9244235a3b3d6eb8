"""Sources of single pictures: a folder of image files, and an iterable of pictures."""

import logging
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
        damaged = 0
        for file in self._files:
            start = time.perf_counter()
            try:
                image = load_image(file)
            except ImageError as error:
                damaged += 1
                if not self.skip_damaged or damaged == len(self._files):
                    raise
                _log.warning("%s. Skipped.", error)
                continue
            yield Frame(image, None, (time.perf_counter() - start) * 1e3, damaged)

    def close(self) -> None:
        """Do nothing: no file is held open."""


class IterableSource:
    """Pictures from an iterable.

    Attributes:
        raised: The exception that the iterable raised, if any. It reaches the caller unchanged.
    """

    live: bool = False
    fps: Fraction | None = None

    def __init__(self, pictures: Iterable[ImageInput], channel_order: ChannelOrder) -> None:
        self.name = f"iterable ({type(pictures).__name__})"
        self.count: int | None = len(pictures) if isinstance(pictures, Sized) else None
        self.raised: Exception | None = None
        self._pictures = pictures
        self._order = channel_order

    def __iter__(self) -> Generator[Frame, None, None]:
        for picture in self._recorded():
            start = time.perf_counter()
            image = load_image(picture, self._order)
            # The iterable may write its next frame into the same memory.
            if isinstance(picture, np.ndarray) and np.may_share_memory(image, picture):
                image = image.copy()
            yield Frame(image, None, (time.perf_counter() - start) * 1e3, 0)

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
