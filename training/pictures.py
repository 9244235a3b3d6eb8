"""Figures of training runs: ``python training/pictures.py --run RUN --root PHOTOS --out FOLDER …``.

Writes PNG files and an ``index.html`` that shows them: photos before and after training, masks coloured by
cluster, the nearest words of the learned prompts, and a map of both (t-SNE). Several runs that started from
the same model, with different k for example, are shown side by side.
"""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from pixelclip_sdk import Vocabulary
from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.image import load_image
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.support.images import find_images
from pixelclip_sdk.words.classes import class_list, parse_classes
from training.data.photos import find_pairs
from training.evaluation.datasets import DATASETS, DatasetError, load_dataset
from training.evaluation.protocols import Official, segment
from training.figures import page
from training.figures.clusters import Clustered, assign, draw_clusters
from training.figures.grid import draw_grid, save_png
from training.figures.names import embed_words, merge_classes, name_table, nearest_words, with_clusters
from training.figures.tsne import draw_tsne
from training.models.pair import EncoderPair
from training.models.runtime import TorchBackend, TorchTextEncoder
from training.runs.config import ConfigError
from training.runs.run import Run, open_run, with_weights
from training.support.arguments import read_words
from training.support.devices import torch_device

__all__ = ["main"]

UInt8Array = npt.NDArray[np.uint8]

_NEAREST = 4  # words per cluster
_WORDS = "everyday-nouns"
_NOTES = yaml.safe_load((Path(__file__).parent / "figures" / "notes.yaml").read_text(encoding="utf-8"))

