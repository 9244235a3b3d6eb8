"""Distillation in the drawn world: ``python benchmarks/distillation/world.py --out DIR``.

For every seed, distils the PixelCLIP of ``training/world/experiments.py --out DIR`` into a smaller tower,
exports both, and compares them on held-out scenes. What is finished in `DIR` is used.
"""

import logging
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.distillation.compare import compare, summary
from benchmarks.harness.results import command_parser, store
from export.to_onnx import export_bundle
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import find_images
from training.distil import STUDENT_FILE, distil
from training.distillation.config import DistilConfig
from training.evaluation.datasets import load_dataset
from training.models.load import load_model
from training.runs.checkpoint import newest, weights_file
from training.runs.config import load_config
from training.world.catalogue import CLASSES
from training.world.experiments import ABLATIONS, MODEL, Sizes, experiment

CONFIG = MODEL.with_name("distil-world.yaml")


def distilled(out: Path, sizes: Sizes, seed: int, rounds: int, *overrides: str) -> dict[str, Any]:
    """Returns the comparison of a seed's PixelCLIP and its student, on scenes that neither has seen."""
    name = next(iter(ABLATIONS))
    experiment(out, sizes, seeds=[seed], runs={name: ABLATIONS[name]})
    run = out / f"seed-{seed}" / "pixelclip"
    saved = newest(run)
    assert saved is not None  # The experiment has finished the run.
    weights = weights_file(run, saved.step)
    home = out / f"seed-{seed}" / "student"
    images = out / "world" / "pairs" / "images"
    settings = [f"teacher_checkpoint={weights}", f"images={images}", f"out={home}", f"seed={seed}"]
    config = load_config(CONFIG, [*settings, *overrides], DistilConfig)
    final = distil(config)
    if final != weights_file(home, config.steps):
        raise KeyboardInterrupt  # stopped by a signal
    scenes = find_images(out / "world" / "photos" / "images")[:8]
    size = config.input_size
    teacher = load_model(str(MODEL), checkpoint=weights, input_size=size)
    student = load_model(str(home / STUDENT_FILE), checkpoint=final)
    bundles = [out / f"seed-{seed}" / "bundles" / role for role in ("teacher", "student")]
    for pair, folder in zip((teacher, student), bundles, strict=True):
        export_bundle(pair, folder, precision="fp32", photos=scenes)
    data = {"held-out scenes": load_dataset("folder", out / "world" / "test", classes=list(CLASSES))}
    return {"seed": seed, **compare(bundles[0], bundles[1], data, named=None, rounds=rounds)}


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__, rounds=200)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="scenes, weights, bundles")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    results = [distilled(options.out, Sizes(), seed, options.rounds) for seed in options.seeds]
    for result in results:
        print(f"seed {result['seed']}\n{summary(result)}")
    means = {
        "kept": statistics.fmean(result["kept"]["held-out scenes"] for result in results),
        "time_share": statistics.fmean(result["time_share"] for result in results),
    }
    print(f"mean of {len(results)} seeds: kept {means['kept']:.1%}, time share {means['time_share']:.2f}")
    store(options.json, {"seeds": results, "mean": means})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("world", main))
