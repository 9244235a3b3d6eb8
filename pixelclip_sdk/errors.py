"""The exceptions of this library.

::

    PixelClipError
    ├── ImageError           an image cannot be read or used
    ├── VocabularyError      class names cannot be used
    ├── BundleError          a model folder is incomplete, modified or of another version
    │   └── ModelNotFoundError   there is no model of that name on this machine
    ├── BackendError         an inference engine failed or cannot run its input
    │   └── BackendUnavailableError  a package, execution provider or device is missing
    ├── CheckpointError      weights cannot be downloaded, read or loaded into their model
    └── OutputError          a result cannot be written

A message states the input, what was expected, and how to fix it. ``__cause__`` is the underlying error.
"""


class PixelClipError(Exception):
    """Base class of all exceptions of this library."""


class ImageError(PixelClipError, ValueError):
    """An image cannot be read or used."""


class VocabularyError(PixelClipError, ValueError):
    """Class names cannot be used."""


class BundleError(PixelClipError):
    """A model folder is incomplete, modified or of another version."""


class ModelNotFoundError(BundleError):
    """There is no model of that name on this machine."""


class BackendError(PixelClipError):
    """An inference engine failed or cannot run its input."""


class BackendUnavailableError(BackendError):
    """A package, execution provider or device is missing."""


class CheckpointError(PixelClipError):
    """Weights cannot be downloaded, read or loaded into their model."""


class OutputError(PixelClipError):
    """A result cannot be written."""
