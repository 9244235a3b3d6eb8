"""Images to label maps: decode, preprocess, run the engine, postprocess."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.base import Backend
from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.confidence import Rivals
from pixelclip_sdk.device.frames import DeviceFrame, is_on_device
from pixelclip_sdk.device.pipeline import Pipeline, pipeline_of
from pixelclip_sdk.device.results import segment_on_device
from pixelclip_sdk.errors import BackendUnavailableError, ImageError
from pixelclip_sdk.image import ChannelOrder, ImageInput, Picture, open_image, picture_size, to_array
from pixelclip_sdk.postprocess import label_dtype, labels_upsampled, unknown_label
from pixelclip_sdk.refine import refine_edges
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.settings import Settings, least_confidences
from pixelclip_sdk.smoothing import Turn
from pixelclip_sdk.support.clock import Clock
from pixelclip_sdk.tiles import View
from pixelclip_sdk.words.background import Competition

LabelArray = npt.NDArray[np.uint8 | np.uint16]

# Images per call of the engine. More gain nothing and may not fit into memory.
_MAX_BATCH = 16


def segment_images(
    images: Sequence[ImageInput],
    engine: Backend,
    spec: InputSpec,
    words: Competition,
    settings: Settings,
    *,
    channel_order: ChannelOrder,
    turn: Turn | None = None,
) -> list[Segmentation]:
    """Segment images with one engine and the same words; inputs of one size run together.

    `speed` of a result holds milliseconds; ``inference`` is the time of the batch divided by its images.
    With a `turn`, the logits of an image, which is one frame then, are smoothed before labels are made.
    """
    pipeline = pipeline_of(engine)
    opened: list[Picture | DeviceFrame] = []
    views: list[View] = []
    inputs: list[list[npt.NDArray[np.uint8]]] = []
    speeds: list[dict[str, float]] = []
    for i, source in enumerate(images):
        clock = Clock()
        try:
            picture = _opened(source, channel_order, engine, pipeline)
        except ImageError as error:
            if len(images) > 1:
                raise ImageError(f"image {i} of {len(images)}: {error}") from error
            raise
        clock.lap("decode")
        views.append(View(picture_size(picture), spec, settings.tiles))
        opened.append(picture)
        speeds.append(clock.laps)
    whole = settings.min_confidence is None and not any(view.windows for view in views)
    if isinstance(pipeline, Pipeline) and whole:
        frames = [one if isinstance(one, DeviceFrame) else to_array(one) for one in opened]
        return segment_on_device(
            pipeline, frames, spec, words, settings.threshold, settings.refine, speeds, turn
        )
    pictures: list[Picture] = []
    for one, view, speed in zip(opened, views, speeds, strict=True):
        clock = Clock(speed)
        if isinstance(one, DeviceFrame):
            assert isinstance(pipeline, Pipeline)  # Else `_opened` had refused it.
            one = pipeline.fetch(one)
        pictures.append(one)
        inputs.append(view.inputs(one))
        clock.lap("preprocess")
    logits = _run(engine, inputs, words.embeddings, speeds)
    results = []
    for picture, view, seen, grids, speed in zip(pictures, views, inputs, logits, speeds, strict=True):
        raw = view.blend(grids)
        grid, everyday = raw[: words.competing], raw[words.competing :]
        if turn:
            with turn.taken():
                clock = Clock(speed)
                grid = turn.smoother.blend(grid, seen[0], words, index=turn.index, time_s=turn.time_s)
                clock.lap("smooth")
        if words.vocabulary.unused:
            grid = grid.copy()
            grid[list(words.vocabulary.unused)] = -1  # The smallest cosine never wins.
        clock = Clock(speed)
        size, part, classes = picture_size(picture), view.covered, len(words.vocabulary)
        labels = refine_edges(grid, picture, part)[0] if settings.refine == "edges" else None
        clock.lap("refine")
        if labels is None:
            labels = labels_upsampled(grid, size, settings.threshold, part)
        elif settings.threshold is not None:
            unknown = unknown_label(len(grid))
            labels[labels_upsampled(grid, size, settings.threshold, part) == unknown] = unknown
        result = Segmentation(
            labels=labels if len(grid) == classes else _classes_only(labels, classes),
            logits=grid[:classes],
            covered=part,
            rivals=Rivals(grid[classes:], everyday, words.calibration),
            refine=settings.refine,
            names=words.vocabulary.names,
            image=picture,
            speed=speed,
        )
        if settings.min_confidence is not None:
            least = least_confidences(settings.min_confidence, result.names, result.unknown)
            forget_unsure(result, least)
        clock.lap("postprocess")
        speed["total"] = sum(speed.values())
        results.append(result)
    return results


def _opened(
    source: ImageInput,
    order: ChannelOrder,
    engine: Backend,
    pipeline: Pipeline | BackendUnavailableError | None,
) -> Picture | DeviceFrame:
    """Decode a picture, on the GPU if it can; a frame in a GPU's memory stays there."""
    if not isinstance(source, DeviceFrame) and not is_on_device(source):
        decoded = None
        if isinstance(pipeline, Pipeline) and order in get_args(ChannelOrder):
            decoded = pipeline.jpegs.decode(source)
        return open_image(source, channel_order=order) if decoded is None else decoded
    if pipeline is None:
        raise ImageError(
            f"the frame is in a GPU's memory, and {engine.description} takes frames on the host. Copy it, "
            'e.g. tensor.cpu().numpy(), or load the model with backend="onnx-cuda" or "tensorrt".'
        )
    if isinstance(pipeline, BackendUnavailableError):
        raise pipeline
    return source if isinstance(source, DeviceFrame) else DeviceFrame(source, order)


