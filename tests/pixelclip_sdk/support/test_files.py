import os
import stat
import sys
from pathlib import Path

import pytest

from pixelclip_sdk.errors import OutputError
from pixelclip_sdk.support.files import atomic_write, files_below
from pixelclip_sdk.support.images import image_suffixes


def write(path, text="new") -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def test_files_at_any_depth_behind_links_and_none_twice(tmp_path):
    photos = tmp_path / "photos"
    elsewhere = tmp_path / "elsewhere"
    for path in ("a.jpg", "deep/er/b.PNG", "notes.txt", ".hidden.jpg", ".trash/c.jpg"):
        (photos / path).parent.mkdir(parents=True, exist_ok=True)
        (photos / path).touch()
    elsewhere.mkdir()
    (elsewhere / "d.tif").touch()
    (photos / "linked").symlink_to(elsewhere)
    (photos / "deep" / "round").symlink_to(photos)  # A cycle.
    found = sorted(path.relative_to(photos).as_posix() for path in files_below(photos, image_suffixes()))
    assert found == ["a.jpg", "deep/er/b.PNG", "linked/d.tif"]


def test_a_folder_that_does_not_exist_has_no_files(tmp_path):
    assert not list(files_below(tmp_path / "none", image_suffixes()))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot flush folders")
def test_content_is_on_the_disk_before_the_rename_and_the_new_names_after_it(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(handle):
        place = Path(f"/proc/self/fd/{handle}").readlink() if sys.platform == "linux" else None
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        size = os.fstat(handle).st_size if kind == "file" else None
        events.append((kind, place.name if place and kind == "folder" else size))
        fsync(handle)

    def recorded_replace(self, target):
        events.append(("rename", None))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    write(tmp_path / "new" / "folder" / "out.txt", "12345")
    folder = ["folder", "new", tmp_path.name] if sys.platform == "linux" else [None] * 3
    assert events == [
        ("folder", folder[1]),  # The entry of new/folder.
        ("folder", folder[2]),  # The entry of new.
        ("file", 5),
        ("rename", None),
        ("folder", folder[0]),
    ]


def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    target, link, dangling = tmp_path / "real" / "v1.txt", tmp_path / "latest.txt", tmp_path / "next.txt"
    target.write_text("old")
    link.symlink_to(target)
    dangling.symlink_to("real/v2.txt")
    write(link)
    write(dangling, "second")
    assert link.readlink() == target
    assert target.read_text() == "new"
    assert (tmp_path / "real" / "v2.txt").read_text() == "second"
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "latest.txt",
        "next.txt",
        "real",
        "v1.txt",
        "v2.txt",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_the_mode_of_an_existing_file_is_kept_while_and_after_writing(tmp_path, mode):
    path = tmp_path / "key.txt"
    path.write_text("old")
    path.chmod(mode)
    with atomic_write(path) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == mode | 0o200
        temporary.write_text("new")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_text() == "new"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_a_new_file_has_the_mode_that_open_gives(tmp_path):
    (tmp_path / "plain").touch()
    write(tmp_path / "written")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "猫" * 83 + ".txt", "a." + "b" * 250])
def test_the_longest_names_can_be_written(tmp_path, name):
    write(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_temporary_file_has_the_suffix_of_the_name_that_was_given(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "blob")
    with atomic_write(tmp_path / "link.png") as temporary:
        assert temporary.suffix == ".png"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo] if hasattr(os, "mkfifo") else [Path.mkdir])
def test_a_folder_or_a_pipe_is_not_replaced(tmp_path, make):
    make(tmp_path / "there")
    with pytest.raises(OutputError, match=r"it is a (folder|device or a pipe)"):
        write(tmp_path / "there")
    assert not (tmp_path / "there").is_file()
    assert len(list(tmp_path.iterdir())) == 1
