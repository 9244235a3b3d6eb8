"""Segmenter: words and images in, label maps out."""

import dataclasses
import functools
import io
import logging
import numbers
import os
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.backends.base import Backend
from pixelclip_sdk.backends.fork import check_process
from pixelclip_sdk.bundle import Bundle, InputSpec
from pixelclip_sdk.device.pipeline import Pipeline, description_of, pipeline_of
from pixelclip_sdk.errors import ImageError, PixelClipError, VocabularyError
from pixelclip_sdk.image import ChannelOrder, ImageInput, open_image, picture_size
from pixelclip_sdk.inference import segment_images
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.postprocess import covered_cells
from pixelclip_sdk.preprocess import covered, fit, input_size
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.settings import Limits, Refine, Settings, check_names, choose_refine, plain_limits
from pixelclip_sdk.smoothing import Smooth, Smoother, Turn
from pixelclip_sdk.tiles import Tiles
from pixelclip_sdk.words.background import Competitors
from pixelclip_sdk.words.classes import NOUNS
from pixelclip_sdk.words.resolver import VocabularyResolver
from pixelclip_sdk.words.vocabulary import Classes, Encoder, Vocabulary

if TYPE_CHECKING:
    from pixelclip_sdk.video.pipeline import Buffer, OnError
    from pixelclip_sdk.video.sources import SourceInput
    from pixelclip_sdk.video.workers import Predict
    from pixelclip_sdk.words.suggestions import Suggestion

__all__ = ["Segmenter"]

_log = logging.getLogger(__name__)


