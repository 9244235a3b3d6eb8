"""Pictures of training runs: ``python training/pictures.py --run RUN --root PHOTOS --out FOLDER …``.

Writes PNG files and an ``index.html`` that shows them: the photo beside what the model made of it before and
after, masks coloured by cluster, the nearest names of the learned prompts, and a map of both (t-SNE). Several
runs from the same model, of other k say, stand side by side.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk import PixelClipError, Vocabulary
from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.image import load_image
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.support.images import find_images
from pixelclip_sdk.words.classes import class_list, parse_classes
from training.data.photos import find_pairs
from training.evaluation.datasets import DATASETS, Dataset, DatasetError, load_dataset
from training.evaluation.protocols import Official, segment
from training.figures import captions, page
from training.figures.clusters import Clustered, assign, draw_clusters
from training.figures.grid import draw_grid
from training.figures.names import Words, began_as, beside_clusters, embed, nearest, with_classes, write_names
from training.figures.tsne import draw_tsne
from training.models.pair import EncoderPair
from training.models.runtime import TorchBackend, TorchTextEncoder
from training.runs.config import ConfigError
from training.runs.run import Run, open_run, with_weights
from training.support.arguments import read_words
from training.support.devices import torch_device

__all__ = ["main"]

_NAMES = 4  # nearest names of a cluster
_WORDS = "everyday-nouns"


@dataclass(frozen=True, eq=False)
class _Scenes:
    """The photos of the grid, with classes and, where they are labelled, the truth."""

    caption: str
    photos: list[npt.NDArray[np.uint8]]
    truths: list[npt.NDArray[np.uint8]] | None
    classes: Mapping[str, tuple[str, ...]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.split and options.dataset in (None, "folder"):
        parser.error("--split is a part of a set that --dataset names; a folder has none")
    if options.weights and len(options.run) > 1:
        parser.error(f"--weights are of one model; got {len(options.run)} runs, expected one --run")
    try:
        print(f"open in a browser: {_write(options)}")
    except (PixelClipError, OSError) as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "pictures: interrupted; pictures that were done are there, index.html is not new", file=sys.stderr
        )
        return 130
    return 0


def _write(options: argparse.Namespace) -> Path:
    """All pictures, then the page."""
    device = str(torch_device(options.device))
    scenes = _scenes(options)
    moved = {name: getattr(options, name) for name in ("images", "masks", "model", "checkpoint")}
    runs = [open_run(folder, **moved) for folder in options.run]
    _check_comparable(runs)
    titles = _titles(runs)
    out: Path = options.out
    after = {f"{title}, step {run.step}": run.pair for title, run in zip(titles, runs, strict=True)}
    if options.weights:
        after = {f"{titles[0]}, {options.weights.name}": with_weights(runs[0], options.weights)}
    parts = [_about(runs, titles), _grid(runs[0], after, scenes, out, device)]
    # A run without clustering has no clusters to show.
    clustered = {title: run for title, run in zip(titles, runs, strict=True) if run.config.clustering}
    if clustered:
        parts += _prompts(clustered, scenes.classes, options.photos, out, device)
    index = out / "index.html"
    with atomic_write(index) as temporary:
        temporary.write_text(page.page("PixelCLIP: pictures of a training", parts), encoding="utf-8")
    return index


def _scenes(options: argparse.Namespace) -> _Scenes:
    """The grid's photos, evenly from all that there are."""
    classes = read_words(options.classes)
    root: Path = options.root
    if options.dataset:
        data: Dataset = load_dataset(options.dataset, root, split=options.split, classes=classes)
        pairs = [data.pair(i) for i in _evenly(len(data), options.photos)]
        caption = f"{len(pairs)} of the {len(data)} photos of {data.name} {data.split}".rstrip()
        return _Scenes(caption, [photo for photo, _ in pairs], [truth for _, truth in pairs], data.classes)
    if classes is None:
        raise DatasetError(
            "photos without labels need --classes, the words to look for; or name the labelled set "
            "with --dataset"
        )
    files = find_images(root, recursive=True)
    photos = [load_image(files[i]) for i in _evenly(len(files), options.photos)]
    return _Scenes(f"{len(photos)} of {len(files)} photos", photos, None, parse_classes(classes))


