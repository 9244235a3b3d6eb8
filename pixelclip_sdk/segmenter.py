"""Segmenter: words and pictures in, label maps out."""

import io
import logging
import math
import numbers
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.backends.base import Backend
from pixelclip_sdk.backends.batches import batched_logits
from pixelclip_sdk.bundle import Bundle, InputSpec
from pixelclip_sdk.errors import ImageError, PixelClipError, VocabularyError
from pixelclip_sdk.image import ChannelOrder, ImageInput, Picture, open_image, picture_size
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.postprocess import covered_cells, labels_upsampled
from pixelclip_sdk.preprocess import covered, fit
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.support.clock import Clock
from pixelclip_sdk.words.resolver import Words
from pixelclip_sdk.words.vocabulary import Classes, Encoder, Vocabulary

if TYPE_CHECKING:
    from pixelclip_sdk.video.pipeline import Buffer, OnError
    from pixelclip_sdk.video.sources import SourceInput

__all__ = ["Segmenter"]

_log = logging.getLogger(__name__)


class Segmenter:
    """An image encoder with a vocabulary. Safe to call from several threads at once.

    Most people make one with `from_pretrained`.

    Args:
        backend: The loaded image encoder; the segmenter closes it.
        input_spec: The sizes it takes.
        vocabulary: The classes to start with, or None to set them later.
        text_encoder: What embeds new words; None if there are only precomputed vocabularies.
        bundle: Where the model comes from, if it does.
        threshold: Pixels whose best cosine is below it become unknown; None for none.
        threads: CPU threads of the bundle's text encoder; None for all.

    Raises:
        PixelClipError: `threshold` is no number.
        VocabularyError: The vocabulary is of another model.
    """

    def __init__(
        self,
        backend: Backend,
        input_spec: InputSpec,
        *,
        vocabulary: Vocabulary | None = None,
        text_encoder: Encoder | None = None,
        bundle: Bundle | None = None,
        threshold: float | None = None,
        threads: int | None = None,
    ) -> None:
        self._backend = backend
        self._input = input_spec
        self._words = Words(bundle, text_encoder, backend.embedding_dim, threads)
        self._vocabulary: Vocabulary | None = None
        self.bundle = bundle
        self.threshold = threshold
        if vocabulary is not None:
            self.set_classes(vocabulary)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] = "pixelclip-lite",
        *,
        backend: str | os.PathLike[str] = "auto",
        device: str = "auto",
        classes: Classes | Vocabulary | None = None,
        threshold: float | None = None,
        threads: int | None = None,
        input_size: tuple[int, int] | None = None,
    ) -> Self:
        """Load a model from this machine. Nothing is downloaded.

        Args:
            name_or_path: A model's name (see `pixelclip models`) or a bundle's folder.
            backend: ``"onnx"``, ``"onnx-cuda"``, ``"onnx-tensorrt"``, ``"tensorrt"``, the path of an engine
                (`.plan`), or ``"auto"``: the bundle's engine if it has one that runs here, else ``"onnx"``.
            device: ``"cpu"``, ``"gpu"``, e.g. ``"gpu:1"``, or ``"auto"``: the CPU for ``"onnx"``, the first
                GPU for the others.
            classes: The words to find, or a `Vocabulary`; None to call `set_classes` later.
            threshold: Pixels whose best cosine is below it become unknown; None for none.
            threads: CPU threads for one picture; None for all that this process may use, which a stream
                divides among the two frames that it has under way.
            input_size: Nominal input `(H, W)` of a model whose size is free: a picture is scaled to about so
                many pixels. Smaller is faster, larger sees smaller things. None for the model's own.

        Raises:
            ModelNotFoundError: There is no such model.
            BundleError: The model's files are incomplete or damaged, or it does not take `input_size`.
            BackendUnavailableError: The backend or device is not there.
            BackendError: The engine does not load, or was compiled from or for something else.
            VocabularyError: The words cannot be used.
            PixelClipError: `threshold` is no number.
        """
        # Imported here so that `import pixelclip_sdk` stays light.
        from pixelclip_sdk.backends.choose import open_backend, spec_of

        _checked_threshold(threshold)
        bundle = find_bundle(name_or_path)
        spec = bundle.input if input_size is None else bundle.input.resized(input_size)
        engine = open_backend(bundle, backend, device, threads)
        try:
            spec = spec_of(engine, spec, resized=input_size is not None)
            _log.info("%s: backend %s", bundle.name, engine.description)
            segmenter = cls(engine, spec, bundle=bundle, threshold=threshold, threads=threads)
            if classes is not None:
                segmenter.set_classes(classes)
        except BaseException:
            engine.close()
            raise
        return segmenter

    @property
    def vocabulary(self) -> Vocabulary:
        """The words now in use.

        Raises:
            VocabularyError: None were set.
        """
        if self._vocabulary is None:
            raise VocabularyError("no classes are set; call set_classes(['cat', 'sofa']) or pass classes=")
        return self._vocabulary

    @property
    def backend(self) -> str:
        """What runs the model, for people: engine, device, threads."""
        return self._backend.description

    def set_classes(self, classes: Classes | Vocabulary) -> Vocabulary:
        """Change the words. Takes effect for the next picture; pictures under way keep the old ones.

        Args:
            classes: ``["cat", "sofa"]``, ``"cat, sofa"``, with synonyms ``{"cat": ["cat", "kitten"]}``; a
                `Vocabulary`; or the name of a list, ``"voc-20"``: one precomputed in the bundle, which needs
                no text encoder, or one of `pixelclip_sdk.words.classes.class_lists`.

        Returns:
            The vocabulary now in use.

        Raises:
            VocabularyError: The words cannot be used, there is no list of that name, or the vocabulary
                belongs to another model. The words that were set before stay.
            BundleError: The model has no text encoder, and these are words.
            BackendError: The segmenter is closed, or the text encoder failed.
        """
        vocabulary = self._words.resolve(classes)
        self._vocabulary = vocabulary  # One reference: readers see the old one or the new one, whole.
        return vocabulary

    def warm_up(self, size: tuple[int, int] | None = None) -> None:
        """Segment a grey picture and forget it: the first real one then takes little longer than others.

        An engine allocates its memory, and on a GPU picks its kernels, with the first input of a size, and
        Pillow loads its decoders with the first file.

        Args:
            size: `(H, W)` of the pictures to come; None for the model's nominal input.

        Raises:
            ImageError: `size` is no size.
            VocabularyError: No classes are set.
            BackendError: The engine is closed or failed.
        """
        height, width = size or (self._input.height, self._input.width)
        if min(height, width) < 1:
            raise ImageError(f"size is {height}×{width}; expected (H, W) of at least 1×1")
        grey = io.BytesIO()  # As a file: Pillow loads its decoders with the first one.
        Image.new("RGB", (width, height), (128, 128, 128)).save(grey, "JPEG")
        self.predict(grey.getvalue())

    def predict(
        self, image: ImageInput, *, channel_order: ChannelOrder = "rgb", threshold: float | None = None
    ) -> Segmentation:
        """Segment one picture.

        Args:
            image: A path, the bytes of an image file, a PIL image, or a uint8 array `(H, W, 3)`, 0–255.
            channel_order: Order of an array's channels; OpenCV's is ``"bgr"``.
            threshold: Overrides the segmenter's own.

        Raises:
            ImageError: The picture cannot be used.
            VocabularyError: No classes are set.
            BackendError: The engine is closed or failed.
            PixelClipError: `threshold` is no number.
        """
        return self.predict_batch([image], channel_order=channel_order, threshold=threshold)[0]

    __call__ = predict

    def predict_batch(
        self,
        images: Iterable[ImageInput],
        *,
        channel_order: ChannelOrder = "rgb",
        threshold: float | None = None,
    ) -> list[Segmentation]:
        """Segment several pictures with the same words; the results equal those of single calls.

        Pictures of one size go through the model together, up to 16 at a time. All pictures and results
        are in memory at once: feed long lists in pieces.

        Args:
            images: Pictures; see `predict`. Also one array `(N, H, W, 3)`.
            channel_order: Order of the arrays' channels.
            threshold: Overrides the segmenter's own.

        Returns:
            One result a picture, in their order.

        Raises:
            ImageError: A picture cannot be used; the message says which.
            VocabularyError: No classes are set.
            BackendError: The engine is closed or failed.
            PixelClipError: `threshold` is no number.
        """
        one = isinstance(images, str | bytes | bytearray) or not isinstance(images, Iterable)
        if one or (isinstance(images, np.ndarray) and images.ndim != 4):
            raise ImageError(
                f"images is one {type(images).__name__}; expected a list of pictures. For one call predict."
            )
        return self._segment(
            list(images), self.vocabulary, self._limit(threshold), channel_order, self._backend
        )

    def stream(
        self,
        *sources: "SourceInput",
        buffer: "Buffer" = "auto",
        channel_order: ChannelOrder = "rgb",
        threshold: float | None = None,
        on_error: "OnError" = "raise",
    ) -> Generator[Segmentation, None, None]:
        """Segment video, frame by frame, with decoding and all other stages of several frames at once.

        Words may be changed meanwhile. Leaving the loop, or closing the iterator, ends all threads and
        releases the sources. Results are yours: nothing is written to them again.

        Args:
            sources: Each a video file, a folder of images, a camera (``0`` or ``"/dev/video0"``), an address
                (``"rtsp://…"``) or an iterable of uint8 arrays `(H, W, 3)`. Several share the engine in
                turns; `Segmentation.frame` says whose a result is.
            buffer: For frames that come faster than results. ``"latest"``: a newer one takes their place, and
                results that you do not fetch in time are replaced as well; both are counted as dropped.
                ``"all"``: the source waits. ``"auto"``: ``"latest"`` for cameras and live addresses, else
                ``"all"``.
            channel_order: Order of the arrays' channels; OpenCV's is ``"bgr"``.
            threshold: Overrides the segmenter's own.
            on_error: A source that breaks off ends all (``"raise"``), or, of several, itself (``"skip"``); or
                a camera or live address is opened again, every second, until it is back (``"reopen"``).

        Returns:
            Results, each source's in the order of its frames.

        Raises:
            ImageError: A source cannot be opened, breaks off, or a frame of it cannot be used.
            BackendUnavailableError: Video takes PyAV, which is not installed.
            VocabularyError: No classes are set.
            BackendError: The engine is closed or failed.
            PixelClipError: `threshold` is no number.
        """
        from pixelclip_sdk.video.pipeline import WORKERS, segment_frames

        def begin() -> Callable[[npt.NDArray[np.uint8]], Segmentation]:
            vocabulary, limit = self.vocabulary, self._limit(threshold)
            return lambda image: self._segment([image], vocabulary, limit, "rgb", engine)[0]

        begin()  # What is wrong with the words is said here, not at the first frame.
        engine = self._backend.shared(WORKERS)
        return segment_frames(begin, sources, buffer=buffer, channel_order=channel_order, on_error=on_error)

    @property
    def threshold(self) -> float | None:
        """Pixels whose best cosine is below it become unknown; None for none."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float | None) -> None:
        self._threshold = _checked_threshold(value)

    def _limit(self, threshold: float | None) -> float | None:
        return self._threshold if threshold is None else _checked_threshold(threshold)

    def _segment(
        self,
        images: Sequence[ImageInput],
        vocabulary: Vocabulary,
        limit: float | None,
        channel_order: ChannelOrder,
        engine: Backend,
    ) -> list[Segmentation]:
        """What `predict_batch` does, with words and an engine that are already chosen."""
        pictures: list[Picture] = []
        inputs: list[npt.NDArray[np.uint8]] = []
        speeds: list[dict[str, float]] = []
        for i, source in enumerate(images):
            clock = Clock()
            try:
                picture = open_image(source, channel_order=channel_order)
            except ImageError as error:
                if len(images) > 1:
                    raise ImageError(f"image {i} of {len(images)}: {error}") from error
                raise
            clock.lap("decode")
            inputs.append(fit(picture, self._input))
            clock.lap("preprocess")
            pictures.append(picture)
            speeds.append(clock.laps)
        logits = batched_logits(engine, inputs, vocabulary.embeddings, speeds)
        results = []
        for picture, grid, speed in zip(pictures, logits, speeds, strict=True):
            clock = Clock(speed)
            size = picture_size(picture)
            part = covered(size, self._input)
            labels = labels_upsampled(grid, size, limit, part)
            clock.lap("postprocess")
            speed["total"] = sum(speed.values())
            results.append(
                Segmentation(
                    labels=labels,
                    logits=grid,
                    covered=part,
                    names=list(vocabulary.names),
                    image=picture,
                    speed=dict(speed),
                )
            )
        return results

    def features(self, image: ImageInput, *, channel_order: ChannelOrder = "rgb") -> npt.NDArray[np.float32]:
        """Dense embeddings of one picture, to compare with texts or with each other.

        Args:
            image: A picture; see `predict`.
            channel_order: Order of an array's channels.

        Returns:
            `(h, w, D)` float32, one embedding a grid cell. Cells of padding alone are left out, where a
            model of a fixed size keeps the picture's aspect.

        Raises:
            ImageError: The picture cannot be used.
            BackendError: The engine is closed or failed.
        """
        picture = open_image(image, channel_order=channel_order)
        features: npt.NDArray[np.float32] = self._backend.features(fit(picture, self._input)[None])[0]
        return features[covered_cells(features.shape[:2], covered(picture_size(picture), self._input))]

    def close(self) -> None:
        """Release the model; later calls raise. Closing twice is harmless."""
        self._words.close()
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name = self.bundle.name if self.bundle else "no bundle"
        return f"Segmenter({name}, {self.backend}, {self._vocabulary or 'no classes'})"


def _checked_threshold(value: float | None) -> float | None:
    # Beyond 1 it leaves nothing, which may be what is wanted.
    if value is not None and (not isinstance(value, numbers.Real) or math.isnan(value)):
        raise PixelClipError(f"threshold is {value!r}; expected a number, a cosine, or None")
    return value
