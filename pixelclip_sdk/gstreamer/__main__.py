"""Print the variables with which GStreamer finds the element: ``eval "$(python -m … )"``; docs/gstreamer.md.

GStreamer runs elements in the Python of the system. That Python does not know the virtual environment in
which the SDK is installed; and while one is active, it does not find PyGObject, which is installed beside it.
"""

import importlib.util
import json
import shlex
import subprocess
import sys
from pathlib import Path

from pixelclip_sdk.errors import BackendUnavailableError
from pixelclip_sdk.support.command import run_command

_FOLDER = Path(__file__).resolve().parent
_PACKAGES = ("pixelclip_sdk", "numpy", "PIL", "onnxruntime", "tokenizers")
_SYSTEM = "/usr/bin/python3"
_ASK = "import gi, json, sys; print(json.dumps([gi.__file__, *sys.version_info[:2]]))"


def variables() -> dict[str, list[str]]:
    """Returns the folders of each variable.

    Raises:
        BackendUnavailableError: The system has no PyGObject, or its Python is of another version.
    """
    try:
        answer = subprocess.run([_SYSTEM, "-I", "-c", _ASK], capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BackendUnavailableError(
            f"{_SYSTEM} has no PyGObject, which GStreamer's Python elements need. "
            "Install it: apt-get install python3-gst-1.0 gstreamer1.0-python3-plugin-loader"
        ) from error
    bindings, *version = json.loads(answer.stdout)
    if version != list(sys.version_info[:2]):
        system, own = ".".join(map(str, version)), ".".join(map(str, sys.version_info[:2]))
        raise BackendUnavailableError(
            f"GStreamer runs elements in {_SYSTEM}, Python {system}; the SDK is installed for {own}. "
            f"Install it for {system}: {_SYSTEM} -m venv FOLDER"
        )
    found = [importlib.util.find_spec(name) for name in _PACKAGES]
    origins = [*(spec.origin for spec in found if spec and spec.origin), bindings]
    folders = dict.fromkeys(str(Path(origin).resolve().parents[1]) for origin in origins)
    return {"GST_PLUGIN_PATH": [str(_FOLDER)], "PYTHONPATH": list(folders)}


def main() -> int:
    """Print a line for each variable."""
    for name, folders in variables().items():
        print(f"export {name}={shlex.quote(':'.join(folders))}${{{name}:+:${name}}}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("pixelclip_sdk.gstreamer", main))
