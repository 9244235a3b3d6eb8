"""Parse the arguments of `pixelclip` and run the verb. Exit codes: see `pixelclip_sdk.support.command`."""

import argparse
from collections.abc import Sequence
from importlib import import_module

from pixelclip_sdk._version import __version__
from pixelclip_sdk.support.command import run_command

VERBS = (
    "predict",
    "video",
    "bag",
    "batch",
    "serve",
    "calibrate",
    "vocab",
    "models",
    "pull",
    "benchmark",
    "doctor",
)
"""The modules of the verbs, in the order of ``pixelclip --help``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments`, or that of the process, and return the exit code."""

    def body() -> int:
        options = parser().parse_args(arguments)
        code: int = options.run(options)
        return code

    return run_command("pixelclip", body, interrupted="files that were finished before are complete")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, with all verbs."""
    pixelclip = argparse.ArgumentParser(
        prog="pixelclip",
        description="Open-vocabulary semantic segmentation: type words, get label maps of images and videos.",
        epilog="Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted.",
    )
    pixelclip.add_argument("--version", action="version", version=f"pixelclip-sdk {__version__}")
    commands = pixelclip.add_subparsers(required=True, metavar="VERB")
    for verb in VERBS:  # Imported here, because a signal during the import should end like any other.
        import_module(f"pixelclip_sdk.cli.{verb}").add_parser(commands)
    return pixelclip