class Segmenter:
    """An image encoder with a vocabulary. Safe to call from several threads at once.

    Use `from_pretrained` to load a model. The constructor combines parts that are already loaded.

    Every method that segments raises VocabularyError if no classes are set, BackendError if the engine is
    closed or failed, and PixelClipError if a setting is out of range.

    A forked child process cannot use its parent's segmenter. A pickled one, as `multiprocessing` sends it to
    spawned workers, loads its model again in the worker.

    Args:
        backend: The loaded image encoder; the segmenter closes it.
        input_spec: The input sizes of the model.
        vocabulary: The classes to start with, or None to set them later.
        text_encoder: Embeds new words; None to use the bundle's.
        bundle: The model's files, or None.
        threshold: Pixels whose best cosine is below it become unknown; None for no threshold.
        min_confidence: Pixels whose confidence is below it become unknown; see `from_pretrained`.
        background: Words that may win pixels, which become unknown; see `from_pretrained`.
        refine: How labels are made; see `from_pretrained`.
        tiles: The largest number of windows of a picture, or ``"auto"``; see `from_pretrained`.
        threads: CPU threads of the bundle's text encoder; None for all.
        deadline_s: Seconds after which a run of the bundle's text encoder is ended; None waits.

    Raises:
        PixelClipError: A setting is not one of its values.
        VocabularyError: The vocabulary belongs to another model.

    Examples:
        >>> import numpy as np
        >>> from pixelclip_sdk import Segmenter
        >>> image = np.zeros((48, 64, 3), np.uint8)
        >>> with Segmenter.from_pretrained("pixelclip-lite", classes=["cat", "sofa"]) as segmenter:
        ...     result = segmenter.predict(image, channel_order="bgr")
        >>> result.labels.shape, result.labels.dtype, result.scores.dtype
        ((48, 64), dtype('uint8'), dtype('float32'))
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
        min_confidence: Limits = None,
        background: Classes | Vocabulary | None = None,
        refine: Refine | None = "auto",
        tiles: Tiles = 1,
        threads: int | None = None,
        deadline_s: float | None = None,
    ) -> None:
        self._backend = backend
        self._input = input_spec
        self._resolver = VocabularyResolver(bundle, text_encoder, backend.embedding_dim, threads, deadline_s)
        self._vocabulary: Vocabulary | None = None
        self._vocabulary_lock = threading.Lock()
        self._calls = 0  # Of set_classes.
        self._vocabulary_call = 0  # The call that set the vocabulary.
        self._reload: Callable[..., Segmenter] | None = None
        self._process = os.getpid()
        self._owns_model = True
        self.bundle = bundle
        self._competitors = Competitors.of_bundle(bundle, most=backend.max_classes)
        self._settings = Settings(
            threshold=threshold,
            min_confidence=min_confidence,
            background=None if background is None else self.embed(background),
            refine=choose_refine(refine, self._recommended),
            tiles=tiles,
        )
        if vocabulary is not None:
            self.set_classes(vocabulary)
            check_names(min_confidence, self.vocabulary.names)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] = "pixelclip-lite",
        *,
        backend: str | os.PathLike[str] = "auto",
        device: str = "auto",
        classes: Classes | Vocabulary | None = None,
        threshold: float | None = None,
        min_confidence: Limits = None,
        background: Classes | Vocabulary | None = None,
        refine: Refine | None = "auto",
        tiles: Tiles = 1,
        threads: int | None = None,
        input_size: tuple[int, int] | None = None,
        deadline_s: float | None = None,
        verify_engine: bool = True,
    ) -> Self:
        """Load a model from this machine. Nothing is downloaded.

        Args:
            name_or_path: A model's name (see `available_models`) or a bundle's folder.
            backend: ``"onnx"``, ``"onnx-cuda"``, ``"onnx-tensorrt"``, ``"openvino"`` (in fp32; also
                ``"openvino-bf16"`` and ``"openvino-fp16"``), ``"tensorrt"``, the path of an engine
                (`.plan`), or ``"auto"``: what runs on an NVIDIA GPU (the newest engine of the bundle that
                was compiled on this machine, ``"onnx-cuda"``, or ``"onnx"`` with its plugin), else the faster
                of ``"onnx"`` and, if it is installed and its labels agree, OpenVINO. Some seconds are spent
                once to measure that. What was chosen, and why, is logged.
            device: ``"cpu"``, ``"gpu"`` (of NVIDIA also ``"cuda"``), one GPU such as ``"gpu:1"``, ``"npu"``
                (with OpenVINO), or ``"auto"``: the CPU for ``"onnx"`` and OpenVINO, else the first GPU.
            classes: The words to find, or a `Vocabulary`; None to call `set_classes` later.
            threshold: Pixels whose best cosine is below it become unknown; None for no threshold.
            min_confidence: Pixels whose confidence, 0–1, is below it become unknown: a number, or
                ``{"cat": 0.5}`` for single classes; None for no limit.
            background: Words that may win pixels, which become unknown; None for none. A word that is also a
                class is a class.
            refine: ``"edges"``: labels follow the edges of the image (see `pixelclip_sdk.refine`). ``"off"``
                or None: the cosines are interpolated, and the largest wins. ``"auto"``: what was measured to
                be better for this model; its bundle says so.
            tiles: For large pictures with small things: the largest number of overlapping windows, 1 to 64,
                through which the model sees a picture. ``"auto"`` takes as many as shrink the picture by a
                factor of at most 4: one for photos and video of up to about 1080p. The time grows with it.
            threads: CPU threads for one image; None for all that this process may use, which `stream`
                divides between two frames at a time.
            input_size: Nominal input size `(H, W)` of a model that accepts any size: an image is scaled to
                about that many pixels. Larger finds smaller things, slower. None for the model's own.
            deadline_s: Seconds after which a run of the image encoder or of the text encoder is ended with a
                BackendError, for robots and servers, and for bundles of strangers, whose graphs may never
                end; None waits. A TensorRT engine cannot be ended, so ``"auto"`` then means ``"onnx"``.
            verify_engine: Whether a TensorRT engine that was compiled without a GPU is compared with the ONNX
                file when it is loaded for the first time, which takes some seconds.

        Raises:
            ModelNotFoundError: No model has that name.
            BundleError: The model's files are incomplete or damaged, or it does not accept `input_size`.
            BackendUnavailableError: The backend or device is missing.
            BackendError: The engine does not load, or was compiled from another model or for another GPU.
            VocabularyError: The words cannot be used.
            PixelClipError: A setting is not one of its values.

        Examples:
            >>> from pixelclip_sdk import Segmenter
            >>> segmenter = Segmenter.from_pretrained("pixelclip-lite", device="cpu", input_size=(224, 320))
            >>> segmenter.backend
            'onnx'
            >>> segmenter.close()
        """
        # Imported here so that `import pixelclip_sdk` stays light.
        from pixelclip_sdk.backends.choose import open_backend, resolve_input_spec
        from pixelclip_sdk.engine_check import check_once

        Settings(threshold=threshold, min_confidence=min_confidence).override(refine=refine, tiles=tiles)
        bundle = find_bundle(name_or_path)
        spec = bundle.input if input_size is None else bundle.input.resized(input_size)
        check = check_once if verify_engine else None
        engine = open_backend(bundle, backend, device, threads, deadline_s, check)
        try:
            spec = resolve_input_spec(engine, spec, resized=input_size is not None)
            _log.info("%s: backend %s (%s)", bundle.name, engine.name, engine.description)
            segmenter = cls(
                engine,
                spec,
                bundle=bundle,
                threshold=threshold,
                min_confidence=min_confidence,
                background=background,
                refine=refine,
                tiles=tiles,
                threads=threads,
                deadline_s=deadline_s,
            )
            segmenter._reload = functools.partial(
                cls.from_pretrained,
                Path(bundle.path).absolute(),
                backend=backend,
                device=device,
                threads=threads,
                input_size=input_size,
                deadline_s=deadline_s,
                verify_engine=verify_engine,
            )
            if classes is not None:
                segmenter.set_classes(classes)
                check_names(min_confidence, segmenter.vocabulary.names)
        except BaseException:
            engine.close()
            raise
        return segmenter

    @property
    def vocabulary(self) -> Vocabulary:
        """The current words.

        Raises:
            VocabularyError: No words were set.
        """
        if self._vocabulary is None:
            raise VocabularyError("no classes are set; call set_classes(['cat', 'sofa']) or pass classes=")
        return self._vocabulary

    @property
    def backend(self) -> str:
        """The name of the backend that runs the model, e.g. ``"onnx"``: `backend=NAME` selects it."""
        return self._backend.name

    @property
    def engine_description(self) -> str:
        """Human-readable engine, device and thread count, e.g. ``"onnxruntime on cpu, 2 threads"``.

        On a GPU it also says what decodes JPEG files there, after the first one.
        """
        return description_of(self._backend)

    def set_classes(self, classes: Classes | Vocabulary, *, keep_ids: bool = False) -> Vocabulary:
        """Change the words. Takes effect for the next image; images in progress keep the old words.

        If several threads call this, the call made last wins, whichever finishes last.

        Args:
            classes: ``["cat", "sofa"]``, ``"cat, sofa"``, with synonyms ``{"cat": ["cat", "kitten"]}``; a
                `Vocabulary`; or the name of a list, ``"voc-20"``: one that is precomputed in the bundle and
                needs no text encoder, or one of `class_lists`.
            keep_ids: Whether words that were set before keep their labels, whatever the order of `classes`;
                see `Vocabulary.keeping_labels`.

        Returns:
            The vocabulary of these words. A later call may already have replaced it.

        Raises:
            VocabularyError: The words cannot be used, no list has that name, or the vocabulary belongs to
                another model. The words set before stay.
            BundleError: The model has no text encoder, and these are words.
            BackendError: The segmenter is closed, or the text encoder failed.

        Examples:
            >>> from pixelclip_sdk import Segmenter
            >>> with Segmenter.from_pretrained("pixelclip-lite") as segmenter:
            ...     segmenter.set_classes({"cat": ["cat", "kitten"], "sofa": ["sofa", "couch"]})
            Vocabulary(2 names: cat, sofa)
        """
        with self._vocabulary_lock:
            self._calls += 1
            call = self._calls
        vocabulary = self.embed(classes)
        with self._vocabulary_lock:
            if keep_ids and self._vocabulary is not None:
                vocabulary = vocabulary.keeping_labels(self._vocabulary)
            if call > self._vocabulary_call:  # Embedding takes time: a later call may have finished first.
                # Readers take this one reference, so they see the old vocabulary or the new one, never a mix.
                self._vocabulary, self._vocabulary_call = vocabulary, call
        used = [name for label, name in enumerate(vocabulary.names) if label not in vocabulary.unused]
        limits = self.threshold, self.min_confidence, self.background
        if len(used) == 1 and limits == (None, None, None):
            _log.warning(
                "one class and no limit: every pixel becomes %r. Add other classes or min_confidence=0.5",
                used[0],
            )
        return vocabulary

    def embed(self, classes: Classes | Vocabulary) -> Vocabulary:
        """Return the vocabulary of words without setting it; see `set_classes`.

        Args:
            classes: Words, or the name of a list.

        Raises:
            VocabularyError: The words cannot be used.
            BundleError: The model has no text encoder.
            BackendError: The segmenter is closed, or the text encoder failed.
        """
        check_process(self._process)
        return self._resolver.resolve(classes)

    def unfamiliar_words(self, vocabulary: Vocabulary) -> list[str]:
        """Return the names that are probably misspelt or not English: a cheap guess, for hints to a person.

        Args:
            vocabulary: What `embed` or `vocabulary` of this segmenter returned.

        Examples:
            >>> from pixelclip_sdk import Segmenter
            >>> with Segmenter.from_pretrained() as segmenter:
            ...     segmenter.unfamiliar_words(segmenter.embed(["cat", "Katze"]))
            ['Katze']
        """
        return self._resolver.unfamiliar(vocabulary)

    def with_classes(self, classes: Classes | Vocabulary) -> Self:
        """Return a segmenter of the same loaded model, with words and settings of its own.

        It takes no time and next to no memory: one for each user of a model, or for each request. It starts
        with the settings of this one. Closing it leaves the model loaded; closing this one closes the model.

        Args:
            classes: Words, or the name of a list; see `set_classes`.

        Raises:
            VocabularyError: The words cannot be used.
            BundleError: The model has no text encoder.
            BackendError: The segmenter is closed, or the text encoder failed.

        Examples:
            >>> from pixelclip_sdk import Segmenter
            >>> with Segmenter.from_pretrained("pixelclip-lite", classes="cat, sofa") as segmenter:
            ...     other = segmenter.with_classes("road, sky")
            ...     other.min_confidence = 0.5
            ...     other.vocabulary.names, segmenter.vocabulary.names, segmenter.min_confidence
            (('road', 'sky'), ('cat', 'sofa'), None)
        """
        vocabulary = self.embed(classes)
        other = object.__new__(type(self))  # copy.copy would load the model again: see __reduce__.
        other.__dict__.update(self.__dict__)
        other._vocabulary_lock = threading.Lock()
        other._owns_model = False
        if isinstance(self.min_confidence, Mapping):  # Limits of the other words.
            other._settings = dataclasses.replace(self._settings, min_confidence=None)
        other._vocabulary = vocabulary
        return other

    def warm_up(self, size: tuple[int, int] | None = None) -> None:
        """Segment a grey image and drop the result, so that the first real image is not slower than others.

        With the first input of a size an engine allocates memory and, on a GPU, selects its kernels, also for
        several images at once.

        Args:
            size: Expected image size `(H, W)` in pixels; None for the model's nominal input size.

        Raises:
            ImageError: `size` has a side below 1.
        """
        height, width = size or (self._input.height, self._input.width)
        if min(height, width) < 1:
            raise ImageError(f"size is {height}×{width}; expected (H, W) of at least 1×1")
        grey = io.BytesIO()
        Image.new("RGB", (width, height), (128, 128, 128)).save(grey, "JPEG")
        pipeline = pipeline_of(self._backend)
        if isinstance(pipeline, Pipeline):
            words = self._competitors.of(self.vocabulary, self._settings.background)
            pipeline.warm_up(input_size(height, width, self._input), words.embeddings)
        self.predict(grey.getvalue())

    def predict(
        self,
        image: ImageInput,
        *,
        channel_order: ChannelOrder = "rgb",
        threshold: float | None = None,
        min_confidence: Limits = None,
        background: Classes | Vocabulary | None = None,
        refine: Refine | None = "auto",
        tiles: Tiles | None = None,
        smoother: "Smoother | None" = None,
        time_s: float | None = None,
    ) -> Segmentation:
        """Segment one image, or one frame of a video whose frames come one by one, as in a callback.

        Args:
            image: A path, the bytes of an image file, a PIL image, or a uint8 array `(H, W, 3)`, 0–255.
            channel_order: Channel order of an array; OpenCV uses ``"bgr"``.
            threshold: Overrides the segmenter's threshold.
            min_confidence: Overrides the segmenter's limits.
            background: Overrides the segmenter's background words.
            refine: Overrides the segmenter's setting; ``"auto"`` keeps it.
            tiles: Overrides the segmenter's tiles.
            smoother: The `Smoother` of the video that this frame is from: labels of still regions do not
                flicker. Frames must come in order, one call at a time. None for single images.
            time_s: Time of the frame in its video, in seconds. None: 1/30 s after the last one.

        Returns:
            Labels `(H, W)` at the size of the image, with scores, class names and times.

        Raises:
            ImageError: The image cannot be used.
        """
        return self._segment(
            [image],
            channel_order,
            Turn(smoother, time_s=time_s) if smoother and smoother.applies(time_s) else None,
            threshold=threshold,
            min_confidence=min_confidence,
            background=background,
            refine=refine,
            tiles=tiles,
        )[0]

    __call__ = predict

    def predict_batch(
        self,
        images: Iterable[ImageInput],
        *,
        channel_order: ChannelOrder = "rgb",
        threshold: float | None = None,
        min_confidence: Limits = None,
        background: Classes | Vocabulary | None = None,
        refine: Refine | None = "auto",
        tiles: Tiles | None = None,
    ) -> list[Segmentation]:
        """Segment several images with the same words. Results equal those of single calls.

        Images of one size go through the model together: up to 16 at a time, on a GPU up to 4, where results
        may differ by rounding. All images and results are in memory at once: split long lists.

        Args:
            images: Images; see `predict`. Also one uint8 array `(N, H, W, 3)`.
            channel_order: Channel order of the arrays.
            threshold: Overrides the segmenter's threshold.
            min_confidence: Overrides the segmenter's limits.
            background: Overrides the segmenter's background words.
            refine: Overrides the segmenter's setting; ``"auto"`` keeps it.
            tiles: Overrides the segmenter's tiles.

        Returns:
            One result per image, in the same order.

        Raises:
            ImageError: An image cannot be used; the message has its position.
        """
        one = isinstance(images, str | bytes | bytearray) or not isinstance(images, Iterable)
        if one or (isinstance(images, np.ndarray) and images.ndim != 4):
            raise ImageError(f"images is one {type(images).__name__}; expected a list. Use predict for one.")
        return self._segment(
            list(images),
            channel_order,
            threshold=threshold,
            min_confidence=min_confidence,
            background=background,
            refine=refine,
            tiles=tiles,
        )

    def _segment(
        self,
        images: Sequence[ImageInput],
        channel_order: ChannelOrder,
        turn: Turn | None = None,
        *,
        threshold: float | None,
        min_confidence: Limits,
        background: Classes | Vocabulary | None,
        refine: Refine | None,
        tiles: Tiles | None,
    ) -> list[Segmentation]:
        settings = self._settings.override(
            threshold=threshold,
            min_confidence=min_confidence,
            background=None if background is None else self.embed(background),
            refine=refine,
            tiles=tiles,
        )
        words = self._competitors.of(self.vocabulary, settings.background)
        check_names(min_confidence, words.vocabulary.names)
        return segment_images(
            images, self._backend, self._input, words, settings, channel_order=channel_order, turn=turn
        )

    def stream(
        self,
        *sources: "SourceInput",
        buffer: "Buffer" = "auto",
        channel_order: ChannelOrder = "rgb",
        threshold: float | None = None,
        min_confidence: Limits = None,
        background: Classes | Vocabulary | None = None,
        refine: Refine | None = "auto",
        on_error: "OnError" = "raise",
        smooth: "Smooth" = "auto",
    ) -> Generator[Segmentation, None, None]:
        """Segment video frame by frame. Decoding and the other stages of several frames run in parallel.

        Words may be changed meanwhile. Leaving the loop, or closing the iterator, ends all threads and
        releases the sources. The arrays of a result are never written again.

        Args:
            sources: Each a video file, a folder of images, a camera (``0`` or ``"/dev/video0"``), an address
                (``"rtsp://…"``) or an iterable of uint8 arrays `(H, W, 3)`. Items of an iterable may also be
                ``(time_s, array)`` or ``(time_s, array, id)``: `Segmentation.frame` has your time and object.
                Several sources take turns; `Segmentation.frame` names the source of a result.
            buffer: How to handle frames that arrive faster than results. ``"latest"``: a newer frame replaces
                an older one, and a newer result replaces one that you did not fetch; both count as dropped.
                ``"all"``: the source waits. ``"auto"``: ``"latest"`` for cameras and live addresses, else
                ``"all"``.
            channel_order: Channel order of the arrays; OpenCV uses ``"bgr"``.
            threshold: Overrides the segmenter's threshold.
            min_confidence: Overrides the segmenter's limits.
            background: Overrides the segmenter's background words.
            refine: Overrides the segmenter's setting; ``"auto"`` keeps it.
            on_error: A source that fails ends the stream (``"raise"``) or only itself (``"skip"``). With
                ``"reopen"`` a camera or live address reconnects every second.
            smooth: Seconds, 0 to 1, over which labels of still regions are averaged, so that they do not
                flicker. ``"auto"``: 0.3 for frames that have a time, which those of folders and plain arrays
                have not. None: labels are those of `predict`.

        Returns:
            Results; those of one source are in the order of its frames.

        Raises:
            ImageError: A source cannot be opened, fails, or one of its frames cannot be used.
            BackendUnavailableError: Video needs PyAV, which is not installed.

        Examples:
            >>> import numpy as np
            >>> from pixelclip_sdk import Segmenter
            >>> frames = [np.zeros((48, 64, 3), np.uint8)] * 3
            >>> with Segmenter.from_pretrained("pixelclip-lite", classes="cat, sofa") as segmenter:
            ...     [result.labels.shape for result in segmenter.stream(frames)]
            [(48, 64), (48, 64), (48, 64)]
        """
        from pixelclip_sdk.video.pipeline import WORKERS, segment_frames

        unwanted = None if background is None else self.embed(background)

        def begin() -> "Predict":
            settings = self._settings.override(
                threshold=threshold, min_confidence=min_confidence, background=unwanted, refine=refine
            )
            words = self._competitors.of(self.vocabulary, settings.background)
            return lambda image, turn: segment_images(
                [image], engine, self._input, words, settings, channel_order="rgb", turn=turn
            )[0]

        begin()  # Missing words and bad settings raise here, not at the first frame.
        check_names(min_confidence, self.vocabulary.names)
        engine = self._backend.shared(WORKERS)
        pipeline = pipeline_of(engine)
        return segment_frames(
            begin,
            sources,
            buffer=buffer,
            channel_order=channel_order,
            on_error=on_error,
            smooth=smooth,
            gpu=pipeline if isinstance(pipeline, Pipeline) else None,
        )

    @property
    def threshold(self) -> float | None:
        """Pixels whose best cosine is below it become unknown; None for no threshold."""
        return self._settings.threshold

    @threshold.setter
    def threshold(self, value: float | None) -> None:
        self._settings = dataclasses.replace(self._settings, threshold=value)

    @property
    def min_confidence(self) -> Limits:
        """Pixels whose confidence, 0–1, is below it become unknown: a number, ``{"cat": 0.5}``, or None.

        A limit of a name that is no longer a class has no effect, so that words can change in a stream.
        """
        return self._settings.min_confidence

    @min_confidence.setter
    def min_confidence(self, value: Limits) -> None:
        settings = dataclasses.replace(self._settings, min_confidence=value)
        if self._vocabulary is not None:
            check_names(value, self._vocabulary.names)
        self._settings = settings

    @property
    def background(self) -> Vocabulary | None:
        """Words that may win pixels, which become unknown; `set_background` changes them."""
        return self._settings.background

    def set_background(self, words: Classes | Vocabulary | None) -> None:
        """Change the words that may win pixels, which become unknown. Takes effect for the next image.

        Args:
            words: What `set_classes` takes, or None for none.

        Raises:
            VocabularyError: See `set_classes`.
            BundleError: See `set_classes`.
            BackendError: See `set_classes`.
        """
        background = None if words is None else self.embed(words)
        self._settings = dataclasses.replace(self._settings, background=background)

    @property
    def refine(self) -> Literal["edges", "off"]:
        """How labels are made, ``"edges"`` or ``"off"``. ``"auto"`` sets what the bundle recommends."""
        return self._settings.refine

    @refine.setter
    def refine(self, value: Refine | None) -> None:
        self._settings = dataclasses.replace(self._settings, refine=choose_refine(value, self._recommended))

    @property
    def tiles(self) -> Tiles:
        """The largest number of windows of a picture, or ``"auto"``; see `from_pretrained`."""
        return self._settings.tiles

    @tiles.setter
    def tiles(self, value: Tiles) -> None:
        self._settings = dataclasses.replace(self._settings, tiles=value)

    @property
    def _recommended(self) -> Literal["edges", "off"]:
        return self.bundle.refine if self.bundle else "off"

    def features(self, image: ImageInput, *, channel_order: ChannelOrder = "rgb") -> npt.NDArray[np.float32]:
        """Compute the dense embeddings of one image, to compare with texts or with each other.

        Args:
            image: An image; see `predict`.
            channel_order: Channel order of an array.

        Returns:
            `(h, w, D)` float32, one embedding per grid cell. Where a model of a fixed size pads the image,
            cells that hold only padding are left out.

        Raises:
            ImageError: The image cannot be used.
            BackendError: The engine is closed or failed.

        Examples:
            >>> import numpy as np
            >>> from pixelclip_sdk import Segmenter
            >>> with Segmenter.from_pretrained("pixelclip-lite") as segmenter:
            ...     segmenter.features(np.zeros((352, 448, 3), np.uint8)).shape
            (11, 14, 384)
        """
        picture = open_image(image, channel_order=channel_order)
        features: npt.NDArray[np.float32] = self._backend.features(fit(picture, self._input)[None])[0]
        return features[covered_cells(features.shape[:2], covered(picture_size(picture), self._input))]

    def suggest(
        self, image: ImageInput, k: int = 10, *, channel_order: ChannelOrder = "rgb"
    ) -> list["Suggestion"]:
        """Suggest words for what an image shows, to start from: nouns of the list ``"everyday-nouns"``.

        The first call with a model embeds some 2 900 words, which takes several seconds, and keeps the result
        in the user's cache folder (`PIXELCLIP_HOME`). Words that mean nearly the same are suggested once.

        Args:
            image: An image; see `predict`.
            k: Largest number of words.
            channel_order: Channel order of an array.

        Returns:
            Words with `name`, `score` (a cosine) and `share` of the image, the most likely one first.

        Raises:
            ImageError: The image cannot be used.
            VocabularyError: `k` is not at least 1, or the model has neither a text encoder nor this list.
            BackendError: The engine is closed or failed.

        Examples:
            >>> from pixelclip_sdk import Segmenter
            >>> with Segmenter.from_pretrained("pixelclip-lite") as segmenter:
            ...     words = segmenter.suggest("photo.jpg")  # doctest: +SKIP
            ...     segmenter.set_classes([word.name for word in words])  # doctest: +SKIP
        """
        from pixelclip_sdk.words.suggestions import suggest_words

        if not isinstance(k, numbers.Integral) or isinstance(k, bool) or k < 1:
            raise VocabularyError(f"k is {k!r}; expected the number of words, at least 1")
        features = self.features(image, channel_order=channel_order)
        return suggest_words(features, self.embed(NOUNS), int(k))

    def close(self) -> None:
        """Release the model; later calls raise. Closing twice is harmless.

        One that `with_classes` returned leaves the model loaded.
        """
        if not self._owns_model:
            return
        self._resolver.close()
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., "Segmenter"], tuple[()]]:
        if self._reload is None:
            raise PixelClipError(
                "this segmenter was not loaded by Segmenter.from_pretrained and cannot be pickled. "
                "Load it in the worker process."
            )
        settings = {field.name: getattr(self._settings, field.name) for field in dataclasses.fields(Settings)}
        settings["min_confidence"] = plain_limits(self.min_confidence)
        return functools.partial(self._reload, classes=self._vocabulary, **settings), ()

    def __repr__(self) -> str:
        name = self.bundle.name if self.bundle else "no bundle"
        return f"Segmenter({name}, {self.engine_description}, {self._vocabulary or 'no classes'})"
