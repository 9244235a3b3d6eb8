"""The JSON of `/v1`, as pydantic models: what is checked, and what `/docs` shows."""

from typing import Annotated, Any, Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field

from pixelclip_sdk.segmentation import REGION_AREA
from pixelclip_sdk.words.classes import MAX_CLASSES

__all__ = [
    "ErrorBody",
    "ImageResult",
    "ImageResults",
    "LiveSettings",
    "LiveShown",
    "ModelInfo",
    "Models",
    "Options",
    "Result",
    "SegmentRequest",
    "VocabularyInfo",
    "VocabularyRequest",
]

_Words = Annotated[
    str | list[str] | dict[str, list[str] | str],
    Field(
        description='"cat, sofa", ["cat", "sofa"], {"sofa": ["sofa", "couch"]}, the name of a list such as '
        '"voc-20", or the id of a vocabulary',
        examples=["cat, sofa"],
    ),
]
# Strict: neither true nor "0.5" is a number.
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
_Limits = _Share | Annotated[dict[str, _Share], Field(max_length=MAX_CLASSES)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Options(_Strict):
    """How an image is segmented. In a multipart request, each is a form field of this name."""

    words: _Words | None = Field(None, description="The words to find; by default those of the server.")
    model: str | None = Field(None, description="A model of GET /v1/models; by default the first.")
    min_confidence: _Limits | None = Field(
        None, description="Pixels below it become unknown: 0 to 1, or by name."
    )
    threshold: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="Pixels whose best cosine is below it become unknown."
    )
    background: _Words | None = Field(None, description="Words that win pixels, which become unknown.")
    refine: Literal["auto", "edges", "off"] = Field("auto", description="Whether labels follow edges.")
    confidence: bool = Field(False, description="Whether to return the map of confidences.")
    regions: Literal["none", "boxes", "rle", "polygons"] = Field(
        "none", description="Whether to return regions, and how their shapes are written."
    )
    min_area: _Share = Field(REGION_AREA, description="Smaller regions are left out: a share of the image.")


class SegmentRequest(Options):
    """A request with images in base64."""

    image: Base64Bytes | None = Field(None, description="An image file in base64.")
    images: list[Base64Bytes] | None = Field(None, description="Several image files in base64.")


class Result(BaseModel):
    """The result of one image."""

    names: list[str] = Field(description="The words, in the order of their labels.")
    shares: dict[str, float] = Field(description="Share of the image by name, largest first.")
    unknown_share: float
    unknown: int = Field(description="The label of unknown pixels: 255, or 65535 with more than 255 words.")
    size: list[int] = Field(description="Height and width of the image.")
    labels: str = Field(description="Grey PNG in base64 whose pixel values are labels.")
    confidence: str | None = Field(None, description="Grey PNG in base64: 0–255 for 0–1.")
    regions: list[dict[str, Any]] | None = None
    speed_ms: dict[str, float] = Field(description="Milliseconds by stage.")


class _Answer(BaseModel):
    model: str
    vocabulary: str = Field(description="Send this id as `words`, and the words are not embedded again.")
    request_id: str


class ImageResult(_Answer, Result):
    """The answer to a request with `image`."""


class ImageResults(_Answer):
    """The answer to a request with `images`: one result for each, in their order."""

    results: list[Result]


class VocabularyRequest(_Strict):
    """Words to embed once."""

    words: _Words
    model: str | None = None


class VocabularyInfo(BaseModel):
    """A vocabulary that the server keeps."""

    id: str
    model: str
    names: list[str]
    synonyms: dict[str, list[str]]


class ModelInfo(BaseModel):
    """A model that the server has loaded."""

    name: str
    default: bool
    licence: str | None
    input_size: list[int]
    vocabularies: list[str]
    backend: str


class Models(BaseModel):
    """All models of the server."""

    models: list[ModelInfo]


class ErrorBody(BaseModel):
    """The answer to a request that failed: `code`, `message` and `request_id`."""

    error: dict[str, str]


class LiveSettings(_Strict):
    """A message of a live connection: how its frames are segmented from now on.

    What is not sent stays as it was; `null` goes back to the server's choice.
    """

    type: Literal["settings"]
    id: int | None = None
    model: str | None = None
    words: _Words | None = None
    vocabulary: str | None = None
    min_confidence: _Limits | None = None
    threshold: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False, strict=True)] | None = None
    background: _Words | None = None
    refine: Literal["auto", "edges", "off"] | None = None
    smooth: Literal["auto"] | _Share | None = None
    confidence: bool = True
    source: str | None = None


class LiveShown(_Strict):
    """A message of a live connection: the client has shown the result of a frame of a server's source."""

    type: Literal["shown"]
    frame: int
