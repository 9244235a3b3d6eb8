"""The routes of `/v2`: health, metadata and inference. Clients of Triton and KServe work unchanged."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from pixelclip_sdk._version import __version__
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.serve import encode, tensors
from pixelclip_sdk.serve.engine import Engine, Model
from pixelclip_sdk.serve.errors import ServeError
from pixelclip_sdk.serve.kserve.messages import InferRequest, read_request, unpacked, write_answer
from pixelclip_sdk.words.classes import class_lists
from pixelclip_sdk.words.vocabulary import Vocabulary

__all__ = ["make_router"]

_VERSION = "1"
# Shorter JSON is read in the event loop: a worker would take longer to come.
_SHORT = 64 << 10
_HEADER_LENGTH = "Inference-Header-Content-Length"


def make_router(engine: Engine) -> APIRouter:
    """The routes, for one engine."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    _add_health(router, engine)

    @router.get("", summary="The server")
    async def server() -> JSONResponse:
        return JSONResponse(
            {"name": "pixelclip", "version": __version__, "extensions": ["binary_tensor_data"]}
        )

    @router.get("/models/{model}", summary="The inputs and outputs of a model")
    @router.get("/models/{model}/versions/{version}", include_in_schema=False)
    async def metadata(model: str, version: str = _VERSION) -> JSONResponse:
        found = _model(engine, model, version)
        return JSONResponse(
            {
                "name": found.name,
                "versions": [_VERSION],
                "platform": "pixelclip",
                "inputs": _described(tensors.INPUTS),
                "outputs": _described(tensors.OUTPUTS),
            }
        )

    @router.post("/models/{model}/infer", summary="Segment images given as tensors")
    @router.post("/models/{model}/versions/{version}/infer", include_in_schema=False)
    async def infer(request: Request, model: str, version: str = _VERSION) -> Response:
        """The tensors are listed in the guide to Triton; `GET /v2/models/{model}` has names and shapes."""
        found = _model(engine, model, version)
        asked = await _read(engine, request)
        images, limits = tensors.read_images(asked.tensors), tensors.read_limits(asked.tensors)
        _check_images(engine, images)
        segmenter = found.segmenter.with_classes(
            await _vocabulary(engine, found, asked, limited=bool(limits))
        )
        body, length = await engine.run(
            functools.partial(_segment, engine, found, segmenter, images, limits, asked)
        )
        if length is None:
            return Response(body, media_type="application/json")
        return Response(body, media_type="application/octet-stream", headers={_HEADER_LENGTH: str(length)})

    return router


def _add_health(router: APIRouter, engine: Engine) -> None:
    @router.get("/health/live", summary="Whether the process lives")
    async def live() -> JSONResponse:
        return JSONResponse({"live": True})

    @router.get("/health/ready", summary="Whether requests are answered")
    async def ready() -> JSONResponse:
        return JSONResponse({"ready": engine.ready}, 200 if engine.ready else 503)

    @router.get("/models/{model}/ready", summary="Whether a model answers")
    @router.get("/models/{model}/versions/{version}/ready", include_in_schema=False)
    async def model_ready(model: str, version: str = _VERSION) -> JSONResponse:
        found = _model(engine, model, version)
        return JSONResponse({"name": found.name, "ready": engine.ready}, 200 if engine.ready else 503)


def _model(engine: Engine, name: str, version: str) -> Model:
    model = engine.model(name)
    if version != _VERSION:
        raise ServeError(404, f"model {model.name} has no version {version[:20]!r}; expected {_VERSION}")
    return model


async def _read(engine: Engine, request: Request) -> InferRequest:
    body = await request.body()
    encoding = request.headers.get("content-encoding", "").strip().lower()
    length = request.headers.get(_HEADER_LENGTH)
    if encoding not in ("", "identity"):
        body = await engine.run(functools.partial(unpacked, body, encoding, engine.limits.body_bytes))
        request.state.reserve(len(body))
    read = functools.partial(read_request, body, length)
    # Bytes behind a short JSON are only cut into arrays.
    short = length is not None and length.isdigit() and int(length[:9]) <= _SHORT
    return read() if short or len(body) <= _SHORT else await engine.run(read)


def _check_images(engine: Engine, images: list[bytes] | npt.NDArray[np.uint8]) -> None:
    limits = engine.limits
    if len(images) > limits.images:
        raise ServeError(413, f"got {len(images)} images; this server takes at most {limits.images}")
    if isinstance(images, np.ndarray) and images.size > 3 * limits.pixels:
        raise ServeError(413, f"the images have more than {limits.pixels} pixels, this server's limit")


async def _vocabulary(engine: Engine, model: Model, asked: InferRequest, *, limited: bool) -> Vocabulary:
    words = asked.tensors.get("words")
    if words is None:
        if (first := engine.first_words(model)) is None:
            raise ServeError(400, "the input words is missing; expected BYTES [K], one class each")
        vocabulary = first[1]
    else:
        bundle = model.segmenter.bundle
        lists = {*class_lists(), *(bundle.vocabularies if bundle else ())}
        items = words.ravel().tolist()
        vocabulary = await engine.embed(model, tensors.read_words(items, lists, limited=limited))
    tensors.check_vocabulary(vocabulary)
    return vocabulary


def _segment(
    engine: Engine,
    model: Model,
    segmenter: Segmenter,
    images: list[bytes] | npt.NDArray[np.uint8],
    limits: dict[str, float],
    asked: InferRequest,
) -> tuple[bytes, int | None]:
    """Segment and encode. Runs in a worker thread."""
    if isinstance(images, list):
        encode.check_pixels(images, engine.limits.pixels)
    results = segmenter.predict_batch(
        images, threshold=limits.get("threshold"), min_confidence=limits.get("min_confidence")
    )
    for result in results:
        engine.metrics.segmented(model.name, "http", result.speed)
    return write_answer(model.name, asked, tensors.write_outputs(results, asked.outputs))


def _described(values: Sequence[tensors.Tensor]) -> list[dict[str, Any]]:
    return [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in values]
