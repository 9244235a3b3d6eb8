"""A bundle is the old one or the new one, whole, whatever happens and whenever."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export import staging
from export.staging import staged_folder
from pixelclip_sdk import BundleError, PixelClipError
from pixelclip_sdk.bundle import Bundle
from pixelclip_sdk.models import available_models, find_bundle
from pixelclip_sdk.support.files import set_aside
from pixelclip_sdk.support.signals import sigterm_interrupts

SHIPPED = Path(find_bundle("pixelclip-lite").path)


@pytest.fixture(params=["one step", "two steps"])
def way(request, monkeypatch):
    """How the new bundle takes its place."""
    if request.param == "one step":
        if sys.platform != "linux":
            pytest.skip("Linux alone exchanges folders")
    else:
        monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    return request.param


@pytest.fixture
def target(tmp_path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "bundle.json").write_text("old")
    return folder


def stage(target: Path, content: str = "new") -> None:
    with staged_folder(target) as folder:
        (folder / "bundle.json").write_text(content)


@pytest.mark.usefixtures("way")
def test_a_staged_folder_replaces_a_bundle_whole(tmp_path):
    target = tmp_path / "bundle"
    for content in ("one", "two"):
        with staged_folder(target) as folder:
            (folder / "bundle.json").write_text(content)
    assert (target / "bundle.json").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_linux_exchanges_folders_in_one_step(target, monkeypatch):
    if sys.platform != "linux":
        pytest.skip("Linux alone exchanges folders")
    monkeypatch.delattr(staging, "_replace")
    stage(target)
    assert (target / "bundle.json").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
@pytest.mark.usefixtures("way")
def test_a_failed_export_keeps_the_old_bundle(tmp_path, target, error):
    def fail() -> None:
        with staged_folder(target) as folder:
            (folder / "bundle.json").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert (target / "bundle.json").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_service_that_is_stopped_leaves_nothing_behind(tmp_path, target):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt), sigterm_interrupts(), staged_folder(target):
        signal.raise_signal(signal.SIGTERM)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(PixelClipError, match="is no bundle"), staged_folder(tmp_path):
        pass
    assert (tmp_path / "holiday.jpg").exists()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", [1, 2])
def test_an_interrupt_at_either_step_leaves_a_whole_bundle(tmp_path, target, monkeypatch, step, after):
    monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    rename, calls = Path.rename, []

    def interrupted(self, to):
        calls.append(to)
        if len(calls) == step and not after:
            raise KeyboardInterrupt
        result = rename(self, to)
        if len(calls) == step:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage(target)
    assert (target / "bundle.json").read_text() == ("new" if (step, after) == (2, True) else "old")
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("exchange", [False, True])
def test_an_interrupt_beside_the_exchange_leaves_a_whole_bundle(tmp_path, target, monkeypatch, exchange):
    """Before it or, where this system can do it, behind it."""
    real = staging._exchange

    def interrupted(fresh, target):
        if exchange:
            real(fresh, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(staging, "_exchange", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage(target)
    done = exchange and sys.platform == "linux"
    assert (target / "bundle.json").read_text() == ("new" if done else "old")
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


KILLED = """
import os, signal, sys
from pathlib import Path
from export import staging
staging._exchange = lambda *_: False
rename = Path.rename
def killed(self, to):
    rename(self, to)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = killed
with staging.staged_folder(Path(sys.argv[1])) as folder:
    (folder / "bundle.json").write_text("new")
"""


@pytest.fixture
def killed(tmp_path) -> Path:
    """A real bundle whose next export was killed between the two steps."""
    target = Path(shutil.copytree(SHIPPED, tmp_path / "models" / "bundle"))
    result = subprocess.run([sys.executable, "-c", KILLED, str(target)])
    assert result.returncode == -signal.SIGKILL
    assert not target.exists()
    return target


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_bundle_set_aside_by_a_killed_export_comes_back(killed, monkeypatch):
    monkeypatch.setenv("PIXELCLIP_HOME", str(killed.parent))
    assert "bundle" not in available_models()
    assert not any(name.startswith(".") for name in available_models())
    aside = set_aside(killed)
    for read in (lambda: Bundle.open(killed), lambda: find_bundle(killed), lambda: find_bundle("bundle")):
        with pytest.raises(BundleError, match="Run the export again"):
            read()
    assert not killed.exists()  # Reading changes nothing; the next writer restores the bundle.
    with pytest.raises(RuntimeError), staged_folder(killed):
        raise RuntimeError
    Bundle.open(killed).verify()
    assert not aside.exists()
    stage(killed)
    assert (killed / "bundle.json").read_text() == "new"


def test_what_was_only_half_removed_does_not_come_back(target):
    aside = set_aside(target)
    shutil.copytree(target, aside)
    staging._remove(target)
    (aside / "bundle.json").unlink()  # As `_remove` does first.
    stage(target)
    assert (target / "bundle.json").read_text() == "new"
