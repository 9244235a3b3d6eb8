"""The routes that Label Studio asks of a model ("ML backend"), below `/label-studio`."""

import contextlib
import functools
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from pixelclip_sdk.results.annotation import label_studio_rle
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.serve import encode
from pixelclip_sdk.serve.config import LabelStudio
from pixelclip_sdk.serve.engine import Engine
from pixelclip_sdk.serve.errors import from_exception
from pixelclip_sdk.serve.forms import parse_json
from pixelclip_sdk.serve.label_studio.config import Labeling, parse_labeling
from pixelclip_sdk.serve.label_studio.picture import Files, picture_of
from pixelclip_sdk.support.clock import Clock
from pixelclip_sdk.words.classes import parse_classes

__all__ = ["make_router"]

_log = logging.getLogger(__name__)

# Label Studio waits 100 s, and asks for all tasks that were selected in one request.
_ANSWER_S = 80.0
_TASKS = 20_000


class _Setup(BaseModel):
    """What is used of the body of `/setup`. The address and the key in it are not: a client sent them."""

    schema_: str = Field("", alias="schema")


class _Task(BaseModel):
    id: int | None = None
    data: dict[str, Any]


class _Predict(BaseModel):
    """What is used of the body of `/predict`."""

    label_config: str
    tasks: list[_Task] = Field(max_length=_TASKS)


def make_router(engine: Engine, studio: LabelStudio | None) -> APIRouter:
    """The routes, for one engine."""
    router = APIRouter(prefix="/label-studio", tags=["Label Studio"])
    files = None if studio is None else Files(studio)

    @router.get("/health", summary="Whether the model answers")
    @router.get("/", include_in_schema=False)
    async def health() -> JSONResponse:
        return JSONResponse({"status": "UP", "model_class": "PixelCLIP"})

    @router.post("/setup", summary="Check a labeling configuration")
    async def setup(request: Request) -> JSONResponse:
        with _noted(request):
            wanted = parse_json(_Setup, await request.body())
            labeling = parse_labeling(wanted.schema_)
            parse_classes(labeling.classes())  # Label Studio waits 3 s: too short to embed hundreds of words.
        return JSONResponse({"model_version": _version(engine, labeling)})

    @router.post("/predict", summary="Label the pictures of tasks")
    async def predict(request: Request) -> JSONResponse:
        until = time.monotonic() + _ANSWER_S
        with _noted(request):
            wanted = parse_json(_Predict, await request.body())
            labeling = parse_labeling(wanted.label_config)
            version = _version(engine, labeling)
            vocabulary = await engine.embed(engine.model(), labeling.classes())
            segmenter = engine.model().segmenter.with_classes(vocabulary)
            calls = [
                (
                    task.id,
                    functools.partial(
                        _label, engine, segmenter, labeling, version, task.data.get(labeling.field), files
                    ),
                )
                for task in wanted.tasks
            ]
            results = await _answers(engine, calls, functools.partial(_note, request), until)
        return JSONResponse({"results": results, "model_version": version})

    return router


def _version(engine: Engine, labeling: Labeling) -> str:
    """The version of the model with this labeling.

    Label Studio asks for no second prediction of a version. So other labels or another limit are another one.
    """
    return f"{engine.default}-{labeling.digest()}"


async def _answers(
    engine: Engine,
    calls: Sequence[tuple[int | None, Callable[[], dict[str, Any]]]],
    note: Callable[[str], None],
    until: float,
) -> list[Any]:
    """The predictions of tasks; an empty list for a task without one, for which Label Studio asks again.

    Args:
        engine: Runs the calls.
        calls: Id of each task, and what labels it.
        note: Called with the reason why a task has no prediction.
        until: When to stop, on the clock of `time.monotonic`.

    Raises:
        Exception: The first failure, if no task has a prediction.
    """
    results: list[Any] = [[] for _ in calls]
    failure: Exception | None = None
    for place, (task, call) in enumerate(calls):
        if time.monotonic() > until:
            note(f"{place} of {len(calls)} tasks done in {_ANSWER_S:g} s; ask again for the others")
            break
        try:
            results[place] = await engine.run(call)
        except Exception as exception:
            error = from_exception(exception)
            if error.status == 500 or len(calls) == 1:
                raise
            note(f"task {task}: {error.message}")
            failure = failure or exception
    if failure is not None and not any(results):
        raise failure
    return results


def _note(request: Request, reason: str) -> None:
    line = {"event": "label-studio", "id": request.state.request_id, "reason": reason}
    _log.warning(json.dumps(line))


@contextlib.contextmanager
def _noted(request: Request) -> Iterator[None]:
    """Put the reason of a refusal into the log: Label Studio shows its status only."""
    try:
        yield
    except Exception as exception:
        error = from_exception(exception)
        if error.status != 500:
            _note(request, error.message)
        raise


def _label(
    engine: Engine,
    segmenter: Segmenter,
    labeling: Labeling,
    version: str,
    address: object,
    files: Files | None,
) -> dict[str, Any]:
    """Fetch, segment and encode one picture. Runs in a worker thread."""
    data = picture_of(address, files, engine.limits.body_bytes)
    encode.check_pixels([data], engine.limits.pixels)
    result = segmenter.predict(data, min_confidence=labeling.min_confidence)
    clock = Clock()
    answer = _prediction(result, labeling, version)
    clock.lap("encode")
    engine.metrics.segmented(engine.default, "label-studio", {**result.speed, **clock.laps})
    return answer


def _prediction(result: Segmentation, labeling: Labeling, version: str) -> dict[str, Any]:
    """A prediction with one brush region for each region of the result."""
    height, width = result.orig_shape
    regions = result.regions()
    labels = dict(zip(result.names, labeling.words, strict=True))  # As they are written in the project.
    found = [
        {
            "id": uuid.uuid4().hex[:10],
            "from_name": labeling.from_name,
            "to_name": labeling.to_name,
            "type": "brushlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": round(region.confidence, 4),
            "value": {
                "format": "rle",
                "rle": label_studio_rle(region.mask()),
                "brushlabels": [labels[region.name]],
            },
        }
        for region in regions
    ]
    covered = sum(region.area for region in regions)
    score = sum(region.confidence * region.area for region in regions) / covered if covered else 0.0
    return {"model_version": version, "score": round(score, 4), "result": found}