# Caption, photos, labels (None for photos without labels) and classes.
_Scenes = tuple[str, Sequence[UInt8Array], Sequence[UInt8Array] | None, Mapping[str, tuple[str, ...]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.split and options.dataset in (None, "folder"):
        parser.error("--split needs a --dataset with splits; a folder has none")
    if options.weights and len(options.run) > 1:
        parser.error(f"--weights belong to one model; got {len(options.run)} runs, expected one --run")
    left = "finished PNG files stay, index.html was not written"
    return run_command("pictures", lambda: _write(options), interrupted=left)


def _write(options: argparse.Namespace) -> int:
    """Write all figures, then the page."""
    device = str(torch_device(options.device))
    scenes = _load_scenes(options)
    moved = {name: getattr(options, name) for name in ("images", "masks", "model", "checkpoint")}
    opened = [open_run(folder, **moved) for folder in options.run]
    _check_comparable(opened)
    runs = dict(zip(_titles(opened), opened, strict=True))
    out: Path = options.out
    trained = {f"{title}, step {run.step}": run.pair for title, run in runs.items()}
    if options.weights:
        trained = {f"{next(iter(runs))}, {options.weights.name}": with_weights(opened[0], options.weights)}
    parts = [_about(runs), *_grid(opened[0], trained, scenes, out, device)]
    clustered = {title: run for title, run in runs.items() if run.config.clustering}
    if clustered:
        parts += _clusters(clustered, scenes[-1], options.photos, out, device)
    index = out / "index.html"
    with atomic_write(index) as temporary:
        temporary.write_text(page.page("PixelCLIP: figures of a training run", parts), encoding="utf-8")
    print(f"open in a browser: {index}")
    return 0


def _load_scenes(options: argparse.Namespace) -> _Scenes:
    """Load photos for the grid, evenly spread over all photos."""
    classes = read_words(options.classes)
    if options.dataset:
        data = load_dataset(options.dataset, options.root, split=options.split, classes=classes)
        pairs = [data.pair(i) for i in _evenly(len(data), options.photos)]
        caption = f"{len(pairs)} of the {len(data)} photos of {data.name} {data.split}".rstrip()
        return caption, [photo for photo, _ in pairs], [truth for _, truth in pairs], data.classes
    if classes is None:
        raise DatasetError("photos without labels need --classes; or name the labelled set with --dataset")
    files = find_images(options.root, recursive=True)
    photos = [load_image(files[i]) for i in _evenly(len(files), options.photos)]
    return f"{len(photos)} of {len(files)} photos", photos, None, parse_classes(classes)


def _evenly(length: int, count: int) -> list[int]:
    """Return up to `count` indices, spread evenly over `length`."""
    return sorted({int(index) for index in (np.arange(count) + 0.5) * length / count})


def _check_comparable(runs: Sequence[Run]) -> None:
    """Raise ConfigError unless all runs have the same start, photos and masks."""
    for name in ("model", "checkpoint", "random_weights", "images", "masks"):
        values = [getattr(run.config, name) for run in runs]
        if len(set(values)) > 1:
            hint = "" if name == "random_weights" else f", or give --{name} for all if it only moved"
            raise ConfigError(
                f"the runs differ in {name}: {', '.join(map(str, values))}. "
                f"Compare runs with equal {name}{hint}."
            )


def _titles(runs: Sequence[Run]) -> list[str]:
    """Return the runs' names, numbered where several are equal."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else f"{name}-{i + 1}" for i, name in enumerate(names)]


def _about(runs: Mapping[str, Run]) -> str:
    config = next(iter(runs.values())).config
    start = "random weights" if config.random_weights else str(config.checkpoint or "its own weights")
    steps = " ".join(f"{title}: step {run.step} of {run.config.steps}." for title, run in runs.items())
    return page.section("", f"Model {config.model}, from {start}; masks {config.masks}.", steps)


def _grid(
    first: Run, trained: Mapping[str, EncoderPair], scenes: _Scenes, out: Path, device: str
) -> list[str]:
    """Draw the photos segmented before and after training."""
    caption, photos, truths, classes = scenes
    predictions = {}
    for title, pair in {f"{Path(first.config.model).stem} before": first.start, **trained}.items():
        backend = TorchBackend(pair, device)
        text = Vocabulary.encode(dict(classes), TorchTextEncoder(pair)).embeddings
        predictions[title] = [segment(Official(), photo, text, backend, pair.input) for photo in photos]
    figure, scores = draw_grid(photos, predictions, list(classes), truths)
    save_png(figure, out / "grid.png")
    notes = [_NOTES["photos"], _NOTES["scores"]] if scores else [_NOTES["photos"]]
    return [page.section("Photos", *notes), page.figure("grid.png", caption)]


def _clusters(
    runs: Mapping[str, Run], classes: Mapping[str, tuple[str, ...]], count: int, out: Path, device: str
) -> list[str]:
    """Draw the clusters of masks, and write and map their nearest words."""
    config = next(iter(runs.values())).config
    try:
        pairs = find_pairs(config.images, config.masks)
    except ImageError as error:
        raise ImageError(
            f"{error}. If the run's photos or masks have moved, give --images DIR or --masks DIR"
        ) from error
    shown = [pairs[i] for i in _evenly(len(pairs), count)]
    vocabulary = merge_classes(class_list(_WORDS), classes)
    by_templates = {run.config.templates: run for run in runs.values()}
    embeddings = {templates: embed_words(run, vocabulary) for templates, run in by_templates.items()}
    columns, tables, maps = [], [], []
    for title, run in runs.items():
        others = [pairs[i] for i in _evenly(len(pairs), run.config.batch) if pairs[i] not in shown]
        batch = [*shown, *others][: max(run.config.batch, len(shown))]
        clustered = assign(run, config.images, config.masks, batch, len(shown), device)
        words = with_clusters(run, list(vocabulary), embeddings[run.config.templates])
        names = nearest_words(words, _NEAREST)
        nearest = [near[0][0] for near in names]
        columns.append((f"{title}, k = {len(clustered.rank)}", clustered, nearest))
        tables.append(_table(title, run, clustered, names, out))
        file = f"tsne-{title}.png"
        save_png(draw_tsne(words, clustered, list(classes), nearest), out / file)
        maps.append(page.figure(file, f"Clusters of {title} among words"))
    photos = [load_image(config.images / name) for name in shown]
    save_png(draw_clusters(photos, columns), out / "clusters.png")
    note = _NOTES["names"].format(count=len(vocabulary), words=_WORDS)
    return [
        page.section("Masks coloured by cluster", _NOTES["clusters"]),
        page.figure("clusters.png", f"{len(shown)} of the {len(pairs)} photos with masks"),
        *(page.section("Nearest words of the learned prompts", note), *tables),
        *(page.section("Prompts among words", _NOTES["tsne"]), *maps),
    ]


def _table(
    title: str, run: Run, clustered: Clustered, names: Sequence[Sequence[tuple[str, float]]], out: Path
) -> str:
    """Write one run's clusters as CSV and return them as an HTML table."""
    rows, file = name_table(run, clustered, names), f"names-{title}.csv"
    with atomic_write(out / file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    colours = ["#{:02x}{:02x}{:02x}".format(*clustered.colours[row[0]]) for row in rows[1:]]
    centred = ", centred" if run.config.centre else ""
    used = f"{int((clustered.used > 0).sum())} of {len(clustered.rank)} clusters in use{centred}"
    masks = f"{clustered.shown.sum()} masks shown, {clustered.used.sum()} in the batch"
    return page.table(f"{title}: {used}; {masks}", file, rows, colours)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pictures.py", description="Draw training runs as PNG files, with a page that shows them."
    )
    add = parser.add_argument
    add("--run", required=True, nargs="+", type=Path, metavar="RUN", help="folders of training/train.py")
    add("--root", required=True, type=Path, metavar="DIR", help="photos to segment")
    add("--dataset", choices=DATASETS, help="the labelled data set at --root (default: no labels)")
    add("--split", help="split of the data set (default: the one that is usually scored)")
    add("--classes", metavar='FILE|"a, b"', help="class names; required unless the data set has them")
    add("--out", required=True, type=Path, metavar="FOLDER", help="output folder")
    add("--photos", type=positive, default=6, metavar="N", help="photos in each figure (default: 6)")
    add("--weights", type=Path, metavar="FILE", help="segment with these weights, not the run's newest")
    add("--device", default="auto", help="cpu, cuda, cuda:1 or auto (default)")
    moved = parser.add_argument_group("new places of files that have moved since the training")
    moved.add_argument("--images", type=Path, metavar="DIR", help="training photos")
    moved.add_argument("--masks", type=Path, metavar="DIR", help="their masks")
    moved.add_argument("--model", metavar="NAME", help="model name or .json file")
    moved.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights that the runs started from")
    return parser


if __name__ == "__main__":
    sys.exit(main())
