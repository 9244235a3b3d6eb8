"""The two pretrained networks of pixelclip-lite, as plain torch modules.

They are not imported from timm or transformers, to control every node of the exported graph: fixed padding,
no shape-dependent Python, only convolutions, matrix products and pointwise functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["EfficientNetLite", "MiniLM"]

_MINILM_EPS = 1e-12
# Each stage of EfficientNet-B0 (Tan & Le 2019, table 1), here without squeeze-and-excitation:
# (expansion, kernel, stride, channels, repeats).
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_BN_EPS = 1e-3  # TensorFlow's default, used in training


class _ConvBnRelu6(nn.Module):
    """Convolution, batch norm (inference statistics) and, unless linear, ReLU6.

    TensorFlow's "SAME" padding of a stride-2 convolution on an even-sized map pads the end by one pixel more.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=_BN_EPS)
        total = kernel - stride
        self.padding = (total // 2, total - total // 2) * 2
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        if any(self.padding):
            x = F.pad(x, self.padding)
        x = self.bn(self.conv(x))
        return x if self.linear else F.relu6(x)


class _InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection; with a residual connection if the shapes match."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers = [] if expansion == 1 else [_ConvBnRelu6(inputs, hidden, 1)]
        layers += [
            _ConvBnRelu6(hidden, hidden, kernel, stride, groups=hidden),
            _ConvBnRelu6(hidden, outputs, 1, linear=True),
        ]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite without pooling and classifier: a dense feature map.

    `width` and `depth` multiply channels and repeats (Tan & Le 2019, section 3); Lite0 has 1 and 1.
    """

    channels = 1280
    stride = 32  # input pixels per output cell

    def __init__(self, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        self.stem = _ConvBnRelu6(3, 32, 3, stride=2)
        blocks: list[nn.Module] = []
        inputs = 32
        for number, (expansion, kernel, stride, channels, repeats) in enumerate(_STAGES):
            outputs = _scaled_channels(channels, width)
            # The first and the last stage keep their single block.
            count = repeats if number in (0, len(_STAGES) - 1) else math.ceil(repeats * depth)
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(_InvertedResidual(inputs, outputs, expansion, kernel, step))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = _ConvBnRelu6(inputs, self.channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(pixel - 127) / 128`, `[N, 3, H, W]`, to features `[N, 1280, H/32, W/32]` in 0-6 (ReLU6)."""
        return self.head(self.blocks(self.stem(x)))

    def load_pretrained(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loads the published weights, tensors in the order of this module's parameters.

        Returns:
            The two tensors that follow: weight `[1000, 1280]` and bias `[1000]` of the classifier.
        """
        *trunk, weight, bias = tensors.values()
        self.load_state_dict(dict(zip(self.state_dict(), trunk, strict=True)))
        return weight, bias


def _scaled_channels(channels: int, width: float) -> int:
    """Rounds scaled channels to a multiple of 8, by at most a tenth down, as the published networks do."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8


class _MiniLMLayer(nn.Module):
    """One post-norm transformer layer of BERT (Devlin et al. 2019)."""

    heads = 12

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm_attention = nn.LayerNorm(width, eps=_MINILM_EPS)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.norm_out = nn.LayerNorm(width, eps=_MINILM_EPS)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + bias
        attended = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = self.norm_attention(x + self.out(attended))
        return self.norm_out(x + self.down(F.gelu(self.up(x))))


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2: token ids to one sentence embedding (mean-pooled, unit norm)."""

    width = 384
    # Name of each part of a layer: here, in the published file.
    _NAMES = (
        ("query", "attention.self.query"),
        ("key", "attention.self.key"),
        ("value", "attention.self.value"),
        ("out", "attention.output.dense"),
        ("norm_attention", "attention.output.LayerNorm"),
        ("up", "intermediate.dense"),
        ("down", "output.dense"),
        ("norm_out", "output.LayerNorm"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30522, self.width)
        self.positions = nn.Embedding(512, self.width)
        self.norm = nn.LayerNorm(self.width, eps=_MINILM_EPS)
        self.layers = nn.ModuleList(_MiniLMLayer(self.width, hidden=1536) for _ in range(6))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Maps int64 ids and mask (0 for padding) `[B, T]`, T at most 512, to unit rows `[B, 384]`."""
        mask = attention_mask.to(self.norm.weight.dtype)
        # Plain indexing, because F.embedding names its ONNX value "embedding", like the graph's output.
        return self.embed_words(self.words.weight[input_ids], mask)

    def embed_words(self, words: Tensor, mask: Tensor) -> Tensor:
        """Embeds sentences given as word embeddings `[B, T, 384]`, which may be learned; mask as float."""
        x = self.norm(words + self.positions.weight[: words.shape[1]])
        # exp(-1e4) is 0, and -1e4 is representable in fp16.
        bias = (1.0 - mask)[:, None, None, :] * -1e4
        for layer in self.layers:
            x = layer(x, bias)
        weights = mask.unsqueeze(-1)
        pooled = (x * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return F.normalize(pooled, dim=-1)

    def load_pretrained(self, tensors: Mapping[str, Tensor]) -> None:
        """Loads the published weights (`model.safetensors`, BERT's names)."""
        modules = {
            "words": "embeddings.word_embeddings",
            "positions": "embeddings.position_embeddings",
            "norm": "embeddings.LayerNorm",
        }
        for index in range(len(self.layers)):
            for name, published in self._NAMES:
                modules[f"layers.{index}.{name}"] = f"encoder.layer.{index}.{published}"
        state = {}
        for name in self.state_dict():
            module, _, part = name.rpartition(".")
            state[name] = tensors[f"{modules[module]}.{part}"]
        # Sentences only use token type 0, so its embedding is added to the positions.
        token_type = tensors["embeddings.token_type_embeddings.weight"][0]
        state["positions.weight"] = state["positions.weight"] + token_type
        self.load_state_dict(state)
