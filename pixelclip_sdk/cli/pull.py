"""`pixelclip pull`: download published weights and convert them to a bundle.

The conversion needs torch, so it runs ``export/to_onnx.py`` of a checkout in a process of its own.
"""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

from pixelclip_sdk.catalogue import CATALOGUE
from pixelclip_sdk.cli.common import Parsers
from pixelclip_sdk.errors import BackendUnavailableError, CheckpointError, ModelNotFoundError
from pixelclip_sdk.models import available_models, cache_folder, how_to_get
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import printable, report
from pixelclip_sdk.support.files import is_file
from pixelclip_sdk.support.hints import did_you_mean

# The packages that the exporter imports.
_PACKAGES = ("torch", "open_clip", "onnx", "onnxscript", "huggingface_hub")


def add_parser(commands: Parsers) -> None:
    """Add the verb."""
    parser = commands.add_parser("pull", help="download a published model and convert it to a bundle")
    parser.add_argument("name", metavar="NAME", help=", ".join(CATALOGUE))
    parser.add_argument(
        "--checkpoint", type=path, metavar="FILE", help="weights that you downloaded elsewhere: no network"
    )
    parser.set_defaults(run=_pull)


def _pull(options: argparse.Namespace) -> int:
    name, models, cache = options.name, available_models(), cache_folder()
    if name in models:
        print(f"{name} is already on this machine: {printable(str(models[name]))}")
        return 0
    if name not in CATALOGUE:
        hint = did_you_mean(name, [*models, *CATALOGUE])
        raise ModelNotFoundError(
            f"no published model {name!r}.{hint} Expected one of: {', '.join(CATALOGUE)}"
        )
    if cache is None:
        raise ModelNotFoundError(
            "this user has no home folder to put models into. Set PIXELCLIP_HOME to a folder."
        )
    if options.checkpoint is not None and not is_file(options.checkpoint):
        raise CheckpointError(f"--checkpoint {options.checkpoint} is not a file")
    checkout = _checkout()
    if checkout is None:
        raise BackendUnavailableError(f"pull needs the exporter, which is not installed.\n{how_to_get(name)}")
    command = [sys.executable, "-m", "export.to_onnx", "--model", name, "--out", str(cache / name)]
    if options.checkpoint is None:
        report(f"downloading {CATALOGUE[name].describe()}")
    else:
        command += ["--checkpoint", str(options.checkpoint.absolute())]
    return _run(command, checkout)


def _checkout() -> Path | None:
    """The root of the checkout that has the exporter; None if it or a package that it needs is missing."""
    spec = importlib.util.find_spec("export")
    if spec is None or any(importlib.util.find_spec(package) is None for package in _PACKAGES):
        return None
    folders = map(Path, spec.submodule_search_locations or [])
    return next((folder.parent for folder in folders if is_file(folder / "to_onnx.py")), None)


def _run(command: list[str], folder: Path) -> int:
    """Run a command in a folder; pass its exit code on, and a stop signal on to it."""
    with subprocess.Popen(command, cwd=folder) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()  # It cleans up. Ctrl-C has reached it already, SIGTERM has not.
            process.wait()
            raise
