"""The routes that Label Studio asks of a model ("ML backend"), below `/label-studio`."""

import functools
import uuid
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from pixelclip_sdk.results.annotation import label_studio_rle
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.serve import encode
from pixelclip_sdk.serve.config import LabelStudio
from pixelclip_sdk.serve.engine import Engine, Model
from pixelclip_sdk.serve.forms import parse_json
from pixelclip_sdk.serve.label_studio.config import Labeling, parse_labeling
from pixelclip_sdk.serve.label_studio.picture import picture_of
from pixelclip_sdk.support.clock import Clock

__all__ = ["make_router"]


class _Setup(BaseModel):
    """What is used of the body of `/setup`. The address and the key in it are not: a client sent them."""

    schema_: str = Field("", alias="schema")


class _Task(BaseModel):
    data: dict[str, Any]


class _Predict(BaseModel):
    """What is used of the body of `/predict`."""

    label_config: str
    tasks: list[_Task] = Field(max_length=256)


def make_router(engine: Engine, studio: LabelStudio | None) -> APIRouter:
    """The routes, for one engine."""
    router = APIRouter(prefix="/label-studio", tags=["Label Studio"])

    @router.get("/health", summary="Whether the model answers")
    @router.get("/", include_in_schema=False)
    async def health() -> JSONResponse:
        return JSONResponse({"status": "UP", "model_class": "PixelCLIP"})

    @router.post("/setup", summary="Check a labeling configuration")
    async def setup(request: Request) -> JSONResponse:
        wanted = parse_json(_Setup, await request.body())
        if wanted.schema_:
            await engine.embed(engine.model(), list(parse_labeling(wanted.schema_).words))
        return JSONResponse({"model_version": engine.default})

    @router.post("/predict", summary="Label the pictures of tasks")
    async def predict(request: Request) -> JSONResponse:
        wanted = parse_json(_Predict, await request.body())
        labeling, model = parse_labeling(wanted.label_config), engine.model()
        segmenter = model.segmenter.with_classes(await engine.embed(model, list(labeling.words)))
        results = []
        for task in wanted.tasks:
            address = task.data.get(labeling.field)
            call = functools.partial(_label, engine, model, segmenter, labeling, address, studio)
            results.append(await engine.run(call))
        return JSONResponse({"results": results, "model_version": model.name})

    return router


def _label(
    engine: Engine,
    model: Model,
    segmenter: Segmenter,
    labeling: Labeling,
    address: object,
    studio: LabelStudio | None,
) -> dict[str, Any]:
    """Fetch, segment and encode one picture. Runs in a worker thread."""
    data = picture_of(address, studio, engine.limits.body_bytes)
    encode.check_pixels([data], engine.limits.pixels)
    result = segmenter.predict(data)
    clock = Clock()
    answer = _prediction(result, labeling, model.name)
    clock.lap("encode")
    engine.metrics.segmented(model.name, "label-studio", {**result.speed, **clock.laps})
    return answer


def _prediction(result: Segmentation, labeling: Labeling, version: str) -> dict[str, Any]:
    """A prediction with one brush region for each region of the result."""
    height, width = result.orig_shape
    regions = result.regions()
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
                "brushlabels": [region.name],
            },
        }
        for region in regions
    ]
    covered = sum(region.area for region in regions)
    score = sum(region.confidence * region.area for region in regions) / covered if covered else 0.0
    return {"model_version": version, "score": round(score, 4), "result": found}
