"""Ablations in the drawn world: ``python training/world/experiments.py --out DIR``.

For every seed, trains a small CLIP on scenes with captions, then fine-tunes it on scenes with unlabelled
masks: as in the paper, and with one idea removed or one number changed. Scores all models on held-out scenes.
The same command continues where it was stopped. It takes about two hours on one core.
"""

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelclip_sdk import PixelClipError, Vocabulary
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.files import atomic_write
from training.evaluation.datasets import Dataset, load_dataset
from training.evaluation.open_model import Source, open_model
from training.evaluation.protocols import Whole
from training.evaluation.scoring import Job, evaluate
from training.figures.grid import draw_grid, save_png
from training.masks.region_maps import RegionMaps
from training.masks.write import make_masks
from training.models.load import load_model
from training.models.runtime import TorchTextEncoder
from training.runs.checkpoint import weights_file
from training.runs.config import load_config
from training.train import train
from training.world import tables
from training.world.catalogue import CLASSES, STUFF
from training.world.contrast import read_pairs, train_contrast
from training.world.scenes import write_scenes

__all__ = ["ABLATIONS", "SWEEPS", "Sizes", "experiment", "main"]

_log = logging.getLogger("training")

_CONFIGS = Path(__file__).parents[1] / "configs"
MODEL, CONFIG = _CONFIGS / "world.json", _CONFIGS / "world.yaml"
CLOSE = 0.6  # share of close-ups among the pairs, because captioned photos mostly show one thing
_DRAWN = 6  # scenes in the picture
IMGSZ = 64  # input size of the small CLIP

ABLATIONS: dict[str, tuple[str, ...]] = {
    "PixelCLIP": (),
    "without clustering": ("clustering=false",),
    "without the text tower": ("classes=vectors",),
    "without learned prompts": ("classes=words",),
    "without momentum": ("momentum=0",),
}
"""Changes to `CONFIG`, for all seeds; the first is the complete method."""

SWEEPS: dict[str, tuple[str, ...]] = {
    "k": ("clusters=8", "clusters=16", "clusters=64", "clusters=128"),
    "l": ("words=1", "words=2", "words=8"),
    "γ": ("momentum=0.9", "momentum=0.999", "momentum=1"),
}
"""Changes of one number, for the first seed."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Size of the experiments."""

    pairs: int = 20_000  # scenes with captions, for the small CLIP
    photos: int = 1_500  # scenes with masks, for PixelCLIP
    held_out: int = 250  # scenes in each of "val" (used to choose settings) and "test"
    clip_steps: int = 1_500  # of the small CLIP
    overrides: tuple[str, ...] = ()  # changes to `CONFIG` for all runs


def experiment(
    out: Path, sizes: Sizes, *, seeds: Sequence[int], runs: Mapping[str, Sequence[str]], split: str = "test"
) -> list[dict[str, Any]]:
    """Train and score all models that are not finished.

    One small CLIP is trained per seed. `runs` has changes to `CONFIG` by name. `split` is test or val.
    Returns one score for the small CLIP and each run of every seed: ``run``, ``seed``, ``miou``, …. Raises
    KeyboardInterrupt if a signal stopped a run; finished parts are kept.
    """
    world = _draw(out / "world", sizes)
    scores = []
    for seed in seeds:
        home = out / f"seed-{seed}"
        clip = home / "clip.safetensors"
        if not clip.exists():
            pairs = read_pairs(world / "pairs", IMGSZ)
            train_contrast(MODEL, pairs, clip, steps=sizes.clip_steps, seed=seed)
        result = _score(home / "clip", clip, world, split)
        scores.append({"run": "CLIP", "seed": seed, "settings": [], **result})
        for name, changed in runs.items():
            folder = home / "-".join(changed or ["pixelclip"])
            paths = [f"images={world / 'photos' / 'images'}", f"masks={world / 'masks'}", f"out={folder}"]
            overrides = [*paths, f"checkpoint={clip}", f"seed={seed}", *sizes.overrides, *changed]
            config = load_config(CONFIG, overrides)
            weights = train(config)  # returns at once if the run is finished
            if weights != weights_file(config.out, config.steps):
                raise KeyboardInterrupt  # stopped by a signal
            result = _score(folder, weights, world, split)
            last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
            logged = {key: last[key] for key in ("loss", "clusters", "margin") if key in last}
            scores.append({"run": name, "seed": seed, "settings": list(changed), **result, **logged})
            _log.info("seed %d, %s: mIoU %.1f", seed, name, result["miou"])
    return scores


