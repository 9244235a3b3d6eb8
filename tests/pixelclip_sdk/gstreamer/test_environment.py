"""The command that prints the environment of GStreamer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pixelclip_sdk
from pixelclip_sdk import BackendUnavailableError
from pixelclip_sdk.gstreamer import __main__ as command


def test_a_shell_takes_over_what_is_printed():
    try:
        command.variables()
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    script = (
        f'eval "$({sys.executable} -m pixelclip_sdk.gstreamer)"; echo "$GST_PLUGIN_PATH"; echo "$PYTHONPATH"'
    )
    environment = {**os.environ, "GST_PLUGIN_PATH": "mine"}
    out = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, env=environment, check=True
    ).stdout
    plugins, packages = out.splitlines()
    folder, other = plugins.split(":")
    assert other == "mine"
    assert (Path(folder) / "python" / "pixelclip_element.py").is_file()
    assert str(Path(pixelclip_sdk.__file__).parents[1]) in packages.split(":")


def test_a_python_without_pygobject_is_named(monkeypatch):
    monkeypatch.setattr(command, "_SYSTEM", sys.executable)
    monkeypatch.setattr(command, "_ASK", "import no_such_module")
    with pytest.raises(BackendUnavailableError, match="apt-get install python3-gst"):
        command.variables()


def test_another_version_of_python_is_named(monkeypatch):
    monkeypatch.setattr(command, "_SYSTEM", sys.executable)
    monkeypatch.setattr(command, "_ASK", "print('[\"/gi/__init__.py\", 3, 4]')")
    with pytest.raises(BackendUnavailableError, match=r"Python 3\.4; the SDK is installed for"):
        command.variables()
