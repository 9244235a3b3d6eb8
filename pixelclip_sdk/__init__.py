"""Open-vocabulary semantic segmentation: words and an image in, a label map out.

>>> from pixelclip_sdk import Segmenter
>>> with Segmenter.from_pretrained("pixelclip-lite", classes=["cat", "sofa"]) as segmenter:
...     result = segmenter.predict("photo.jpg")  # doctest: +SKIP

Only the names in ``__all__`` are stable. Each is imported on first use, so that importing this module is
fast. The inference runtime and the tokenizer are loaded with a model.
"""

import logging
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pixelclip_sdk._version import __version__

# onnxruntime reads this variable at import. Without it, version 1.32 writes a device id below the home folder
# and sends events over the network. A value of 0 that the user set is kept.
if "onnxruntime" in sys.modules and "ORT_DISABLE_TELEMETRY" not in os.environ:
    logging.getLogger(__name__).warning(
        "onnxruntime was imported before pixelclip_sdk, so its telemetry is on. "
        "Import pixelclip_sdk first, or set ORT_DISABLE_TELEMETRY=1 in the environment."
    )
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from pixelclip_sdk.backends.base import Backend
    from pixelclip_sdk.backends.fake import FakeBackend
    from pixelclip_sdk.batch.archive import ArchiveProgress, segment_archive
    from pixelclip_sdk.bundle import Bundle, InputSpec
    from pixelclip_sdk.device.arrays import DeviceArray
    from pixelclip_sdk.errors import (
        BackendError,
        BackendUnavailableError,
        BundleError,
        CheckpointError,
        ImageError,
        ModelNotFoundError,
        OutputError,
        PixelClipError,
        VocabularyError,
    )
    from pixelclip_sdk.models import available_models
    from pixelclip_sdk.propose import Proposal, propose_min_confidence
    from pixelclip_sdk.results.regions import Region
    from pixelclip_sdk.segmentation import FrameInfo, Segmentation
    from pixelclip_sdk.segmenter import Segmenter
    from pixelclip_sdk.smoothing import Smoother
    from pixelclip_sdk.video.sources import open_source
    from pixelclip_sdk.video.writer import VideoWriter, write_video
    from pixelclip_sdk.words.classes import class_list, class_lists
    from pixelclip_sdk.words.suggestions import Suggestion
    from pixelclip_sdk.words.vocabulary import Vocabulary, read_classes

__all__ = [
    "ArchiveProgress",
    "Backend",
    "BackendError",
    "BackendUnavailableError",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "DeviceArray",
    "FakeBackend",
    "FrameInfo",
    "ImageError",
    "InputSpec",
    "ModelNotFoundError",
    "OutputError",
    "PixelClipError",
    "Proposal",
    "Region",
    "Segmentation",
    "Segmenter",
    "Smoother",
    "Suggestion",
    "VideoWriter",
    "Vocabulary",
    "VocabularyError",
    "__version__",
    "available_models",
    "class_list",
    "class_lists",
    "open_source",
    "propose_min_confidence",
    "read_classes",
    "segment_archive",
    "write_video",
]

_MODULES = {
    "ArchiveProgress": "batch.archive",
    "Backend": "backends.base",
    "Bundle": "bundle",
    "DeviceArray": "device.arrays",
    "FakeBackend": "backends.fake",
    "FrameInfo": "segmentation",
    "InputSpec": "bundle",
    "Proposal": "propose",
    "Region": "results.regions",
    "Segmentation": "segmentation",
    "Segmenter": "segmenter",
    "Smoother": "smoothing",
    "Suggestion": "words.suggestions",
    "VideoWriter": "video.writer",
    "Vocabulary": "words.vocabulary",
    "available_models": "models",
    "class_list": "words.classes",
    "class_lists": "words.classes",
    "open_source": "video.sources",
    "propose_min_confidence": "propose",
    "read_classes": "words.vocabulary",
    "segment_archive": "batch.archive",
    "write_video": "video.writer",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