def forget_unsure(result: Segmentation, least: npt.NDArray[np.float32]) -> None:
    """Make pixels unknown whose confidence is below that of their label; `least` is `(unknown + 1,)`.

    In strips: confidences of all pixels would take four times the memory of the labels.
    """
    for rows, confidence in result.confidence_strips():
        labels = result.labels[rows]
        labels[confidence < least[labels]] = result.unknown


def _classes_only(labels: LabelArray, classes: int) -> LabelArray:
    """Labels of `classes` classes: pixels of words after them become unknown."""
    labels[labels >= classes] = unknown_label(classes)
    return labels.astype(label_dtype(classes), copy=False)


def _run(
    engine: Backend,
    inputs: Sequence[Sequence[npt.NDArray[np.uint8]]],
    text: npt.NDArray[np.float32],
    speeds: Sequence[dict[str, float]],
) -> list[list[npt.NDArray[np.float32]]]:
    """Return the logits `(K, h, w)` of every input `(H, W, 3)` of every picture.

    The milliseconds of a picture go to its `speeds`.
    """
    groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for i, views in enumerate(inputs):
        for j, image in enumerate(views):
            groups.setdefault(image.shape, []).append((i, j))
    logits: dict[tuple[int, int], npt.NDArray[np.float32]] = {}
    batches = [m[i : i + _MAX_BATCH] for m in groups.values() for i in range(0, len(m), _MAX_BATCH)]
    for members in batches:
        clock = Clock()
        images = [inputs[i][j] for i, j in members]
        together = np.stack(images) if len(images) > 1 else images[0][None]
        batch = engine.logits(together, text)
        clock.lap("inference")
        for (i, j), grid in zip(members, batch, strict=True):
            # A view would keep the whole batch alive.
            logits[i, j] = grid if len(members) == 1 else grid.copy()
            share = clock.laps["inference"] / len(members)
            speeds[i]["inference"] = speeds[i].get("inference", 0.0) + share
    return [[logits[i, j] for j in range(len(views))] for i, views in enumerate(inputs)]
