"""Align pixelclip-lite with photos that have words, in closed form.

``python training/align.py --config training/configs/pixelclip-lite-words.yaml photos=DIR words=FILE out=OUT``

Two things are learnt, without gradients: the ridge map of the image encoder, and where in the space of the
features the words of the photos are (anchors of the text encoder). The same photos and settings give the same
file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.files import atomic_write
from training.alignment.cells import Cells, assign, read_cells
from training.alignment.ridge import places_of, sample, solve
from training.alignment.words import read_photo_words
from training.models.lite.build import LiteImageEncoder, LiteTextEncoder
from training.models.lite.weights import weights_of
from training.models.load import load_model
from training.models.pair import EncoderPair
from training.models.runtime import TorchTextEncoder, embed_texts
from training.runs.config import ConfigError, load_config

__all__ = ["Settings", "align", "main"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of an alignment. The defaults made the bundled model."""

    photos: Path  # folder of photos
    words: Path  # JSON or CSV file: photo → words or sentences, see `read_photo_words`
    out: Path  # output, a .safetensors file for --checkpoint

    model: str = "pixelclip-lite"
    checkpoint: Path | None = None  # weights to start from; None for the model's own
    competitors: tuple[str, ...] = ()  # words that may be in any photo; a cell that shows one is not used
    people: tuple[str, ...] = ()  # words for people: all of them are the first one
    rounds: int = 2  # times that cells get words and the map is solved; 0 keeps the map
    cells: int = 600  # cells of a word, at most; drawn at random
    min_cells: int = 30  # words with fewer cells are not used
    power: float = 0.7  # a word weighs its number of cells to this power
    penalty: float = 1000.0  # λ of the ridge regression
    share: float = 0.65  # of the solved map in the result; the rest is the start's
    anchors: bool = True  # whether words become anchors of the text encoder
    anchor_cells: int = 100  # cells of a word to become one, at least
    anchor_photos: int = 5  # photos with such a cell, at least
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "seed", "power"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")
        for name in ("cells", "min_cells", "penalty", "anchor_cells", "anchor_photos"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected more than 0")
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share is {self.share}; expected 0 (the start) to 1")


class _Words:
    """The words of all photos and of the competitors, as rows of `text`."""

    def __init__(self, settings: Settings, photos: Sequence[Sequence[str]], pair: EncoderPair) -> None:
        people = settings.people
        same = dict.fromkeys(people[1:], *people[:1])
        own = [sorted({same.get(word, word) for word in words}) for words in photos]
        self.names = sorted({word for words in own for word in words} | {*settings.competitors, *people[:1]})
        row = {name: index for index, name in enumerate(self.names)}
        self.of_photos = [[row[word] for word in words] for words in own]
        self.competitors = [row[same.get(word, word)] for word in settings.competitors]
        encoder = TorchTextEncoder(pair)

        def embed(words: Sequence[str]) -> Tensor:
            return torch.from_numpy(encoder.encode([pair.templates[0].format(word) for word in words]))

        self.text = embed(self.names)
        self.synonyms: dict[int, Tensor] = {}
        if people:
            self.synonyms[row[people[0]]] = everyone = embed(people)
            self.text[row[people[0]]] = F.normalize(everyone.mean(0), dim=-1)

    def labels(self, cells: Cells, embedded: Tensor) -> Tensor:
        """Returns the row of each cell's word, -1 for none; see `assign`."""
        return assign(embedded, cells.starts, self.of_photos, self.competitors, self.text, self.synonyms)

    def photos_with(self, labels: Tensor, cells: Cells) -> list[int]:
        """Returns the number of photos with a cell of each word."""
        parts = labels.tensor_split(cells.starts[1:-1])
        found = [row for part in parts for row in part.unique().tolist()]
        return [found.count(row) for row in range(len(self.names))]


@torch.no_grad()
def align(settings: Settings, pair: EncoderPair) -> list[str]:
    """Aligns a pixelclip-lite with photos, in place, and returns the words that became anchors.

    Raises:
        PixelClipError: The model is another one, or the photos or words cannot be used.
    """
    image, text = pair.image, pair.text
    if not (isinstance(image, LiteImageEncoder) and isinstance(text, LiteTextEncoder)):
        raise PixelClipError(f"{pair.name} cannot be aligned with words; only pixelclip-lite has a ridge map")
    photo_words = read_photo_words(settings.words, settings.photos)
    cells = read_cells(pair, list(photo_words))
    words = _Words(settings, list(photo_words.values()), pair)
    start = image.ridge.weight.T.clone(), image.ridge.bias.clone()
    for number in range(settings.rounds):
        labels = words.labels(cells, cells.embedded(image))
        counts = labels[labels >= 0].bincount(minlength=len(words.names))
        labels[counts[labels] < settings.min_cells] = -1
        chosen = sample(labels, settings.cells, settings.seed)
        if not len(chosen):
            raise PixelClipError(
                f"no word has {settings.min_cells} cells; give more photos, or lower min_cells"
            )
        shown = labels[chosen]
        weights = (counts.double() ** settings.power / shown.bincount(minlength=len(counts)))[shown].float()
        used = int((counts >= settings.min_cells).sum())
        print(f"round {number + 1}: {used} words, {int((labels >= 0).sum())} of {len(labels)} cells")
        solved = solve(cells.features[chosen].float(), words.text[shown], weights, *start, settings.penalty)
        mean = [old.lerp(new, settings.share) for old, new in zip(start, solved, strict=True)]
        image.ridge.load_state_dict({"weight": mean[0].T, "bias": mean[1]})
    return _anchor(settings, pair, words, cells) if settings.anchors else []


def _anchor(settings: Settings, pair: EncoderPair, words: _Words, cells: Cells) -> list[str]:
    """Makes the words with enough cells anchors; those that the text encoder has already move."""
    text = pair.text
    embedded = cells.embedded(pair.image)
    labels = words.labels(cells, embedded)
    counts = labels[labels >= 0].bincount(minlength=len(words.names))
    seen = torch.tensor(words.photos_with(labels, cells))
    rows = ((counts >= settings.anchor_cells) & (seen >= settings.anchor_photos)).nonzero()[:, 0]
    names = [words.names[row] for row in rows]
    if not names:
        return []
    sentences = [pair.templates[0].format(name) for name in names]
    anchors = embed_texts(text.tower, pair.tokenizer, pair.text_inputs, sentences)
    text.add_anchors(anchors, places_of(embedded, labels, rows))
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="align.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--config", required=True, type=path, metavar="FILE", help="settings, a YAML file")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that replace those of FILE"
    )
    options = parser.parse_args(arguments)
    return run_command("align", lambda: _align(options))


def _align(options: argparse.Namespace) -> int:
    settings = load_config(options.config, options.overrides, Settings)
    pair = load_model(settings.model, checkpoint=settings.checkpoint)
    names = align(settings, pair)
    with atomic_write(settings.out) as temporary:
        temporary.write_bytes(save(weights_of(pair), metadata={"words": json.dumps(names)}))
    print(f"{len(names)} words became anchors: {', '.join(names)}")
    print(f"→ {settings.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
