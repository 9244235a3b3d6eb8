"""Computes mIoU on labelled photos: ``evaluate.py --bundle BUNDLE --dataset camvid-11 --root DIR``.

PyTorch models and bundles use the SDK's pre- and postprocessing; only the backend differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.support.arguments import path, positive
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.files import atomic_write
from training.evaluation.datasets import DATASETS, Dataset, load_dataset
from training.evaluation.open_model import PROMPTS, Source
from training.evaluation.protocols import Official, Protocol, Whole, Windows
from training.evaluation.scoring import Job, check_labels, evaluate
from training.evaluation.sets import load_sets
from training.support.arguments import read_words

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.bundle and (options.checkpoint or options.input_size or options.offline):
        parser.error("--checkpoint, --input-size and --offline require --model")
    if (options.short_side or options.stride) and options.protocol != "windows":
        parser.error("--short-side and --stride require --protocol windows")
    if options.refine and (options.protocol != "whole" or options.masks):
        parser.error("--refine requires --protocol whole, without --masks")
    if options.split and options.dataset == "folder":
        parser.error("--split requires a named data set; a folder has no splits")
    if _is_file(options.dataset) and (options.split or options.classes or options.ignore):
        parser.error(f"--split, --classes and --ignore belong into {options.dataset}, to each set its own")
    return run_command("evaluate", lambda: _evaluate(options))


def _is_file(dataset: str) -> bool:
    return dataset not in DATASETS and Path(dataset).suffix in (".yaml", ".yml")


def _evaluate(options: argparse.Namespace) -> int:
    if several := _is_file(options.dataset):
        sets = load_sets(path(options.dataset), options.root)
    else:
        words = read_words(options.classes)
        data = load_dataset(
            options.dataset, options.root, split=options.split, classes=words, ignore=options.ignore
        )
        sets = {data.name: data}
    for data in sets.values():  # all, because a wrong label in the last set would cost the time of the others
        check_labels(data)
    reports = {name: _score(data, options) for name, data in sets.items()}
    report: Mapping[str, Any] = next(iter(reports.values()))
    if several:
        report = _summary(reports)
    if options.json:
        with atomic_write(options.json) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _score(data: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Scores the model on one data set, prints the scores and returns the report."""
    job = Job(
        source=Source(
            name=options.bundle or options.model,
            bundle=options.bundle is not None,
            checkpoint=options.checkpoint,
            input_size=tuple(options.input_size) if options.input_size else None,
            prompts=options.prompts,
            device=options.device,
            offline=options.offline,
        ),
        dataset=data,
        protocol=_protocol(options),
        masks=options.masks,
        threads=max(default_threads() // options.workers, 1) if options.workers > 1 else None,
    )
    confusion, report = evaluate(job, workers=options.workers)
    names = list(data.classes)
    boundary = None
    if "boundary" in report:
        found = report["boundary"]["f_score"]
        boundary = np.array([found[name] for name in names], float)  # None becomes NaN
    print(f"{job.source} on {data.name}{data.split and ' ' + data.split}, {len(data)} photos")
    print(f"protocol {report['protocol']['name']}, templates {report['templates']}")
    print(confusion.table(names, boundary))
    return report


def _protocol(options: argparse.Namespace) -> Protocol:
    if options.protocol == "windows":
        return Windows(options.short_side or 480, options.stride or 160)
    return Official() if options.protocol == "official" else Whole(options.refine)


def _summary(reports: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Prints the scores of several data sets below each other and returns all reports with the means."""
    keys = {"mIoU": lambda report: report["miou"]}
    if all("boundary" in report for report in reports.values()):
        keys["boundary"] = lambda report: report["boundary"]["mean_f_score"]
    rows = {name: [get(report) or 0.0 for get in keys.values()] for name, report in reports.items()}
    means = np.mean(list(rows.values()), axis=0).tolist()
    width = max(map(len, [*rows, "mean"])) + 2
    print(f"\n{'set':<{width}}" + "".join(f"{key:>10}" for key in keys))
    for name, row in {**rows, "mean": means}.items():
        print(f"{name:<{width}}" + "".join(f"{value:10.1%}" for value in row))
    return {"mean": dict(zip(keys, means, strict=True)), "sets": dict(reports)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description="Compute the mIoU of a model or a bundle on labelled photos."
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", metavar="NAME", help="PyTorch model, as for export/to_onnx.py")
    model.add_argument("--bundle", metavar="BUNDLE", help="exported bundle: name or folder")
    add = parser.add_argument
    add("--checkpoint", type=path, metavar="FILE", help="weights to use with --model")
    size = "input size to use with --model, in pixels"
    add("--input-size", "--imgsz", type=positive, nargs=2, metavar=("H", "W"), help=size)
    add("--offline", action="store_true", help="use downloaded weights only")
    add("--device", default="auto", help="cpu, cuda, cuda:1; for a bundle cpu, gpu, gpu:1")
    names = f"{', '.join(DATASETS)}, or a YAML file of several data sets; see docs/evaluation.md"
    add("--dataset", required=True, metavar="NAME|FILE", help=names)
    add("--root", required=True, type=path, metavar="DIR", help="folder of the data set")
    add("--split", help="split of the data set (default: its validation split)")
    add("--classes", metavar='FILE|"a, b"', help="class names, in label order; required for `folder`")
    add(
        "--ignore",
        type=int,
        nargs="+",
        default=(),
        metavar="ID",
        help="label ids that are not scored; in a `folder` the classes have the other ids, in order",
    )
    add(
        "--protocol",
        choices=["official", "windows", "whole"],
        default="official",
        help="the paper's protocol (default), sliding windows, or the SDK's predict",
    )
    add("--short-side", type=positive, metavar="PX", help="windows: short side of the photo (default: 480)")
    add("--stride", type=positive, metavar="PX", help="windows: distance between windows (default: 160)")
    prompts = "prompt templates: the model's (default), none, the paper's single one or its ensemble"
    refine = "whole: edge refinement, as of Segmenter.predict (default: the bundle's)"
    add("--refine", choices=["auto", "edges", "off"], help=refine)
    add("--prompts", choices=PROMPTS, default="model", help=prompts)
    add("--masks", action="store_true", help="classify the ground-truth masks")
    add("--workers", type=positive, default=1, help="number of processes (default: 1)")
    add("--json", type=path, metavar="FILE", help="also write the report to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
