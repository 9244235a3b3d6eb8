"""A folder of photos → a folder of masks."""

import json
import os
import queue
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import ImageError, OutputError, PixelClipError
from training.make_masks import _default_workers, main
from training.masks.format import read_masks
from training.masks.region_maps import RegionMaps
from training.masks.superpixels import Slic
from training.masks.write import _start, find_photos, make_masks

ROOT = Path(__file__).parents[3]


@pytest.fixture
def photos(tmp_path, photo):
    """Five photos, one of them damaged, in folders."""
    folder = tmp_path / "photos"
    for i, name in enumerate(["a.jpg", "b/a.png", "b/c.jpeg", "b/d.JPG"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo[i * 10 : 100 + i * 10, :120]).save(folder / name)
    (folder / "b/broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:500])
    (folder / "notes.txt").write_text("no photo")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.npz"))}


def test_every_photo_gets_a_file_and_damaged_ones_are_named(photos, tmp_path):
    report = make_masks(Slic(segments=20), photos, tmp_path / "m", short_side=50, progress=False)
    assert report.written == 4
    assert report.kept == 0
    assert list(report.corrupt) == ["b/broken.jpg"]
    assert report.without == {}
    assert list(contents(tmp_path / "m")) == ["a.npz", "b/a.npz", "b/c.npz", "b/d.npz"]
    masks = read_masks(tmp_path / "m/b/a.npz")
    assert masks.shape[1:] == (50, 60)
    assert (masks.sum(axis=0) == 1).all()
    assert 10 < len(masks) < 30
    assert json.loads((tmp_path / "m/skipped.json").read_text())["corrupt"].keys() == {"b/broken.jpg"}


def test_it_goes_on_where_it_was_stopped(photos, tmp_path):
    out = tmp_path / "m"
    make_masks(Slic(segments=20), photos, out, progress=False)
    first = contents(out)
    (out / "a.npz").unlink()
    (out / "b/c.npz").write_bytes(first["b/c.npz"][:-30])
    before = (out / "b/a.npz").stat().st_mtime_ns
    report = make_masks(Slic(segments=20), photos, out, progress=False)
    assert (report.written, report.kept) == (2, 2)
    assert contents(out) == first
    assert (out / "b/a.npz").stat().st_mtime_ns == before


def test_masks_of_other_settings_are_not_mixed(photos, tmp_path):
    out = tmp_path / "m"
    make_masks(Slic(segments=20), photos, out, progress=False)
    before = contents(out)
    for source, side in ((Slic(segments=21), 512), (Slic(segments=20), 100), (RegionMaps(photos), 512)):
        with pytest.raises(PixelClipError, match=r"has masks made with .*'segments': 20.*Choose another"):
            make_masks(source, photos, out, short_side=side, progress=False)
    assert contents(out) == before


def test_a_folder_of_maps_is_the_same_from_wherever_it_is_named(photos, tmp_path, monkeypatch):
    (tmp_path / "maps").mkdir()
    halves = np.arange(100)[:, None].repeat(120, 1) // 50
    Image.fromarray(halves.astype(np.uint8)).save(tmp_path / "maps/a.png")
    monkeypatch.chdir(tmp_path)
    assert make_masks(RegionMaps(Path("maps")), photos, tmp_path / "m", progress=False).written == 1
    assert make_masks(RegionMaps(tmp_path / "maps"), photos, tmp_path / "m", progress=False).kept == 1


def test_several_processes_write_the_same(photos, tmp_path):
    reports = [
        make_masks(Slic(segments=20), photos, tmp_path / f"m{n}", workers=n, progress=False) for n in (1, 2)
    ]
    assert reports[0] == reports[1]
    assert contents(tmp_path / "m1") == contents(tmp_path / "m2")


def test_photos_without_masks_and_masks_over_everything_are_counted(photos, tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    regions = np.zeros((100, 120), np.uint8)
    Image.fromarray(regions).save(maps / "a.png")
    (maps / "b").mkdir()
    regions[50:] = 1
    Image.fromarray(regions).save(maps / "b/a.png")
    report = make_masks(RegionMaps(maps), photos, tmp_path / "m", progress=False)
    assert report.written == 1
    assert report.without["a.jpg"] == "one region covers the whole photo"
    assert "there is no" in report.without["b/c.jpeg"]
    assert len(report.without) == 4
    assert len(read_masks(tmp_path / "m/b/a.npz")) == 2


def test_two_photos_may_not_share_a_file(photos):
    Image.new("RGB", (8, 8)).save(photos / "a.png")
    with pytest.raises(ImageError, match=r"a\.jpg and a\.png would share"):
        find_photos(photos)


def test_folders_without_photos_are_refused(tmp_path):
    with pytest.raises(ImageError, match="is no folder"):
        find_photos(tmp_path / "none")
    with pytest.raises(ImageError, match="has no image files"):
        find_photos(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits are set between fork and exec")
def test_a_full_disk_stops_it_and_leaves_no_half_file(photos, tmp_path):
    """No file may grow beyond 100 bytes: writing fails as it does when the disk is full."""
    import resource
    import signal

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    make_masks(Slic(), photos, tmp_path / "m", progress=False)
    for file in (tmp_path / "m").rglob("*.npz"):
        file.unlink()
    command = [sys.executable, "-B", str(ROOT / "training/make_masks.py"), "slic", "--workers", "1"]
    command += ["--images", str(photos), "--out", str(tmp_path / "m")]
    result = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert result.returncode == 1
    assert "a disk with free space" in result.stderr
    assert sorted(p.name for p in (tmp_path / "m").rglob("*") if p.is_file()) == [
        "masks.json",
        "skipped.json",
    ]


def test_a_place_that_cannot_be_written(photos, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        make_masks(Slic(), photos, tmp_path / "file", progress=False)


def test_the_command(photos, tmp_path, capsys):
    arguments = ["--images", str(photos), "--out", str(tmp_path / "m"), "--workers", "1"]
    assert main(["felzenszwalb", *arguments, "--side", "64", "--min-size", "50"]) == 0
    out = capsys.readouterr().out
    assert "masks of 4 photos (4 new); skipped 0 without masks, 1 corrupt" in out
    assert "b/broken.jpg: " in out
    assert main(["felzenszwalb", *arguments, "--side", "65", "--min-size", "50"]) == 1
    assert "Choose another folder" in capsys.readouterr().err
    assert json.loads((tmp_path / "m/masks.json").read_text()) == {
        "schema_version": 1,
        "source": "felzenszwalb",
        "short_side": 64,
        "scale": 200.0,
        "sigma": 0.8,
        "min_size": 50,
    }


@pytest.mark.parametrize("source", ["dino", "sam"])
def test_a_checkpoint_that_is_not_there(photos, tmp_path, capsys, source):
    arguments = [
        "--images",
        str(photos),
        "--out",
        str(tmp_path / "m"),
        "--checkpoint",
        str(tmp_path / "no.pth"),
    ]
    assert main([source, *arguments, *(["--model", "vit_b"] if source == "sam" else [])]) == 1
    assert "there is no checkpoint" in capsys.readouterr().err


def test_nothing_made_is_a_failure(photos, tmp_path, capsys):
    arguments = ["--images", str(photos), "--out", str(tmp_path / "m"), "--workers", "1"]
    assert main(["sa1b", *arguments]) == 1
    assert "skipped 5 without masks" in capsys.readouterr().out


@pytest.mark.parametrize(("gpus", "expected"), [(0, 1), (1, 1), (3, 3)])
def test_networks_get_a_process_a_gpu(monkeypatch, gpus, expected):
    """There are none here: this is the count, not the work."""
    import torch

    from training.masks.dino import DinoKMeans
    from training.masks.sam import SAM

    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert _default_workers(DinoKMeans()) == _default_workers(SAM("vit_b", Path("sam.pth"))) == expected
    assert _default_workers(Slic()) == len(os.sched_getaffinity(0))


def test_the_n_th_process_takes_the_n_th_gpu(monkeypatch):
    import torch

    taken = []
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    ranks = queue.Queue()
    for rank in range(3):
        ranks.put(rank)
        _start(ranks, True)
    assert taken == [0, 1, 0]
    assert os.environ["OMP_NUM_THREADS"] == "1"
    ranks.put(3)
    _start(ranks, False)
    assert len(taken) == 3


@pytest.mark.parametrize("source", ["", "slic", "felzenszwalb", "regions", "sa1b", "dino", "sam"])
def test_help(source, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([*source.split(), "--help"])
    assert "make_masks.py" in capsys.readouterr().out
