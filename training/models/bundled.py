"""A bundle's encoders as an `EncoderPair`: they run as they are, in ONNX Runtime, and cannot be trained."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from pixelclip_sdk.backends.base import Backend
from pixelclip_sdk.backends.choose import open_backend
from pixelclip_sdk.backends.onnx import create_session
from pixelclip_sdk.bundle import TEXT_ENCODER, TOKENIZER, Bundle
from pixelclip_sdk.errors import BundleError
from training.models.pair import EncoderPair

__all__ = ["BundledText", "bundled_pair"]


class BundledImage(nn.Module):
    """The image encoder of a bundle; arguments and results are those of `DenseImageEncoder`."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.backend = backend

    def encode_image(self, image: Tensor) -> Tensor:
        """Maps uint8 RGB pixels `[N, H, W, 3]` to float32 features `[N, h, w, D]` on the same device."""
        return torch.from_numpy(self.backend.features(image.cpu().numpy())).to(image.device)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the cosine similarity of each cell and each word, like `DenseImageEncoder.forward`."""
        features = self.encode_image(image)
        return (features @ text.T).permute(0, 3, 1, 2), features


class BundledText(nn.Module):
    """The text encoder of a bundle. An export copies its `file`, so that embedded words stay valid."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.file = bundle.file(TEXT_ENCODER)
        self.session = create_session(self.file)
        self.inputs = tuple(value.name for value in self.session.get_inputs())

    def forward(self, *tokens: Tensor) -> Tensor:
        """Embeds token ids, and the attention mask if the graph takes one, int64 `[B, T]`: `[B, D]`."""
        feed = {name: value.cpu().numpy() for name, value in zip(self.inputs, tokens, strict=True)}
        return torch.from_numpy(self.session.run(["embedding"], feed)[0])


def bundled_pair(bundle: Bundle, input_size: tuple[int, int] | None = None) -> EncoderPair:
    """Opens a bundle's encoders on the best engine of this machine.

    `input_size` is the nominal input `(H, W)`, None for the bundle's.

    Raises:
        BundleError: The bundle has no text encoder, or its files are damaged.
    """
    if not bundle.has_text_encoder:
        raise BundleError(
            f"bundle {bundle.name!r} has no text encoder, so a model made from it could not embed words. "
            "Export it with its text encoder."
        )
    backend = open_backend(bundle, "auto", "auto")
    image, text = BundledImage(backend), BundledText(bundle)
    return EncoderPair(
        name=bundle.name,
        license=bundle.license,
        sources=bundle.sources,
        image=image,
        text=text,
        network=image,
        text_inputs=text.inputs,
        max_tokens=0,  # The text encoder is not traced again.
        tokenizer=Tokenizer.from_file(str(bundle.file(TOKENIZER))),
        templates=bundle.templates,
        input=bundle.input.resized(input_size) if input_size else bundle.input,
        grid=bundle.grid,
        dim=bundle.embedding_dim,
        refine=bundle.refine,
    )