def _draw(folder: Path, sizes: Sizes) -> Path:
    """Draw the scenes and make the masks; return their folder."""
    counts = {"pairs": sizes.pairs, "photos": sizes.photos, "val": sizes.held_out, "test": sizes.held_out}
    for seed, (name, count) in enumerate(counts.items(), start=1):
        captions = folder / name / "captions.json"
        if not captions.exists():
            _log.info("drawing %d scenes: %s", count, name)
            write_scenes(folder / name, count, seed, close=CLOSE if name == "pairs" else 0)
        elif (found := len(json.loads(captions.read_text(encoding="utf-8")))) != count:
            raise PixelClipError(f"{folder / name} has {found} scenes, expected {count}; take another --out")
    photos = folder / "photos"
    make_masks(RegionMaps(photos / "regions"), photos / "images", folder / "masks", progress=False)
    return folder


def _score(folder: Path, weights: Path, world: Path, split: str) -> dict[str, Any]:
    """Return the scores of a model in percent; they are stored in a file."""
    file = folder / f"{split}.json"
    if file.exists():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    data = load_dataset("folder", world / split, classes=list(CLASSES))
    job = Job(source=_source(weights), dataset=data, protocol=Whole(), threads=torch.get_num_threads())
    pixels, _ = evaluate(job, progress=False)
    masks, _ = evaluate(dataclasses.replace(job, masks=True), progress=False)
    single, _ = evaluate(dataclasses.replace(job, source=_source(weights, "single")), progress=False)
    score = {
        "miou": 100 * pixels.miou,
        "single_miou": 100 * single.miou,
        "stuff": 100 * float(np.nanmean(pixels.ious[: len(STUFF)])),
        "things": 100 * float(np.nanmean(pixels.ious[len(STUFF) :])),
        "pixel_accuracy": 100 * pixels.accuracy,
        "mask_miou": 100 * masks.miou,
        "iou": pixels.to_json(CLASSES)["iou"],
        **_whole_images(weights, data, read_pairs(world / split, IMGSZ).images),
    }
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(score, indent=1) + "\n", encoding="utf-8")
    return score


def _source(weights: Path, prompts: str = "ensemble") -> Source:
    return Source(
        name=str(MODEL), checkpoint=weights, input_size=(IMGSZ, IMGSZ), prompts=prompts, device="cpu"
    )


def _draw_picture(out: Path, seed: int, file: Path) -> None:
    """Draw held-out scenes segmented by the first seed's models."""
    home = out / f"seed-{seed}"
    tuned = max((home / "pixelclip").glob("step-*.weights.safetensors"))
    data = load_dataset("folder", out / "world" / "test", classes=list(CLASSES))
    photos, truths = zip(*(data.pair(index) for index in range(min(len(data), _DRAWN))), strict=True)
    predictions = {}
    for name, weights in {"CLIP": home / "clip.safetensors", "PixelCLIP": tuned}.items():
        model = open_model(_source(weights), data.classes)
        predictions[name] = [model.segmenter.predict(photo).labels for photo in photos]
    save_png(draw_grid(photos, predictions, CLASSES, truths)[0], file)


@torch.inference_mode()
def _whole_images(weights: Path, data: Dataset, images: torch.Tensor) -> dict[str, float]:
    """Return how often the class nearest to a whole image is in it, and the same by chance, in percent."""
    pair = load_model(str(MODEL), checkpoint=weights)
    words = Vocabulary.encode({name: (name,) for name in CLASSES}, TorchTextEncoder(pair)).embeddings
    features = pair.network.encode_image((images - pair.image.mean) / pair.image.std)
    nearest = (features @ torch.from_numpy(words.copy()).T).argmax(1).numpy()
    present = np.stack([np.isin(np.arange(len(CLASSES)), data.truth(i)) for i in range(len(data))])
    hits = present[np.arange(len(data)), nearest]
    return {"image_top1": 100 * float(hits.mean()), "image_top1_chance": 100 * float(present.mean())}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="experiments.py", description="Ablations in the drawn world.")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="scenes, weights, scores")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    parser.add_argument("--split", choices=["test", "val"], default="test", help="scenes (default: test)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores to this file")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw some scenes to this PNG file")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return run_command(
        "experiments", lambda: _run(options), interrupted="the same command continues from here"
    )


def _run(options: argparse.Namespace) -> int:
    sweeps = {setting: (setting,) for values in SWEEPS.values() for setting in values}
    scores = experiment(options.out, Sizes(), seeds=options.seeds, runs=ABLATIONS, split=options.split)
    swept = experiment(options.out, Sizes(), seeds=options.seeds[:1], runs=sweeps, split=options.split)
    scores += [score for score in swept if score["run"] != "CLIP"]
    if options.picture:
        _draw_picture(options.out, options.seeds[0], options.picture)
    if options.json:
        with atomic_write(options.json) as temporary:
            temporary.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    print(tables.markdown(scores))
    return 0


if __name__ == "__main__":
    sys.exit(main())
