"""Triton's Python model: images and words in, label maps out. `export/to_triton.py` copies it.

The tensors are those of `pixelclip_sdk.serve.tensors`. Triton starts one process for each instance; each
loads the bundle beside this file once and takes its share of the processor's cores.
"""

import functools
import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils  # Triton provides it.

from pixelclip_sdk import BackendError, BundleError, PixelClipError, Segmenter, Vocabulary, class_lists
from pixelclip_sdk.backends.cores import default_threads
from pixelclip_sdk.serve import tensors

_VOCABULARIES = 128  # Words that are embedded once while clients send them again and again.


class TritonPythonModel:
    """What Triton calls. `execute` is never called by two threads of a process at once."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle."""
        _check_arrays()
        instances = sum(group["count"] for group in json.loads(args["model_config"])["instance_group"])
        self._segmenter = Segmenter.from_pretrained(
            Path(__file__).with_name("bundle"), device="cpu", threads=max(default_threads() // instances, 1)
        )
        self._lists = {*self._segmenter.bundle.vocabularies, *class_lists()}
        self._vocabulary = functools.lru_cache(_VOCABULARIES)(self._embed)

    def execute(self, requests: list) -> list:
        """Answer each request; one that cannot be answered gets an error and leaves the others alone."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """Release the model."""
        self._segmenter.close()

    def _answer(self, request: "pb_utils.InferenceRequest") -> "pb_utils.InferenceResponse":
        try:
            inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            images, limits = tensors.read_images(inputs), tensors.read_limits(inputs)
            vocabulary = self._vocabulary(tuple(inputs["words"].ravel()), bool(limits))
            results = self._segmenter.with_classes(vocabulary).predict_batch(images, **limits)
            outputs = tensors.write_outputs(results, request.requested_output_names())
        except PixelClipError as error:
            ours = isinstance(error, BackendError | BundleError)
            code = pb_utils.TritonError.INTERNAL if ours else pb_utils.TritonError.INVALID_ARG
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in outputs.items()])

    def _embed(self, items: tuple[bytes, ...], limited: bool) -> Vocabulary:
        vocabulary = self._segmenter.embed(tensors.read_words(items, self._lists, limited=limited))
        tensors.check_vocabulary(vocabulary)
        return vocabulary


def _check_arrays() -> None:
    """Raise if arrays do not reach this file: Triton up to 24.10 reads numpy 2 wrongly, without an error."""
    array = np.arange(4, dtype=np.uint8)
    if np.__version__[:2] != "1." and list(pb_utils.Tensor.from_dlpack("probe", array).as_numpy()) != [
        0,
        1,
        2,
        3,
    ]:
        raise pb_utils.TritonModelException(
            f"this Triton cannot read arrays of numpy {np.__version__}; take Triton 24.11 or newer, or "
            "pip install 'numpy<2'"
        )