def _evenly(length: int, count: int) -> list[int]:
    """At most `count` places in a list, spread over it."""
    return sorted({int(place) for place in (np.arange(count) + 0.5) * length / count})


def _check_comparable(runs: Sequence[Run]) -> None:
    """Runs side by side began alike and saw the same photos and masks.

    Raises:
        ConfigError: They did not.
    """
    for name in ("model", "checkpoint", "random_weights", "images", "masks"):
        values = [getattr(run.config, name) for run in runs]
        if len(set(values)) > 1:
            hint = "" if name == "random_weights" else f", or give --{name} for all if it only moved"
            raise ConfigError(
                f"the runs differ in {name}: {', '.join(map(str, values))}. "
                f"Compare runs that have it in common{hint}."
            )


def _titles(runs: Sequence[Run]) -> list[str]:
    """A run's name, numbered where several have the same."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else f"{name}-{i + 1}" for i, name in enumerate(names)]


def _about(runs: Sequence[Run], titles: Sequence[str]) -> str:
    config = runs[0].config
    lines = [
        f"{title}: step {run.step} of {run.config.steps}." for title, run in zip(titles, runs, strict=True)
    ]
    start = "random weights" if config.random_weights else str(config.checkpoint or "its own weights")
    return page.section("", f"Model {config.model}, from {start}; masks {config.masks}.", " ".join(lines))


def _grid(first: Run, after: Mapping[str, EncoderPair], scenes: _Scenes, out: Path, device: str) -> str:
    """Photo, start, what came out and truth side by side."""
    models = {f"{Path(first.config.model).stem} before": first.start, **after}
    predictions = {title: _segmented(pair, scenes, device) for title, pair in models.items()}
    picture, scores = draw_grid(scenes.photos, predictions, list(scenes.classes), scenes.truths)
    notes = [captions.PHOTOS, captions.SCORES] if scores else [captions.PHOTOS]
    return page.section("Photos", *notes) + _figure(
        picture, out, "grid", scenes.caption, "Photos beside their segmentations"
    )


def _segmented(pair: EncoderPair, scenes: _Scenes, device: str) -> list[npt.NDArray[np.integer]]:
    backend = TorchBackend(pair, device)
    text = Vocabulary.encode(dict(scenes.classes), TorchTextEncoder(pair)).embeddings
    return [segment(Official(), photo, text, backend, pair.input) for photo in scenes.photos]


def _prompts(
    runs: Mapping[str, Run], classes: Mapping[str, tuple[str, ...]], count: int, out: Path, device: str
) -> list[str]:
    """What the clusters do to masks, and what they mean."""
    config = next(iter(runs.values())).config
    try:
        pairs = find_pairs(config.images, config.masks)
    except ImageError as error:
        raise ImageError(
            f"{error}. If the run's photos or masks have moved, say where to: --images DIR, --masks DIR"
        ) from error
    shown = [pairs[i] for i in _evenly(len(pairs), count)]
    vocabulary = with_classes(class_list(_WORDS), classes)
    rows: dict[tuple[str, ...], npt.NDArray[np.float32]] = {}
    found: dict[str, Clustered] = {}
    words: dict[str, Words] = {}
    names: dict[str, list[list[tuple[str, float]]]] = {}
    for title, run in runs.items():
        others = [pairs[i] for i in _evenly(len(pairs), run.config.batch) if pairs[i] not in shown]
        batch = [*shown, *others][: max(run.config.batch, len(shown))]
        found[title] = assign(run, config.images, config.masks, batch, len(shown), device)
        if (templates := run.config.templates) not in rows:
            rows[templates] = embed(run, vocabulary)
        words[title] = beside_clusters(run, list(vocabulary), rows[templates])
        names[title] = nearest(words[title], _NAMES)
    first = {title: [row[0][0] for row in rows] for title, rows in names.items()}
    picture = draw_clusters(
        [load_image(config.images / name) for name in shown],
        [(f"{title}, k = {len(found[title].rank)}", found[title], first[title]) for title in runs],
    )
    caption = f"{len(shown)} of the {len(pairs)} photos with masks"
    parts = [
        page.section("Masks coloured by cluster", captions.CLUSTERS),
        _figure(picture, out, "clusters", caption, "Photos with their masks, coloured by cluster"),
        page.section(
            "Nearest names of the learned prompts",
            captions.NAMES.format(count=len(vocabulary), words=_WORDS),
        ),
        *(_table(title, run, found[title], names[title], out) for title, run in runs.items()),
        page.section("Prompts among words", captions.TSNE),
    ]
    for title in runs:
        picture = draw_tsne(words[title], found[title], list(classes), first[title])
        parts.append(_figure(picture, out, f"tsne-{title}", title, f"Map of the clusters of {title}"))
    return parts


def _table(
    title: str, run: Run, found: Clustered, names: Sequence[Sequence[tuple[str, float]]], out: Path
) -> str:
    """One run's clusters, the most used first; beside the page as CSV."""
    began, file = began_as(run), f"names-{title}.csv"
    write_names(out / file, found, names, began)
    headings = [
        "cluster",
        f"of {found.shown.sum()} masks shown",
        f"of {found.used.sum()} in the batch",
        "nearest names (cosine)",
        "began as",
    ]
    rows = []
    for cluster in np.argsort(found.rank):
        near = ", ".join(f"{name} ({cosine:.2f})" for name, cosine in names[cluster])
        cells = [str(cluster), str(found.shown[cluster]), str(found.used[cluster]), near, began[cluster]]
        rows.append(([int(value) for value in found.colours[cluster]], cells))
    centred = ", centred" if run.config.centre else ""
    heading = f"{title}: {int((found.used > 0).sum())} of {len(found.rank)} clusters in use{centred}"
    return page.names_table(heading, file, headings, rows)


