"""After a failure, an interrupt or a kill, the folder holds the old bundle or the new one, complete."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export import staging
from export.embed_text import add_vocabularies
from export.staging import staged_folder
from pixelclip_sdk import PixelClipError
from pixelclip_sdk.bundle import Bundle
from pixelclip_sdk.models import available_models, find_bundle

ROOT = Path(__file__).parents[2]
SHIPPED = Path(find_bundle("pixelclip-lite").path)


@pytest.fixture(params=["one step", "two steps"])
def way(request, monkeypatch):
    """How the new folder replaces the old one."""
    if request.param == "one step":
        if sys.platform != "linux":
            pytest.skip("only Linux swaps folders")
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


def test_linux_swaps_folders_in_one_step(target, monkeypatch):
    if sys.platform != "linux":
        pytest.skip("only Linux swaps folders")
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
    code = """
import signal, sys
from pathlib import Path
from export.staging import staged_folder
from pixelclip_sdk.support.signals import interruptible

with interruptible(), staged_folder(Path(sys.argv[1])) as folder:
    (folder / "bundle.json").write_text("half")
    signal.raise_signal(signal.SIGTERM)
"""
    before = sorted(tmp_path.iterdir())
    result = subprocess.run(
        [sys.executable, "-c", code, str(target)], capture_output=True, text=True, cwd=ROOT
    )
    assert result.stderr.endswith("KeyboardInterrupt: SIGTERM\n")
    assert sorted(tmp_path.iterdir()) == before
    assert (target / "bundle.json").read_text() == "old"


def test_a_folder_that_is_not_a_bundle_is_not_replaced(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(PixelClipError, match="is not a bundle"), staged_folder(tmp_path):
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
def test_an_interrupt_around_the_swap_leaves_a_whole_bundle(tmp_path, target, monkeypatch, exchange):
    """Before the swap or, on Linux, after it."""
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
if sys.argv[2] == "renames":
    staging._exchange = lambda *_: False
    rename = Path.rename
    def killed(self, to):
        rename(self, to)
        os.kill(os.getpid(), signal.SIGKILL)
    Path.rename = killed
with staging.staged_folder(Path(sys.argv[1])) as folder:
    (folder / "bundle.json").write_text("new")
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path, request) -> Path:
    """A real bundle whose next export was killed while it wrote, or between the two renames."""
    target = Path(shutil.copytree(SHIPPED, tmp_path / "models" / "bundle"))
    result = subprocess.run([sys.executable, "-c", KILLED, str(target), request.param])
    assert result.returncode == -signal.SIGKILL
    assert target.exists() == (request.param == "writing")
    assert {".bundle.new", ".bundle.lock"} <= {path.name for path in target.parent.iterdir()}
    return target


def embed(target: Path) -> None:
    bundle = dataclasses.replace(Bundle.open(SHIPPED), path=target)  # `target` itself may be missing.
    add_vocabularies(bundle, {"pets": "cat, dog"})


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("killed", ["writing", "renames"], indirect=True)
@pytest.mark.parametrize("write", [stage, embed])
def test_the_next_writer_cleans_up_after_a_killed_export(killed, monkeypatch, write):
    monkeypatch.setenv("PIXELCLIP_HOME", str(killed.parent))
    assert not any(name.startswith(".") for name in available_models())
    with pytest.raises(RuntimeError), staged_folder(killed):
        raise RuntimeError
    Bundle.open(killed).verify()
    write(killed)
    assert [path.name for path in killed.parent.iterdir()] == ["bundle"]
    if write is embed:
        assert Bundle.open(killed).vocabularies == {"pets": "vocabularies/pets.npz"}


def test_a_half_removed_bundle_is_not_restored(target):
    old = shutil.copytree(target, target.with_name(".bundle.old"))
    (old / "bundle.json").unlink()  # As `_remove` does first.
    shutil.rmtree(target)
    stage(target)
    assert (target / "bundle.json").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["bundle"]


EMBED = """
import sys
from export.embed_text import add_vocabularies
from pixelclip_sdk import Bundle
add_vocabularies(Bundle.open(sys.argv[1]), {"pets": ["cat", "dog"]})
"""


def test_embedding_waits_for_an_export_and_adds_to_the_new_bundle(tmp_path):
    """Without a common lock, the old bundle's manifest would end up over the new bundle's files."""
    target = Path(shutil.copytree(SHIPPED, tmp_path / "bundle"))
    with staged_folder(target) as folder:
        shutil.copytree(SHIPPED, folder, dirs_exist_ok=True)
        manifest = (folder / "bundle.json").read_text()
        (folder / "bundle.json").write_text(manifest.replace('"pixelclip-lite"', '"exported again"', 1))
        process = subprocess.Popen(
            [sys.executable, "-c", EMBED, str(target)], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr.readline() == f"waiting for another process that writes to {target}\n"
    with process:
        assert process.wait(120) == 0, process.stderr.read()
    bundle = Bundle.open(target)
    bundle.verify()
    assert bundle.name == "exported again"
    assert list(bundle.vocabularies) == ["pets"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.usefixtures("way")
def test_files_are_on_the_disk_before_they_replace_the_old_ones(target, monkeypatch):
    events = []
    fsync, exchange, rename = os.fsync, staging._exchange, Path.rename

    def log_fsync(handle):
        events.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    def log_swap(function):
        def swap(*paths):
            events.append("swap")
            return function(*paths)

        return swap

    if sys.platform != "linux":
        pytest.skip("reads the names of open files from /proc")
    monkeypatch.setattr(os, "fsync", log_fsync)
    monkeypatch.setattr(staging, "_exchange", log_swap(exchange))
    monkeypatch.setattr(Path, "rename", log_swap(rename))
    stage(target)
    first, last = events.index("swap"), len(events) - events[::-1].index("swap")
    assert set(events[:first]) == {"bundle.json", ".bundle.new"}
    assert events[last:] == [target.parent.name]
