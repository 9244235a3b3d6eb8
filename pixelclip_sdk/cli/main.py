"""The `pixelclip` command.

Exit codes: 0 done, 1 something could not be done (said on stderr), 2 wrong usage, 130 interrupted.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixelclip_sdk._version import __version__
from pixelclip_sdk.backends.choose import BACKENDS
from pixelclip_sdk.benchmark import SAMPLE_WORDS, measure_latency, sample_jpeg
from pixelclip_sdk.cli.doctor import diagnose
from pixelclip_sdk.cli.video import found, run_video, video_source
from pixelclip_sdk.errors import ImageError, PixelClipError
from pixelclip_sdk.models import available_models, cache_folder, find_bundle
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.files import atomic_write, is_folder
from pixelclip_sdk.support.images import find_images
from pixelclip_sdk.video.pipeline import BUFFERS
from pixelclip_sdk.words.classes import class_list, class_lists
from pixelclip_sdk.words.vocabulary import Classes, Vocabulary, read_classes

__all__ = ["main"]

_DEFAULT_MODEL = "pixelclip-lite"
_RESULTS = (".overlay.png", ".labels.png")
_CLASSES_HELP = (
    '"cat, sofa"; a list such as voc-20 (see `pixelclip vocab list`); or a file: .txt (a class a line, '
    "synonyms after commas), .json or .npz"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # A name that the terminal has no letters for is no error.
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except PixelClipError as error:
        print(f"pixelclip: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pixelclip: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `pixelclip models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at its end.
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pixelclip",
        description="Open-vocabulary semantic segmentation: words and pictures in, label maps out.",
    )
    parser.add_argument("--version", action="version", version=f"pixelclip-sdk {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    predict = commands.add_parser("predict", help="segment pictures")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of them")
    predict.add_argument("--classes", required=True, help=_CLASSES_HELP)
    predict.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    predict.add_argument(
        "--threshold", type=float, help="pixels whose best cosine is below it become unknown"
    )
    _add_model_options(predict)
    predict.set_defaults(run=_predict)

    video = commands.add_parser("video", help="segment a video, a camera, a network stream or a folder")
    video.add_argument(
        "source",
        metavar="IN",
        help="a video file, a folder of images, a camera (0, /dev/video0) or an address",
    )
    video.add_argument("--classes", required=True, help=_CLASSES_HELP)
    video.add_argument(
        "--out", type=Path, metavar="FILE.mp4", help="video with the regions drawn in (default: print areas)"
    )
    video.add_argument(
        "--labels", type=Path, metavar="DIR", help="folder for a label map a frame, 000000.png, 000001.png, …"
    )
    video.add_argument(
        "--buffer",
        choices=BUFFERS,
        default="auto",
        help="frames that come too fast: drop all but the latest, or process all "
        "(default: auto, latest for live sources)",
    )
    video.add_argument(
        "--reopen",
        action="store_true",
        help="open a camera or a live address that is gone again, until it is back; Ctrl-C ends it",
    )
    video.add_argument("--threshold", type=float, help="pixels whose best cosine is below it become unknown")
    _add_model_options(video)
    video.set_defaults(run=_video)

    vocab = commands.add_parser("vocab", help="embed words once, to load them later without the text encoder")
    verbs = vocab.add_subparsers(required=True, metavar="VERB")
    build = verbs.add_parser("build", help="words → .npz")
    build.add_argument("classes", help=_CLASSES_HELP)
    build.add_argument("--out", required=True, type=Path, metavar="FILE.npz")
    build.add_argument("--model", default=_DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    build.set_defaults(run=_vocab_build)
    listing = verbs.add_parser("list", help="lists of classes that go by name")
    listing.add_argument("--model", default=_DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    listing.set_defaults(run=_vocab_list)
    show = verbs.add_parser("show", help="names of a .npz, each with its nearest other")
    show.add_argument("file", metavar="FILE.npz")
    show.set_defaults(run=_vocab_show)

    models = commands.add_parser("models", help="list the models on this machine")
    models.add_argument("--json", action="store_true", help="print JSON")
    models.set_defaults(run=_models)

    benchmark = commands.add_parser("benchmark", help="measure latency, stage by stage and end to end")
    benchmark.add_argument("--image", type=Path, help="an image file (default: a made-up 640×480 JPEG)")
    benchmark.add_argument("--classes", help=_CLASSES_HELP + " (default: 20 household words)")
    benchmark.add_argument(
        "--runs", type=positive, default=100, help="measured frames (default: %(default)s)"
    )
    benchmark.add_argument("--json", action="store_true", help="print JSON")
    _add_model_options(benchmark)
    benchmark.set_defaults(run=_benchmark)

    doctor = commands.add_parser("doctor", help="what is installed, what would run, what is missing")
    doctor.set_defaults(run=_doctor)
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=_DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help=f"{', '.join(BACKENDS)}, or a .plan file (default: %(default)s)",
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, gpu, gpu:1, … (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=positive, help="CPU threads (default: all cores that this process is given)"
    )
    parser.add_argument(
        "--imgsz",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="input of a model whose size is free: smaller is faster (default: the model's own)",
    )


def _load(options: argparse.Namespace, classes: str) -> Segmenter:
    return Segmenter.from_pretrained(
        options.model,
        backend=options.backend,
        device=options.device,
        threads=options.threads,
        input_size=tuple(options.imgsz) if options.imgsz else None,
        classes=_classes(options.model, classes),
        threshold=getattr(options, "threshold", None),
    )


def _classes(model: str, text: str) -> Classes | Vocabulary:
    """Classes from a command line; a name the bundle has precomputed stays a name, for the segmenter."""
    return text if text in find_bundle(model).vocabularies else read_classes(text)


def _predict(options: argparse.Namespace) -> int:
    images = _image_files(options.images)
    failed = 0
    with _load(options, options.classes) as segmenter:
        for image, stem in zip(images, _unique_stems(images), strict=True):
            try:
                result = segmenter.predict(image)
            except ImageError as error:  # One bad file does not lose the others.
                print(f"pixelclip: {error}", file=sys.stderr)
                failed += 1
                continue
            _write_result(result, options.out, stem)
            print(f"{image}: {found(result)} ({result.speed['total']:.0f} ms)")
    written = len(images) - failed
    print(f"{written} of {len(images)} pictures → {options.out}/NAME.overlay.png, NAME.labels.png, NAME.json")
    return 1 if failed else 0


def _write_result(result: Segmentation, folder: Path, stem: str) -> None:
    overlay, labels = _RESULTS
    result.save(folder / f"{stem}{overlay}")
    result.save_labels(folder / f"{stem}{labels}")
    facts = {
        "names": result.names,
        "unknown": result.unknown,
        "areas": result.areas(),
        "speed_ms": dict(result.speed),
    }
    with atomic_write(folder / f"{stem}.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _video(options: argparse.Namespace) -> int:
    # The stream closes it, in the thread that reads: closing a camera while it is read from would crash.
    source = video_source(options.source, options.out, options.labels)
    with _load(options, options.classes) as segmenter:
        run_video(
            segmenter,
            source,
            buffer=options.buffer,
            on_error="reopen" if options.reopen else "raise",
            out=options.out,
            labels=options.labels,
        )
    return 0


def _image_files(arguments: Iterable[str]) -> list[Path]:
    files: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if not is_folder(path):
            files.append(path)
            continue
        # What was written beside the pictures the last time is none of them.
        pictures = [file for file in find_images(path) if not file.name.endswith(_RESULTS)]
        if not pictures:
            raise ImageError(f"the folder {path} has no image files but results ({', '.join(_RESULTS)})")
        files += pictures
    return files


def _unique_stems(files: Sequence[Path]) -> list[str]:
    """File stems; a repeated one gets a number, so that no result overwrites another."""
    seen: set[str] = set()
    stems = []
    for file in files:
        stem, number = file.stem, 1
        while stem in seen:
            number += 1
            stem = f"{file.stem}-{number}"
        seen.add(stem)
        stems.append(stem)
    return stems


def _vocab_build(options: argparse.Namespace) -> int:
    with Segmenter.from_pretrained(options.model, backend="onnx", device="cpu") as segmenter:
        vocabulary = segmenter.set_classes(_classes(options.model, options.classes))
    path = vocabulary.save(options.out)
    print(f"{len(vocabulary)} names → {path} ({path.stat().st_size / 1e3:.0f} kB)")
    return 0


def _vocab_list(options: argparse.Namespace) -> int:
    bundle = find_bundle(options.model)
    for name in sorted({*class_lists(), *bundle.vocabularies}):
        if name in bundle.vocabularies:
            names = Vocabulary.load(bundle.file(bundle.vocabularies[name])).names
            state = f"precomputed in {bundle.name}"
        else:
            names = list(class_list(name))
            state = (
                f"for {bundle.name}'s text encoder" if bundle.has_text_encoder else f"not in {bundle.name}"
            )
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        print(f"{name:<20} {len(names):>5}  {shown}  ({state})")
    return 0


def _vocab_show(options: argparse.Namespace) -> int:
    vocabulary = Vocabulary.load(options.file)
    width = vocabulary.embeddings.shape[1]
    print(f"{len(vocabulary)} names, {width} wide, templates: {list(vocabulary.templates)}")
    cosines = vocabulary.embeddings @ vocabulary.embeddings.T
    np.fill_diagonal(cosines, -np.inf)
    for name, row in zip(vocabulary.names, cosines, strict=True):
        others = [synonym for synonym in vocabulary.synonyms[name] if synonym != name]
        synonyms = f" (also {', '.join(others)})" if others else ""
        nearest = f"nearest: {vocabulary.names[row.argmax()]} {row.max():.2f}" if len(vocabulary) > 1 else ""
        print(f"{name + synonyms:<40} {nearest}".rstrip())
    return 0


def _models(options: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    for name, folder in available_models().items():
        try:
            bundle = find_bundle(name)
        except PixelClipError as error:
            rows.append({"name": name, "path": str(folder), "error": str(error)})
            continue
        rows.append(
            {
                "name": name,
                "path": str(folder),
                "megabytes": round(bundle.size / 1e6, 1),
                "precision": bundle.precision,
                "input": [bundle.input.height, bundle.input.width],
                "license": bundle.license,
                "new_words": bundle.has_text_encoder,
            }
        )
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        if "error" in row:
            print(f"{row['name']:<24} broken: {row['error']}")
        else:
            words = "any words" if row["new_words"] else "precomputed vocabularies only"
            print(
                f"{row['name']:<24} {row['megabytes']:>7} MB  {row['precision']}  {row['license']}  {words}"
            )
    print(f"\nBundles put into {cache_folder()} go by their folder's name.")
    return 0


def _benchmark(options: argparse.Namespace) -> int:
    try:
        jpeg = options.image.read_bytes() if options.image else sample_jpeg()
    except OSError as error:
        raise ImageError(f"{options.image} cannot be read: {error.strerror}") from error
    with _load(options, options.classes or SAMPLE_WORDS) as segmenter:
        report = measure_latency(segmenter, jpeg, runs=options.runs)
    print(json.dumps(report.to_json(), indent=1) if options.json else report.table())
    return 0


def _doctor(_: argparse.Namespace) -> int:
    healthy = True
    for check in diagnose():
        print(f"{check.status:<8} {check.name:<22} {check.detail}", flush=True)
        healthy &= check.status != "broken"
    print("\nReady." if healthy else "\nSomething is broken; see above.")
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
