"""An archive becomes shards: the same rows as `predict`, whatever happened on the way."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import (
    ArchiveProgress,
    BackendError,
    OutputError,
    PixelClipError,
    Segmenter,
    segment_archive,
)
from pixelclip_sdk.batch import local

pytest.importorskip("pyarrow")
pytest.importorskip("fsspec")
import pyarrow.parquet as parquet

WORDS = ["cat", "sofa", "grass"]


class StoppedError(Exception):
    """Ends a run in the middle."""


def run(archive: Path, out: Path, words=WORDS, stop_after: int | None = None, **options) -> ArchiveProgress:
    """Segments an archive in shards of three pictures with two threads; may stop after some shards."""
    shards = 0

    def progress(_: ArchiveProgress) -> None:
        nonlocal shards
        shards += 1
        if shards == stop_after:
            raise StoppedError

    inputs = [archive]
    return segment_archive(inputs, out, words, shard_size=3, threads=2, progress=progress, **options)


def files(out: Path) -> dict[str, bytes]:
    """All files but the timings."""
    found = [path for path in sorted(out.rglob("*")) if path.is_file() and path.parent.name != "timings"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


def rows(out: Path) -> list[dict]:
    return parquet.read_table(out / "results").to_pylist()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, same) -> dict[str, tuple[Path, ArchiveProgress]]:
    """For each format, the folder of a run of `same` that was not stopped, and what it returned."""
    made = {}
    for form in ("parquet", "png"):
        out = tmp_path_factory.mktemp("whole") / form
        made[form] = out, run(same, out, format=form)
    return made


@pytest.fixture
def finished(whole, tmp_path) -> Path:
    """A copy of the finished run of `same` with the format "parquet"."""
    return shutil.copytree(whole["parquet"][0], tmp_path / "out")


@pytest.fixture
def made(monkeypatch) -> list[int]:
    """The sizes of the files that a run segments."""
    sizes: list[int] = []
    before = Segmenter.predict

    def predict(self, image, **options):
        sizes.append(len(image))
        return before(self, image, **options)

    monkeypatch.setattr(Segmenter, "predict", predict)
    return sizes


def test_rows_are_those_of_predict_in_the_order_of_the_inputs(same, whole, lite):
    out, done = whole["parquet"]
    assert (done.pictures, done.done, done.failed, done.kept, done.left_s) == (8, 8, 1, 0, 0)
    found = rows(out)
    names = ["0.png", "1.png", "2.png", "3.png", "4.png", "bad.jpg", "more/5.png", "more/6.png"]
    assert [row["path"] for row in found] == [str(same / name) for name in names]
    lite.set_classes(WORDS)
    for row in found:
        assert row["names"] == WORDS
        assert row["model"] == "pixelclip-lite"
        assert row["model_sha256"] == lite.bundle.image_hash
        if row["path"].endswith("bad.jpg"):
            assert row["error"] == f"ImageError: 10 bytes is not an image; expected one of {_formats()}"
            assert row["label_png"] is row["shares"] is row["height"] is None
            continue
        result = lite.predict(row["path"])
        assert row["error"] is None
        assert (row["height"], row["width"]) == result.orig_shape
        assert dict(zip(WORDS, row["shares"], strict=True)) == result.areas()
        with Image.open(io.BytesIO(row["label_png"]), formats=["PNG"]) as labels:
            np.testing.assert_array_equal(np.asarray(labels), result.labels)
    timings = parquet.read_table(out / "timings").to_pylist()
    assert [row["path"] for row in timings] == [row["path"] for row in found]
    assert all((row["inference_ms"] is None) == row["path"].endswith("bad.jpg") for row in timings)
    facts = json.loads((out / "batch.json").read_text())
    assert facts["complete"] is True
    assert (facts["pictures"], facts["shards"], facts["names"]) == (8, 3, WORDS)


def _formats() -> str:
    from pixelclip_sdk.support.images import IMAGE_FORMATS

    return ", ".join(IMAGE_FORMATS)


@pytest.mark.parametrize("form", ["parquet", "png"])
def test_a_stopped_run_that_is_continued_equals_one_that_was_not(same, whole, tmp_path, made, form):
    with pytest.raises(StoppedError):
        run(same, tmp_path / "out", format=form, stop_after=2)
    first = len(made)
    timings = (tmp_path / "out" / "timings" / "part-00000.parquet").read_bytes()
    done = run(same, tmp_path / "out", format=form)
    assert done.kept >= 3
    assert len(made) - first <= 5
    assert files(tmp_path / "out") == files(whole[form][0])
    assert (tmp_path / "out" / "timings" / "part-00000.parquet").read_bytes() == timings
    # And once more: nothing is left to do, and no shard is written again.
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()}
    del made[:]
    assert run(same, tmp_path / "out", format=form).kept == 8
    assert not made
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()} == times


def test_png_files_are_named_after_the_content_of_their_picture(whole):
    out, _ = whole["png"]
    for row in rows(out):
        assert "label_png" not in row
        if row["error"]:
            assert row["label_file"] is None
            continue
        assert row["label_file"] == f"labels/{row['content_sha256'][:2]}/{row['content_sha256']}.png"
        with Image.open(out / row["label_file"], formats=["PNG"]) as labels:
            assert labels.size == (row["width"], row["height"])


def test_a_label_file_that_is_missing_is_made_again(same, whole, tmp_path, made):
    out = shutil.copytree(whole["png"][0], tmp_path / "out")
    next(out.rglob("*.png")).unlink()
    run(same, out, format="png")
    assert len(made) == 1
    assert files(out) == files(whole["png"][0])


@pytest.mark.parametrize("change", [{"words": ["cat", "sofa"]}, {"min_confidence": 0.4}, {"format": "png"}])
def test_other_words_and_settings_are_not_done(same, finished, tmp_path, made, change):
    run(same, tmp_path / "fresh", **change)
    del made[:]
    assert run(same, finished, **change).kept == 0
    assert len(made) == 8
    assert files(finished) == files(tmp_path / "fresh")


def test_only_new_and_changed_pictures_are_segmented(archive, tmp_path, made):
    run(archive, tmp_path / "out")
    del made[:]
    (archive / "4.png").write_bytes(
        (archive / "more" / "6.png").read_bytes()[:-20]
    )  # Damaged, another content
    shutil.move(archive / "3.png", archive / "more" / "7.png")
    run(archive, tmp_path / "fresh")
    fresh = len(made)
    run(archive, tmp_path / "out")
    assert fresh == 8
    assert len(made) - fresh <= 4
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_shards_beyond_the_last_are_removed(archive, tmp_path):
    run(archive, tmp_path / "out")
    shutil.rmtree(archive / "more")
    run(archive, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "timings").iterdir()) == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert len(rows(tmp_path / "out")) == 6


def test_a_damaged_shard_is_made_again(same, whole, finished):
    for number, content in enumerate((b"", b"PAR1 and nothing more")):
        (finished / "results" / f"part-0000{number}.parquet").write_bytes(content)
    run(same, finished)
    assert files(finished) == files(whole["parquet"][0])


def test_a_file_that_could_not_be_read_is_tried_again(archive, tmp_path):
    (archive / "list.txt").write_text("0.png\nlater.png\n")
    listed = archive / "list.txt"
    assert run(listed, tmp_path / "out").failed == 1
    assert "later.png cannot be read: No such file" in rows(tmp_path / "out")[1]["error"]
    shutil.copy(archive / "1.png", archive / "later.png")
    done = run(listed, tmp_path / "out")
    assert (done.failed, done.kept) == (0, 1)
    assert rows(tmp_path / "out")[1]["error"] is None


def test_results_of_other_inputs_are_not_replaced(same, whole, finished):
    with pytest.raises(OutputError, match="has the results of other inputs"):
        run(same / "more", finished)
    assert files(finished) == files(whole["parquet"][0])


def test_a_picture_that_the_engine_fails_for_is_a_row_that_is_tried_again(archive, tmp_path, monkeypatch):
    before, large = Segmenter.predict, (archive / "1.png").read_bytes()

    def predict(self, image, **options):
        if image == large:
            raise MemoryError("out of memory")
        return before(self, image, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Segmenter, "predict", predict)
        assert run(archive, tmp_path / "out").failed == 2
    assert rows(tmp_path / "out")[1]["error"] == "MemoryError: out of memory"
    done = run(archive, tmp_path / "out")
    assert (done.failed, done.kept) == (0, 7)


def test_an_engine_that_fails_for_every_picture_ends_the_run(archive, tmp_path, monkeypatch):
    def predict(_self, _image, **_options):
        raise BackendError("the GPU is gone")

    monkeypatch.setattr(Segmenter, "predict", predict)
    with pytest.raises(BackendError, match="the GPU is gone"):
        run(archive, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "batch.json").read_text())["complete"] is False
    assert not (tmp_path / "out" / "results").exists()


def test_shards_are_planned_when_it_is_their_turn(archive, lite):
    """A plan of a million pictures would else be looked up before the first is segmented."""
    from pixelclip_sdk.batch.inputs import find_pictures
    from pixelclip_sdk.batch.job import Job, Shard

    lite.set_classes(WORDS)
    pictures, planned = find_pictures([str(archive / "0.png")]) * 100, []

    def shards():
        for number in range(50):
            planned.append(number)
            yield Shard(number, pictures[:2], frozenset())

    results = local.segment_here(Job.of(lite, "pixelclip-lite", {}, "parquet"), lite, shards(), 2)
    assert next(results).number == 0
    assert len(planned) <= 6
    results.close()


@pytest.mark.parametrize(
    "change", [{"engine": "spark"}, {"actors": 0}, {"format": "json"}, {"shard_size": 0}, {"threads": 1.5}]
)
def test_other_arguments_are_refused(archive, tmp_path, change):
    with pytest.raises(PixelClipError, match=f"{next(iter(change))} is "):
        segment_archive([archive], tmp_path / "out", WORDS, **change)


def test_results_at_an_address_are_refused(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in ("s3://me:secret@bucket/out", Path("s3://me:secret@bucket/out")):
        with pytest.raises(OutputError, match=r"cannot go to s3://bucket/out; expected a folder"):
            segment_archive([archive], out, WORDS)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_inputs_may_be_one_path_only_in_a_list(archive, tmp_path):
    for inputs in (archive, str(archive)):
        with pytest.raises(PixelClipError, match="expected a list"):
            segment_archive(inputs, tmp_path / "out", WORDS)
