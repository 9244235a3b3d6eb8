"""Bodies of `/v1/segment`: JSON with images in base64, or a form with image files."""

import json
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from pixelclip_sdk.serve.errors import ServeError
from pixelclip_sdk.serve.schemas import Options, SegmentRequest

__all__ = ["explain", "parse_json", "read_segment_request"]

M = TypeVar("M", bound=BaseModel)

_FIELDS = 32
_FIELD_BYTES = 1 << 20
# Form fields that hold text; the others hold JSON, or a plain number or word.
_TEXTS = ("model", "refine", "regions")


async def read_segment_request(headers: Headers, body: bytes) -> tuple[Options, list[bytes], bool]:
    """Return the options, the image files, and whether the client asked for a list of results.

    Raises:
        ServeError: 400 or 422 for a body that cannot be used, 413 for too many fields, 415 for another type.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(headers, body)
    if kind != "application/json":
        raise ServeError(
            415,
            f"the content type is {kind[:100]!r}; expected multipart/form-data with the field image, "
            "or application/json with image in base64",
        )
    request = parse_json(SegmentRequest, body)
    if (request.image is None) == (request.images is None):
        raise ServeError(422, "expected either image (a file in base64) or images (a list of them)")
    images = request.images if request.image is None else [request.image]
    return request, list(images or ()), request.image is None


def parse_json(schema: type[M], body: bytes) -> M:
    """Check the JSON of a body. Raises ServeError 422 that names the field."""
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise ServeError(422, explain(error)) from None


async def _read_form(headers: Headers, body: bytes) -> tuple[Options, list[bytes], bool]:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        headers, chunks(), max_files=_FIELDS, max_fields=_FIELDS, max_part_size=_FIELD_BYTES
    )
    parser.spool_max_size = len(body) + 1  # Nothing goes to a temporary file.
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:  # KeyError: no boundary.
        raise ServeError(400, f"the form cannot be read: {error or 'it has no boundary'}") from None
    files: dict[str, list[bytes]] = {"image": [], "images": []}
    values: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in files:
            # A field without a file name is sent by clients that forget the @ of curl.
            if not isinstance(value, UploadFile):
                raise ServeError(422, f"the field {name} is text; expected a file: -F image=@photo.jpg")
            files[name].append(await value.read())
        elif isinstance(value, UploadFile):
            raise ServeError(422, f"the field {name[:100]!r} is a file; send the image in the field image")
        elif name in values:
            raise ServeError(422, f"the field {name[:100]!r} came twice")
        else:
            values[name] = _plain(name, value)
    if bool(files["image"]) == bool(files["images"]) or len(files["image"]) > 1:
        raise ServeError(422, "expected one file in the field image, or one or more in the field images")
    try:
        return Options.model_validate(values), files["image"] or files["images"], bool(files["images"])
    except ValidationError as error:
        raise ServeError(422, explain(error)) from None


def _plain(name: str, text: str) -> Any:
    """A form field as JSON: a list or mapping of words, a number; other text stays text."""
    if name in _TEXTS or (name in ("words", "background") and text.strip()[:1] not in ("[", "{")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def explain(error: ValidationError) -> str:
    """The first problem of each field."""
    problems: dict[str, str] = {}
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        field = str(problem["loc"][0])[:50] if problem["loc"] else "the body"
        problems.setdefault(field, problem["msg"])
    return "; ".join(f"{field}: {message}" for field, message in list(problems.items())[:3])[:1000]
