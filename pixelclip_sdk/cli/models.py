"""`pixelclip models`: the models on this machine and the published ones."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from pixelclip_sdk.catalogue import CATALOGUE
from pixelclip_sdk.cli import common
from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.models import available_models, cache_folder, find_bundle
from pixelclip_sdk.support.command import printable


def add_parser(commands: common.Parsers) -> None:
    """Add the verb."""
    parser = commands.add_parser("models", help="list the models on this machine and those to download")
    common.add_json_option(parser)
    parser.set_defaults(run=_models)


def _models(options: argparse.Namespace) -> int:
    models = available_models()
    here = [_installed(name, folder) for name, folder in models.items()]
    elsewhere = [
        {**dataclasses.asdict(model), "installed": False, "url": model.url}
        for name, model in CATALOGUE.items()
        if name not in models
    ]
    if options.json:
        common.print_json(here + elsewhere)
        return 0
    print("On this machine:")
    for row in here:
        if "error" in row:
            facts = f"broken: {row['error']}"
        else:
            words = "any words" if row["new_words"] else "precomputed vocabularies only"
            facts = f"{row['megabytes']:>6} MB  {row['precision']}  {row['license']}  {words}"
        print(printable(f"  {row['name']:<26} {facts}"))
    if elsewhere:
        print("\nTo download with `pixelclip pull NAME`:")
    for row in elsewhere:
        print(f"  {row['name']:<26} about {row['megabytes']} MB  {row['license']}  {row['url']}")
    if folder := cache_folder():
        print(f"\nA bundle in {printable(str(folder))} has its folder's name as model name.")
    else:
        print("\nSet PIXELCLIP_HOME to a folder for models: this user has no home folder.")
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
