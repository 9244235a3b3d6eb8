"""Options and helpers that several verbs share."""

import argparse
from pathlib import Path
from typing import Any, TypeAlias

from pixelclip_sdk.backends.choose import BACKENDS
from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.support.arguments import confidences, path, positive
from pixelclip_sdk.support.command import printable, terminal_json
from pixelclip_sdk.support.hints import find_name
from pixelclip_sdk.words.vocabulary import Classes, Vocabulary, read_classes

Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

CLASSES_HELP = (
    '"cat, sofa"; a list such as voc-20 (see `pixelclip vocab list`); or a file: .txt (one class per line, '
    "synonyms after commas), .json or .npz"
)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``."""
    parser.add_argument(
        "--model",
        default="pixelclip-lite",
        metavar="NAME",
        help="a name (see `pixelclip models`) or a bundle's folder (default: %(default)s)",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--model`` and the options of `add_engine_options`."""
    add_model_option(parser)
    add_engine_options(parser)


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add how to run a model: backend, device, threads, input size."""
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
        "--threads", type=positive, help="CPU threads (default: all cores that this process may use)"
    )
    parser.add_argument(
        "--deadline",
        type=float,
        metavar="S",
        help="end a run of the model after S seconds, with an error (default: wait)",
    )
    parser.add_argument(
        "--input-size",
        "--imgsz",  # The old spelling.
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="input size of a model that takes any size; smaller is faster (default: the model's own)",
    )


def add_segmentation_options(parser: argparse.ArgumentParser) -> None:
    """Add what decides the labels besides the words, and the options of `add_run_options`."""
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="COSINE",
        help="pixels whose best class has a lower cosine become unknown (default: no pixel does)",
    )
    parser.add_argument(
        "--refine",
        choices=("auto", "edges", "off"),
        default="auto",
        help="edges: regions follow the edges of the image; off: they do not "
        "(default: auto, what is better for the model)",
    )
    parser.add_argument(
        "--tiles",
        type=lambda text: text if text == "auto" else positive(text),
        default=1,
        metavar="N",
        help="for large pictures with small things: windows per picture, at most 64, or auto (default: 1)",
    )
    parser.add_argument(
        "--min-confidence",
        type=confidences,
        metavar="C",
        help='pixels with a lower confidence, 0 to 1, become unknown; for single classes "cat=0.5, dog=0.3"',
    )
    parser.add_argument(
        "--background",
        metavar="C",
        help="more words, written like --classes; the pixels that they win become unknown",
    )
    add_run_options(parser)


def print_json(value: Any) -> None:
    """Print one JSON document to stdout."""
    print(terminal_json(value, indent=1))


def load_segmenter(options: argparse.Namespace) -> Segmenter:
    """Load the model that the options of `add_run_options` choose, with its classes if any are given."""
    background = getattr(options, "background", None)
    return Segmenter.from_pretrained(
        options.model,
        backend=options.backend,
        device=options.device,
        threads=options.threads,
        input_size=tuple(options.input_size) if options.input_size else None,
        classes=None if options.classes is None else parse_classes(options.model, options.classes),
        threshold=getattr(options, "threshold", None),
        refine=getattr(options, "refine", "auto"),
        tiles=getattr(options, "tiles", 1),
        min_confidence=getattr(options, "min_confidence", None),
        background=parse_classes(options.model, background) if background else None,
        deadline_s=options.deadline,
    )


def input_path(text: str) -> Path:
    """Like `support.arguments.path`, for an input that may also be something other than a path."""
    try:
        return path(text)
    except argparse.ArgumentTypeError as error:
        raise ImageError(f"the input is {error}") from error


def parse_classes(model: str, text: str) -> Classes | Vocabulary:
    """Read ``--classes``. The name of a vocabulary in the model's bundle stays a name."""
    return text if find_name(text.strip(), find_bundle(model).vocabularies) else read_classes(text)


def describe_areas(result: Segmentation) -> str:
    """The classes with the largest areas, at most four: ``cat 12%, sofa 5%``."""
    largest = list(result.areas().items())[:4]
    areas = ", ".join(f"{printable(name)} {area:.0%}" for name, area in largest if area)
    return areas or "nothing but unknown"
