"""`pixelclip models`: the models on this machine and the published ones."""

import argparse
from pathlib import Path
from typing import Any

from pixelclip_sdk.catalogue import CATALOGUE
from pixelclip_sdk.cli.common import Parsers, add_json_option, print_json
from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.models import available_models, cache_folder, find_bundle
from pixelclip_sdk.support.command import printable

__all__ = ["add_parser"]


def add_parser(commands: Parsers) -> None:
    """Add the verb."""
    parser = commands.add_parser("models", help="list the models on this machine and those to download")
    add_json_option(parser)
    parser.set_defaults(run=_models)


def _models(options: argparse.Namespace) -> int:
    here = [_installed(name, folder) for name, folder in available_models().items()]
    elsewhere = [_published(name) for name in CATALOGUE if name not in available_models()]
    if options.json:
        print_json(here + elsewhere)
        return 0
    print("On this machine:")
    for row in here:
        if "error" in row:
            print(printable(f"  {row['name']:<26} broken: {row['error']}"))
            continue
        words = "any words" if row["new_words"] else "precomputed vocabularies only"
        facts = f"{row['megabytes']:>6} MB  {row['precision']}  {row['license']}  {words}"
        print(printable(f"  {row['name']:<26} {facts}"))
    if elsewhere:
        print("\nTo download with `pixelclip pull NAME`:")
    for row in elsewhere:
        print(f"  {row['name']:<26} about {row['megabytes']} MB  {row['license']}  {row['url']}")
    folder = cache_folder()
    print(
        f"\nA bundle in {printable(str(folder))} has its folder's name as model name."
        if folder
        else "\nSet PIXELCLIP_HOME to a folder for models: this user has no home folder."
    )
    return 0


def _installed(name: str, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "installed": True, "path": str(folder)}
    try:
        bundle = find_bundle(folder)
    except PixelClipError as error:
        return {**row, "error": str(error)}
    return {
        **row,
        "megabytes": round(bundle.size / 1e6, 1),
        "precision": bundle.precision,
        "input": [bundle.input.height, bundle.input.width],
        "license": bundle.license,
        "new_words": bundle.has_text_encoder,
    }


def _published(name: str) -> dict[str, Any]:
    model = CATALOGUE[name]
    return {
        "name": name,
        "installed": False,
        "megabytes": model.megabytes,
        "license": model.license,
        "license_note": model.license_note,
        "repository": model.repository,
        "url": model.url,
        "revision": model.revision,
        "sha256": model.sha256,
    }
