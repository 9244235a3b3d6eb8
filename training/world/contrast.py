"""Trains a small CLIP on images and captions with CLIP's loss (InfoNCE; Radford et al. 2021, figure 3)."""

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
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.support.images import open_image_file
from training.models.clip.build import build_clip, configured_model
from training.models.clip.tokenizer import clip_tokenizer

__all__ = ["Pairs", "read_pairs", "train_contrast"]

_log = logging.getLogger("training")

_PEAK = 2e-3  # highest learning rate


@dataclass(frozen=True)
class Pairs:
    """Images and their captions."""

    images: Tensor  # uint8 [N, 3, S, S], RGB
    captions: tuple[str, ...]


def read_pairs(folder: Path, side: int) -> Pairs:
    """Read the images and captions of a folder of `write_scenes`; images are resized to `side` pixels."""
    captions = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
    images = np.empty((len(captions), side, side, 3), np.uint8)
    for row, stem in zip(images, captions, strict=True):
        with open_image_file(folder / "images" / f"{stem}.png") as image:
            row[:] = np.asarray(image.resize((side, side), Image.Resampling.BOX))
    return Pairs(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), tuple(captions.values()))


def train_contrast(
    model_file: Path, pairs: Pairs, out: Path, *, steps: int, seed: int, batch: int = 64
) -> list[float]:
    """Train a CLIP from random weights, write its weights, and return the loss of every step.

    `model_file` is an open_clip configuration, JSON. `out`, safetensors, is a ``checkpoint`` for
    `training.train` with the same ``model``. The other captions of a batch are negatives. The learning rate
    has a linear warm-up over 5 % of the steps, then a cosine to 0. AdamW decays matrices other than
    word embeddings.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = configured_model(model_file)
    encodings = clip_tokenizer().encode_batch(list(pairs.captions))
    ids = pad_sequence([torch.tensor(encoding.ids) for encoding in encodings], batch_first=True)
    # Only words of captions get gradients, so the optimiser sees a small embedding table. Ids keep their
    # order: padding stays 0, and the end of text stays the largest.
    used = torch.cat([ids.new_zeros(1), ids.flatten()]).unique()
    ids = torch.searchsorted(used, ids)
    pair = build_clip(model_file.name, model)
    table = model.token_embedding
    small = nn.Embedding.from_pretrained(table.weight.detach()[used], freeze=False)
    model.token_embedding = pair.text.token_embedding = small
    model.train()
    decayed, not_decayed = [], []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or "embedding" in name
        (not_decayed if plain else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": not_decayed, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6, fused=True)
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    losses: list[float] = []
    start = time.monotonic()
    for step in range(steps):
        rate = _PEAK * min((step + 1) / (0.05 * steps), (1 + math.cos(math.pi * step / steps)) / 2)
        for group in optimiser.param_groups:
            group["lr"] = rate
        if len(order) < batch:
            order = torch.randperm(len(pairs.images), generator=generator)
        chosen, order = order[:batch], order[batch:]
        batch_images = _augmented(pairs.images[chosen], generator)
        words = ids[chosen]
        words = words[:, : int((words > 0).sum(1).max())]
        images = model.encode_image((batch_images - pair.image.mean) / pair.image.std)
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
            _log.info("CLIP step %d/%d loss %.3f, %.0f s", step + 1, steps, recent, time.monotonic() - start)
    model.eval()
    with torch.no_grad():
        table.weight[used] = model.token_embedding.weight
    model.token_embedding = table
    _copy_used_words(table.weight, used, generator)
    content = save({name: value.contiguous() for name, value in model.state_dict().items()})
    with atomic_write(out) as temporary:
        temporary.write_bytes(content)
    return losses


@torch.no_grad()
def _copy_used_words(table: Tensor, used: Tensor, generator: torch.Generator) -> None:
    """Give every unused word the embedding of a random used word.

    The captions use about 400 of the 49 408 words of CLIP's tokenizer. PixelCLIP's prompts start from random
    words, which CLIP knows; here nearly all of them would be untrained.
    """
    known = used[1:-2]  # without padding, start and end of text
    is_unused = torch.ones(len(table), dtype=torch.bool)
    is_unused[used] = False
    unused = is_unused.nonzero()[:, 0]
    table[unused] = table[known[torch.randint(len(known), (len(unused),), generator=generator)]]


def _augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip half of the images and vary contrast and brightness: float `[N, 3, S, S]`."""
    n = len(images)
    gain = 1 + 0.2 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    shift = 30 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    flipped = torch.rand(n, generator=generator) < 0.5
    varied = torch.where(flipped[:, None, None, None], images.flip(3), images).float()
    return (varied * gain + shift).clamp(0, 255)