def _figure(picture: Image.Image, out: Path, name: str, caption: str, alt: str) -> str:
    """Writes a picture; its HTML."""
    file = out / f"{name}.png"
    with atomic_write(file) as temporary:
        picture.save(temporary, optimize=True)
    return page.figure(file.name, picture.size, alt, caption)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pictures.py", description="PNG pictures of training runs, and a page that shows them."
    )
    parser.add_argument(
        "--run",
        required=True,
        nargs="+",
        type=Path,
        metavar="RUN",
        help="folders of training/train.py; several, from the same model, stand side by side",
    )
    parser.add_argument("--root", required=True, type=Path, metavar="DIR", help="photos to segment")
    parser.add_argument("--dataset", choices=DATASETS, help="the labelled set at --root; without: no labels")
    parser.add_argument("--split", help="of the set; default: the one that is usually scored")
    parser.add_argument(
        "--classes", metavar='FILE|"a, b"', help="words to look for; needed where the set has none"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the pictures go")
    parser.add_argument(
        "--photos", type=positive, default=6, metavar="N", help="photos in each picture (default: 6)"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="photos are segmented with these instead of the run's newest; training/average.py writes such",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1")
    moved = parser.add_argument_group("files of the runs that have moved since")
    moved.add_argument("--images", type=Path, metavar="DIR", help="photos that the runs saw")
    moved.add_argument("--masks", type=Path, metavar="DIR", help="their masks")
    moved.add_argument("--model", metavar="NAME", help="the model's name or .json file")
    moved.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights that the runs began from")
    return parser


if __name__ == "__main__":
    sys.exit(main())
