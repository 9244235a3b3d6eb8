"""The routes of `/v1`: segment images, keep vocabularies, list models."""

import functools
import json
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.serve import encode
from pixelclip_sdk.serve.engine import Engine, Model
from pixelclip_sdk.serve.errors import ServeError
from pixelclip_sdk.serve.forms import parse_json, read_segment_request
from pixelclip_sdk.serve.schemas import (
    ErrorBody,
    ImageResult,
    ImageResults,
    ModelInfo,
    Models,
    Options,
    SegmentRequest,
    VocabularyInfo,
    VocabularyRequest,
)
from pixelclip_sdk.support.clock import Clock
from pixelclip_sdk.words.vocabulary import Vocabulary

__all__ = ["make_router"]

# A header of names beyond this is left out: proxies refuse long ones.
_HEADER_BYTES = 4096

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 404, 413, 415, 422, 503)
}


def make_router(engine: Engine) -> APIRouter:
    """The routes, for one engine."""
    router = APIRouter(prefix="/v1", responses=_ERRORS)

    @router.post(
        "/segment",
        response_model=ImageResult | ImageResults,
        openapi_extra=_segment_body(),
        summary="Segment one image or several",
    )
    async def segment(request: Request) -> Response:
        """Send an image file in the form field `image`, or in base64 in JSON, with the words to find.

        The answer is JSON with a label map. With `Accept: image/png` it is the label map itself, a grey PNG
        whose pixel values are labels; with `Accept: image/jpeg`, the image with the classes drawn over it.
        """
        media = _accepted(request.headers.get("accept", ""))
        options, images, several = await read_segment_request(request.headers, await request.body())
        if several and media != "application/json":
            raise ServeError(406, f"{media} is for one image; send it in the field image, or accept JSON")
        if len(images) > engine.limits.images:
            raise ServeError(
                413, f"got {len(images)} images; this server takes at most {engine.limits.images}"
            )
        model = engine.model(options.model)
        vocabulary_id, vocabulary = await _vocabulary(engine, model, options)
        background = None if options.background is None else await engine.embed(model, options.background)
        segmenter = model.segmenter.with_classes(vocabulary)
        results = await engine.run(
            functools.partial(
                _segment, engine, model, segmenter, images, options, background, _encoder(media, options)
            )
        )
        facts = {"model": model.name, "vocabulary": vocabulary_id, "request_id": request.state.request_id}
        if media == "application/json":
            return JSONResponse({**facts, "results": results} if several else {**facts, **results[0]})
        return Response(results[0], media_type=media, headers=_headers(vocabulary_id, vocabulary))

    @router.post("/vocabularies", summary="Embed words once")
    async def create_vocabulary(request: Request) -> VocabularyInfo:
        """The words are embedded, and kept for a while under the id of the answer."""
        wanted = parse_json(VocabularyRequest, await request.body())
        model = engine.model(wanted.model)
        return _vocabulary_info(model, *await engine.keep(model, wanted.words))

    @router.get("/vocabularies/{vocabulary_id}", summary="The words of a vocabulary")
    async def get_vocabulary(vocabulary_id: str, model: str | None = None) -> VocabularyInfo:
        chosen = engine.model(model)
        return _vocabulary_info(chosen, vocabulary_id, engine.kept(chosen, vocabulary_id))

    @router.get("/models", summary="The models of this server")
    async def list_models() -> Models:
        return Models(models=[_model_info(model, engine.default) for model in engine.models.values()])

    return router


def _segment(
    engine: Engine,
    model: Model,
    segmenter: Segmenter,
    images: list[bytes],
    options: Options,
    background: Vocabulary | None,
    encoded: Callable[[Segmentation], Any],
) -> list[Any]:
    """Segment and encode. Runs in a worker thread."""
    encode.check_pixels(images, engine.limits.pixels)
    results = segmenter.predict_batch(
        images,
        threshold=options.threshold,
        min_confidence=options.min_confidence,
        background=background,
        refine=options.refine,
    )
    answers = []
    for result in results:
        clock = Clock()
        answers.append(encoded(result))
        clock.lap("encode")
        engine.metrics.segmented(model.name, "http", {**result.speed, **clock.laps})
    return answers


def _encoder(media: str, options: Options) -> Callable[[Segmentation], Any]:
    if media == "image/png":
        return lambda result: encode.grey_png(result.labels)
    if media == "image/jpeg":
        return encode.overlay_jpeg
    return functools.partial(
        encode.as_json,
        confidence=options.confidence,
        regions=options.regions,
        min_area=options.min_area,
    )


def _accepted(accept: str) -> str:
    """The first media type of an Accept header that can be sent."""
    for part in accept.split(","):
        media = part.partition(";")[0].strip().lower()
        if media in ("image/png", "image/jpeg"):
            return media
        if media in ("", "*/*", "application/*", "application/json"):
            return "application/json"
    raise ServeError(
        406,
        f"Accept is {accept[:100]!r}; expected application/json, image/png (labels) or image/jpeg (overlay)",
    )


async def _vocabulary(engine: Engine, model: Model, options: Options) -> tuple[str, Vocabulary]:
    if options.words is not None:
        return await engine.keep(model, options.words)
    if (first := engine.first_words(model)) is None:
        raise ServeError(422, 'no words; send them in the field words, e.g. "cat, sofa"')
    return first


def _headers(vocabulary_id: str, vocabulary: Vocabulary) -> dict[str, str]:
    names = json.dumps(list(vocabulary.names)).replace("\x7f", "\\u007f")  # JSON leaves it, headers may not.
    return {"X-Vocabulary": vocabulary_id, **({"X-Names": names} if len(names) <= _HEADER_BYTES else {})}


def _vocabulary_info(model: Model, vocabulary_id: str, vocabulary: Vocabulary) -> VocabularyInfo:
    synonyms = {name: list(texts) for name, texts in vocabulary.synonyms.items()}
    return VocabularyInfo(id=vocabulary_id, model=model.name, names=list(vocabulary.names), synonyms=synonyms)


def _model_info(model: Model, default: str) -> ModelInfo:
    bundle = model.segmenter.bundle
    return ModelInfo(
        name=model.name,
        default=model.name == default,
        licence=bundle.license if bundle else None,
        input_size=[bundle.input.height, bundle.input.width] if bundle else [],
        vocabularies=sorted(bundle.vocabularies) if bundle else [],
        backend=model.segmenter.engine_description,
    )


def _segment_body() -> dict[str, Any]:
    """What `/docs` shows for the body, which is read by hand because it has two types."""
    form = Options.model_json_schema(ref_template="#/components/schemas/{model}")
    file = {"type": "string", "format": "binary"}
    form["properties"] = {
        "image": {**file, "description": "An image file."},
        "images": {"type": "array", "items": file, "description": "Several image files."},
        **form["properties"],
    }
    content = {
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": SegmentRequest.model_json_schema()},
    }
    return {"requestBody": {"required": True, "content": content}}
