"""`pixelclip benchmark`: measure latency by stage and end to end."""

import argparse

from pixelclip_sdk.benchmark import SAMPLE_WORDS, measure_latency, sample_jpeg
from pixelclip_sdk.cli.common import (
    CLASSES_HELP,
    Parsers,
    add_json_option,
    add_model_options,
    load_segmenter,
    print_json,
)
from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.support.arguments import path, positive

__all__ = ["add_parser"]


def add_parser(commands: Parsers) -> None:
    """Add the verb."""
    parser = commands.add_parser("benchmark", help="measure latency, by stage and end to end")
    parser.add_argument("--image", type=path, help="an image file (default: a generated 640×480 JPEG)")
    parser.add_argument(
        "--classes", default=SAMPLE_WORDS, help=CLASSES_HELP + " (default: 20 household words)"
    )
    parser.add_argument("--runs", type=positive, default=100, help="measured frames (default: %(default)s)")
    add_json_option(parser)
    add_model_options(parser)
    parser.set_defaults(run=_benchmark)


def _benchmark(options: argparse.Namespace) -> int:
    try:
        jpeg = options.image.read_bytes() if options.image else sample_jpeg()
    except OSError as error:
        raise ImageError(f"{options.image} cannot be read: {error.strerror}") from error
    with load_segmenter(options, options.classes) as segmenter:
        report = measure_latency(segmenter, jpeg, runs=options.runs)
    if options.json:
        print_json(report.to_json())
    else:
        print(report.table())
    return 0
