"""`pixelclip benchmark`: measure latency by stage and end to end."""

import argparse

from pixelclip_sdk.benchmark import SAMPLE_WORDS, measure_latency, sample_jpeg
from pixelclip_sdk.cli import common
from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.support.arguments import path, positive


def add_parser(commands: common.Parsers) -> None:
    """Add the verb."""
    parser = commands.add_parser("benchmark", help="measure latency, by stage and end to end")
    parser.add_argument("--image", type=path, help="an image file (default: a generated 640×480 JPEG)")
    parser.add_argument(
        "--classes", default=SAMPLE_WORDS, help=common.CLASSES_HELP + " (default: 20 household words)"
    )
    parser.add_argument("--runs", type=positive, default=100, help="measured frames (default: %(default)s)")
    common.add_json_option(parser)
    common.add_run_options(parser)
    parser.set_defaults(run=_benchmark)


def _benchmark(options: argparse.Namespace) -> int:
    try:
        jpeg = options.image.read_bytes() if options.image else sample_jpeg()
    except OSError as error:
        raise ImageError(f"{options.image} cannot be read: {error.strerror}") from error
    with common.load_segmenter(options) as segmenter:
        report = measure_latency(segmenter, jpeg, runs=options.runs)
    if options.json:
        common.print_json(report.to_json())
    else:
        print(report.table())
    return 0
