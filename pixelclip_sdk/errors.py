"""Every error this library raises on purpose.

::

    PixelClipError
    ├── ImageError           an input picture or array cannot be used
    ├── VocabularyError      the words cannot be used
    ├── BundleError          a model folder is incomplete, altered or of another version
    │   └── ModelNotFoundError   no model of that name on this machine
    ├── BackendError         an inference engine failed or was given something it cannot run
    │   └── BackendUnavailableError  a package, provider or device that was asked for is not there
    ├── CheckpointError      weights cannot be fetched, read or fitted to their model
    └── OutputError          a result cannot be written

A message says what was received, what was expected and what to do about it. Errors of the libraries
underneath are kept as ``__cause__``.
"""

__all__ = [
    "BackendError",
    "BackendUnavailableError",
    "BundleError",
    "CheckpointError",
    "ImageError",
    "ModelNotFoundError",
    "OutputError",
    "PixelClipError",
    "VocabularyError",
]


class PixelClipError(Exception):
    """Root of the tree: catch this to catch everything the library raises on purpose."""


class ImageError(PixelClipError, ValueError):
    """An input picture or array cannot be used."""


class VocabularyError(PixelClipError, ValueError):
    """The words cannot be used."""


class BundleError(PixelClipError):
    """A model folder is incomplete, altered or of another version."""


class ModelNotFoundError(BundleError):
    """No model of that name is on this machine."""


class BackendError(PixelClipError):
    """An inference engine failed, or was given something it cannot run."""


class BackendUnavailableError(BackendError):
    """A package, an execution provider or a device that was asked for is not there."""


class CheckpointError(PixelClipError):
    """Trained weights cannot be fetched, read or fitted to their model."""


class OutputError(PixelClipError):
    """A result cannot be written."""
