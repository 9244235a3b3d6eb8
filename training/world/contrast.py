"""A small CLIP from images and captions alone, by CLIP's loss (InfoNCE; Radford et al. 2021, figure 3)."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.support.images import open_image_file
from training.models.clip.build import build_clip, configured_model
from training.models.clip.tokenizer import clip_tokenizer
from training.models.pair import EncoderPair

__all__ = ["Pairs", "read_pairs", "top1", "train_contrast"]

_log = logging.getLogger("training")


@dataclass(frozen=True)
class Pairs:
    """Images and their captions.

    Attributes:
        images: uint8 `[N, 3, S, S]`, RGB.
        captions: `[N]`.
    """

    images: Tensor
    captions: tuple[str, ...]


def read_pairs(folder: Path, side: int) -> Pairs:
    """Reads ``FOLDER/images`` and ``FOLDER/captions.json``.

    Args:
        folder: As `training.world.scenes.write_scenes` writes it.
        side: Images are brought to this side S, in pixels.
    """
    captions = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
    images = np.empty((len(captions), side, side, 3), np.uint8)
    for row, stem in zip(images, captions, strict=True):
        with open_image_file(folder / "images" / f"{stem}.png") as image:
            row[:] = np.asarray(image.resize((side, side), Image.Resampling.BOX))
    return Pairs(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), tuple(captions.values()))


def train_contrast(
    model_file: Path,
    pairs: Pairs,
    out: Path,
    *,
    steps: int,
    seed: int,
    batch: int = 64,
    lr: float = 2e-3,
    weight_decay: float = 0.1,
) -> list[float]:
    """Trains a CLIP from random weights and writes them.

    Args:
        model_file: An open_clip configuration, JSON.
        pairs: What it learns from: nothing else.
        out: The weights, safetensors; `training.train` takes them as ``checkpoint`` with the same ``model``.
        steps: Length of the training.
        seed: Of the first weights and of the order.
        batch: Pairs a step; every other caption of it is a negative.
        lr: Peak of the learning rate: linear warm-up over a twentieth of the steps, then a cosine to 0.
        weight_decay: Of matrices but the table of words; AdamW's.

    Returns:
        The loss of every step.

    Raises:
        OutputError: The weights cannot be written, e.g. because the disk is full.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = configured_model(model_file)
    ids = _tokens(clip_tokenizer(), pairs.captions)
    # Words that no caption has get no gradient: a small table spares the optimiser all others. Ids keep their
    # order, so that padding stays 0 and the end of a text the largest.
    read = torch.cat([ids.new_zeros(1), ids.flatten()]).unique()
    ids = torch.searchsorted(read, ids)
    pair = build_clip(model_file.name, model)
    table = model.token_embedding
    small = nn.Embedding.from_pretrained(table.weight.detach()[read], freeze=False)
    model.token_embedding = pair.text.token_embedding = small
    model.train()
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or "embedding" in name
        (others if plain else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6, fused=True)
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    losses: list[float] = []
    began = time.monotonic()
    for step in range(steps):
        rate = lr * min((step + 1) / (0.05 * steps), (1 + math.cos(math.pi * step / steps)) / 2)
        for group in optimiser.param_groups:
            group["lr"] = rate
        if len(order) < batch:
            order = torch.randperm(len(pairs.images), generator=generator)
        chosen, order = order[:batch], order[batch:]
        seen = _varied(pairs.images[chosen], generator)
        words = ids[chosen]
        words = words[:, : int((words > 0).sum(1).max())]
        images = model.encode_image((seen - pair.image.mean) / pair.image.std)
        texts = pair.text(words)
        scale = model.logit_scale.exp().clamp(max=100)
        logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
        same = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        if (step + 1) % 100 == 0:
            recent = sum(losses[-100:]) / 100
            _log.info("CLIP step %d/%d loss %.3f, %.0f s", step + 1, steps, recent, time.monotonic() - began)
    model.eval()
    with torch.no_grad():
        table.weight[read] = model.token_embedding.weight
    model.token_embedding = table
    _name_again(table.weight, read, generator)
    content = save({name: value.contiguous() for name, value in model.state_dict().items()})
    with atomic_write(out) as temporary:
        temporary.write_bytes(content)  # safetensors' own writer hides why it failed
    return losses


@torch.inference_mode()
def top1(pair: EncoderPair, images: Tensor, texts: np.ndarray) -> np.ndarray:
    """The nearest text of every whole image, by its one embedding: what CLIP was trained for.

    Args:
        pair: The encoders of a CLIP.
        images: uint8 `[N, 3, S, S]` at the model's size.
        texts: float32 `[K, D]`, unit rows.

    Returns:
        int64 `[N]`.
    """
    features = pair.network.encode_image((images - pair.image.mean) / pair.image.std)
    return (features @ torch.from_numpy(texts.copy()).T).argmax(1).numpy()


@torch.no_grad()
def _name_again(table: Tensor, read: Tensor, generator: torch.Generator) -> None:
    """Makes every word that was never read a synonym of a random one that was.

    The tokenizer is CLIP's, of 49 408 words; the captions use some four hundred. PixelCLIP's prompts begin as
    random words of the vocabulary, and CLIP knows all of its own. Here nearly all would be without meaning.
    """
    known = read[1:-2]  # all but padding and the start and the end of a text
    new = torch.ones(len(table), dtype=torch.bool)
    new[read] = False
    unread = new.nonzero()[:, 0]
    table[unread] = table[known[torch.randint(len(known), (len(unread),), generator=generator)]]


def _tokens(tokenizer: Tokenizer, captions: tuple[str, ...]) -> Tensor:
    """Token ids, padded with zeros: int64 `[N, T]`."""
    encodings = [tokenizer.encode(caption).ids for caption in captions]
    ids = torch.zeros(len(encodings), max(map(len, encodings)), dtype=torch.int64)
    for row, encoding in zip(ids, encodings, strict=True):
        row[: len(encoding)] = torch.tensor(encoding)
    return ids


def _varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flips half of them and changes contrast and brightness a little: float `[N, 3, S, S]`."""
    n = len(images)
    gain = 1 + 0.2 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    shift = 30 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    flipped = torch.rand(n, generator=generator) < 0.5
    varied = torch.where(flipped[:, None, None, None], images.flip(3), images).float()
    return (varied * gain + shift).clamp(0, 255)
