"""Other pipelines for open-vocabulary segmentation, each from a JPEG's bytes to labels."""

import importlib.util
import io

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pixelclip_sdk.backends.base import Backend, Float32Array
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.backends.openvino import openvino_core
from pixelclip_sdk.bundle import IMAGE_ENCODER, Bundle
from pixelclip_sdk.preprocess import input_size
from pixelclip_sdk.support.clock import Clock
from pixelclip_sdk.support.images import open_image_file
from training.models.pair import EncoderPair

Outcome = tuple[npt.NDArray[np.integer], dict[str, float]]
"""Labels `(H, W)` and milliseconds of each stage."""


def missing(package: str) -> str:
    """Returns the reason why a rival cannot run, or an empty string."""
    if importlib.util.find_spec(package):
        return ""
    return f'{package} is not installed; pip install -e ".[bench]"'


class TorchPipeline:
    """The reference: the official code's steps in PyTorch, on the same model.

    Decode, resize as float, encode, interpolate the logits to the photo's size, argmax. `text` is `(K, D)`
    float32, unit rows. `official` resizes as in PixelCLIP's protocol: to a short side of 640, then to the
    input size without antialiasing. `compiled` uses ``torch.compile`` from the resized pixels to the labels.
    """

    def __init__(
        self, pair: EncoderPair, text: Float32Array, *, official: bool, compiled: bool = False
    ) -> None:
        self._encoder, self._spec, self._official = pair.image, pair.input, official
        self._text = torch.from_numpy(text.copy())
        self._compiled = torch.compile(self._labels) if compiled else None

    @torch.inference_mode()
    def __call__(self, jpeg: bytes) -> Outcome:
        """Segment a photo. A compiled pipeline reports encoder and postprocessing as one stage."""
        clock = Clock()
        photo = open_image_file(io.BytesIO(jpeg)).convert("RGB")
        clock.lap("decode")
        pixels = self._pixels(photo)
        clock.lap("preprocess")
        size = photo.height, photo.width
        if self._compiled is not None:
            labels = self._compiled(pixels, size)
            clock.lap("inference and postprocess")
        else:
            logits = self._encoder(pixels, self._text)[0]
            clock.lap("inference")
            labels = _upsampled_labels(logits, size)
            clock.lap("postprocess")
        return labels.numpy(), clock.laps

    def _pixels(self, photo: Image.Image) -> Tensor:
        size = input_size(photo.height, photo.width, self._spec)
        if self._official:
            scale = min(640 / min(photo.size), 2560 / max(photo.size))
            resized = round(photo.width * scale), round(photo.height * scale)
            photo = photo.resize(resized, Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float()
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=not self._official)
        return pixels.permute(0, 2, 3, 1)

    def _labels(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        return _upsampled_labels(self._encoder(pixels, self._text)[0], size)


def _upsampled_labels(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits `(1, K, h, w)` → labels `(H, W)`."""
    return F.interpolate(logits, size, mode="bilinear").argmax(1)[0]


class OpenVinoBackend(Backend):
    """A bundle in OpenVINO, with ``"f32"`` or, for None, OpenVINO's choice of precision."""

    def __init__(self, bundle: Bundle, precision: str | None) -> None:
        spec, dim = bundle.input, bundle.embedding_dim
        super().__init__(embedding_dim=dim, multiple=spec.multiple, fixed_size=spec.only_size)
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": default_threads()}
        if precision:
            config["INFERENCE_PRECISION_HINT"] = precision
        model = openvino_core().compile_model(bundle.file(IMAGE_ENCODER), "CPU", config)
        self._request = model.create_infer_request()

    @property
    def description(self) -> str:
        """The engine's name."""
        return "openvino"

    def _logits(self, images: npt.NDArray[np.uint8], text: Float32Array) -> Float32Array:
        return self._run("logits", images, text)

    def _features(self, images: npt.NDArray[np.uint8]) -> Float32Array:
        return self._run("features", images, np.zeros((1, self.embedding_dim), np.float32))

    def _run(self, output: str, images: npt.NDArray[np.uint8], text: Float32Array) -> Float32Array:
        return self._request.infer({"image": images, "text": text})[output].copy()


class ClipSeg:
    """CLIPSeg from transformers, with random weights in the shape of `CIDAS/clipseg-rd64-refined`.

    As in its examples, the whole network runs once per prompt at 352². Prompts are embedded beforehand.
    """

    _SIDE = 352
    # Of CLIPSeg's image processor.
    _MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    _STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def __init__(self, prompts: int) -> None:
        from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

        torch.manual_seed(0)
        config = CLIPSegConfig(vision_config={"patch_size": 16})
        self._model = CLIPSegForImageSegmentation(config).eval()
        self._embeddings = torch.randn(prompts, 1, config.projection_dim)

    @torch.inference_mode()
    def __call__(self, jpeg: bytes) -> Outcome:
        """Segment a photo."""
        clock = Clock()
        photo = open_image_file(io.BytesIO(jpeg)).convert("RGB")
        clock.lap("decode")
        small = np.array(photo.resize((self._SIDE, self._SIDE), Image.Resampling.BILINEAR))
        pixels = ((torch.from_numpy(small).permute(2, 0, 1) / 255 - self._MEAN) / self._STD)[None]
        clock.lap("preprocess")
        results = [self._model(pixel_values=pixels, conditional_embeddings=e) for e in self._embeddings]
        logits = torch.stack([result.logits for result in results])
        clock.lap("inference")
        labels = _upsampled_labels(logits.view(1, -1, self._SIDE, self._SIDE), (photo.height, photo.width))
        clock.lap("postprocess")
        return labels.numpy(), clock.laps
