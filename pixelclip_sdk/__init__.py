"""Open-vocabulary semantic segmentation: words and an image in, a label map out.

>>> from pixelclip_sdk import Segmenter
>>> with Segmenter.from_pretrained("pixelclip-lite", classes=["cat", "sofa"]) as segmenter:
...     result = segmenter.predict("photo.jpg")

Only the names in ``__all__`` are stable. Each is loaded when it is first used, so that a program which
only imports this module pays nothing; the inference runtime and the tokenizer are loaded with a model.
"""

import logging
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pixelclip_sdk._version import __version__

# onnxruntime reads this when it is imported. Without it, version 1.32 writes a device id below the home
# folder and sends events over the network. A user who sets the variable to 0 gets what they asked for.
if "onnxruntime" in sys.modules and "ORT_DISABLE_TELEMETRY" not in os.environ:
    logging.getLogger(__name__).warning(
        "onnxruntime was imported before pixelclip_sdk, so its telemetry is on. "
        "Import pixelclip_sdk first, or set ORT_DISABLE_TELEMETRY=1 in the environment."
    )
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from pixelclip_sdk.bundle import Bundle
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
    from pixelclip_sdk.segmentation import Segmentation
    from pixelclip_sdk.segmenter import Segmenter
    from pixelclip_sdk.words.classes import class_list, class_lists
    from pixelclip_sdk.words.vocabulary import Vocabulary, read_classes

__all__ = [
    "BackendError",
    "BackendUnavailableError",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "ImageError",
    "ModelNotFoundError",
    "OutputError",
    "PixelClipError",
    "Segmentation",
    "Segmenter",
    "Vocabulary",
    "VocabularyError",
    "__version__",
    "class_list",
    "class_lists",
    "read_classes",
]

_HOME = {
    "Bundle": "bundle",
    "Segmentation": "segmentation",
    "Segmenter": "segmenter",
    "Vocabulary": "words.vocabulary",
    "class_list": "words.classes",
    "class_lists": "words.classes",
    "read_classes": "words.vocabulary",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
