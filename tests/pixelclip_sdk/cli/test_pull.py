"""`pixelclip pull` where nothing is downloaded; tests/export/test_pull.py does the rest."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pixelclip_sdk.cli.main import main

ROOT = Path(__file__).parents[3]
# As after `pip install pixelclip-sdk`: no folder on the path has the exporter.
WHEEL_ONLY = """
import os, sys
sys.path[:] = [p for p in sys.path if not os.path.exists(os.path.join(p or ".", "export", "to_onnx.py"))]
sys.path.insert(0, sys.argv[1])
from pixelclip_sdk.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PIXELCLIP_HOME", str(tmp_path / "models"))
    return tmp_path / "models"


def test_a_model_that_is_here_is_not_downloaded(capsys):
    assert main(["pull", "pixelclip-lite"]) == 0
    assert capsys.readouterr().out.startswith("pixelclip-lite is already on this machine: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pixelclip-vit-b"], "no published model 'pixelclip-vit-b'. Did you mean 'pixelclip-vit-b16'?"),
        (["clip-vit-b16", "--checkpoint", "nowhere.pth"], "--checkpoint nowhere.pth is not a file"),
    ],
)
def test_what_cannot_be_pulled(capsys, arguments, said):
    assert main(["pull", *arguments]) == 1
    assert said in capsys.readouterr().err


def test_without_a_home_folder_it_asks_for_one(monkeypatch, capsys):
    monkeypatch.delenv("PIXELCLIP_HOME")
    monkeypatch.setenv("HOME", "relative")
    assert main(["pull", "clip-vit-b16"]) == 1
    assert "Set PIXELCLIP_HOME" in capsys.readouterr().err


def test_without_the_exporter_it_says_what_to_install(tmp_path, models):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "pixelclip_sdk").symlink_to(ROOT / "pixelclip_sdk")
    command = [sys.executable, "-c", WHEEL_ONLY, str(tmp_path / "site"), "pull", "pixelclip-vit-b16"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("pixelclip: pull needs the exporter, which is not installed.\n")
    assert 'pip install -e ".[export]"\n' in result.stderr
    assert (
        f"python export/to_onnx.py --model pixelclip-vit-b16 --out {models}/pixelclip-vit-b16"
        in result.stderr
    )
    assert not models.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send")
def test_a_stop_signal_reaches_the_exporter_and_waits_for_it(spawn):
    child = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('cleaned', flush=True), sys.exit(0)))\n"
        "print('started', flush=True)\n"
        "time.sleep(60)"
    )
    code = (
        "import sys; from pathlib import Path\n"
        "from pixelclip_sdk.cli.pull import _run\n"
        "from pixelclip_sdk.support.command import run_command\n"
        f"sys.exit(run_command('x', lambda: _run([sys.executable, '-c', {child!r}], Path('.'))))"
    )
    command = [sys.executable, "-c", code]
    process = spawn(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "cleaned\n")
