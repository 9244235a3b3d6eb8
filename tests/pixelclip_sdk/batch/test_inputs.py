"""What an archive may be given as."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pixelclip_sdk import BackendUnavailableError, ImageError
from pixelclip_sdk.batch.inputs import Picture, find_pictures, read_picture

arrow = pytest.importorskip("pyarrow")
pytest.importorskip("fsspec")
import pyarrow.parquet as parquet  # noqa: E402


def paths(*inputs: object, out: Path | None = None) -> list[str]:
    return [picture.path for picture in find_pictures([str(text) for text in inputs], out)]


def test_a_folder_is_searched_below_in_natural_order_without_results(archive):
    (archive / "10.png").write_bytes((archive / "0.png").read_bytes())
    (archive / "0.labels.png").write_bytes(b"of an earlier run")
    out = archive / "out"
    (out / "labels").mkdir(parents=True)
    (out / "labels" / "x.png").write_bytes(b"a result")
    names = ["0.png", "1.png", "2.png", "3.png", "4.png", "10.png", "bad.jpg", "more/5.png", "more/6.png"]
    assert paths(archive, out=out) == [str(archive / name) for name in names]


def test_patterns_files_and_lists_name_each_picture_once(archive, monkeypatch):
    monkeypatch.chdir(archive)
    (archive / "list.txt").write_text("more/6.png\n\n  0.png  \n", encoding="utf-8-sig")
    wanted = [archive / "3.png", archive / "more" / "5.png", archive / "more" / "6.png", archive / "0.png"]
    assert paths("3.png", "**/5.png", "more/*.png", "list.txt", "3.png") == [str(path) for path in wanted]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere", "does not exist"),
        ("no*.jpg", "no file matches"),
        ("empty", "has no image files"),
        ("nothing://x/y", "not known"),
        ("memory://nowhere/x.txt", "does not exist"),
    ],
)
def test_inputs_without_pictures_are_refused(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match=message):
        paths(text)


def test_one_text_is_not_taken_for_a_list():
    with pytest.raises(ImageError, match="expected a list"):
        find_pictures("photos")


def test_a_package_that_an_address_needs_is_named():
    with pytest.raises(BackendUnavailableError, match=r"sftp:// addresses need another package: .*paramiko"):
        read_picture(Picture("sftp://host/x.jpg"))


def write(path: Path, columns: dict, **options) -> Path:
    parquet.write_table(arrow.table(columns), path, **options)
    return path


def test_parquet_of_paths_is_relative_to_the_file(archive):
    file = write(archive / "list.parquet", {"path": ["0.png", str(archive / "1.png")], "id": [1, 2]})
    assert paths(file) == [str(archive / "0.png"), str(archive / "1.png")]


@pytest.mark.parametrize("layout", ["bytes", "bytes and path", "image", "image of bytes and path"])
def test_parquet_of_bytes(archive, tmp_path, layout):
    contents = [(archive / f"{i}.png").read_bytes() for i in range(5)]
    names = [f"n{i}.png" for i in range(5)]
    columns = {
        "bytes": {"bytes": contents},
        "bytes and path": {"path": names, "bytes": contents},
        "image": {"image": contents},
        "image of bytes and path": {
            "image": [{"bytes": c, "path": n} for c, n in zip(contents, names, strict=True)]
        },
    }[layout]
    file = write(tmp_path / "x.parquet", columns, row_group_size=2)
    pictures = find_pictures([str(file)])
    expected = names if "path" in layout else [f"{file}#{i}" for i in range(5)]
    assert [picture.path for picture in pictures] == expected
    # In another order, too: a resumed run begins anywhere.
    assert [read_picture(pictures[i]) for i in (4, 0, 1, 3, 2)] == [contents[i] for i in (4, 0, 1, 3, 2)]


def test_rows_without_bytes_have_a_path_or_an_error(archive):
    rows = [{"bytes": None, "path": "0.png"}, {"bytes": None, "path": None}, {"bytes": b"x", "path": None}]
    pictures = find_pictures([str(write(archive / "x.parquet", {"image": rows}))])
    assert read_picture(pictures[0]) == (archive / "0.png").read_bytes()
    with pytest.raises(ImageError, match=r"row 1 of .* has neither bytes nor a path"):
        read_picture(pictures[1])


def test_a_parquet_file_of_something_else_says_what_it_has(tmp_path):
    file = write(tmp_path / "x.parquet", {"url": ["a"], "path": [3]})
    with pytest.raises(ImageError, match=r"has the columns url, path; expected path \(text\)"):
        find_pictures([str(file)])


@pytest.fixture
def memory(archive):
    """fsspec's file system in memory with the archive's files: for addresses of every kind."""
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    for path in archive.rglob("*.*"):
        system.pipe(f"/bucket/{path.relative_to(archive)}", path.read_bytes())
    system.pipe("/bucket/list.txt", b"0.png\nmore/5.png\n")
    yield "memory://bucket"
    system.rm("/bucket", recursive=True)


def test_addresses_of_folders_patterns_pictures_and_lists(memory, archive):
    assert paths(memory)[-2:] == [f"{memory}/more/5.png", f"{memory}/more/6.png"]
    assert paths(f"{memory}/[01].png") == [f"{memory}/0.png", f"{memory}/1.png"]
    assert paths(f"{memory}/2.png") == [f"{memory}/2.png"]
    assert paths(f"{memory}/list.txt") == [f"{memory}/0.png", f"{memory}/more/5.png"]
    for picture in find_pictures([memory]):
        name = picture.path.removeprefix(f"{memory}/")
        assert read_picture(picture) == (archive / name).read_bytes()
    with pytest.raises(ImageError, match="does not exist"):
        read_picture(Picture(f"{memory}/nothing.jpg"))


def test_local_addresses_are_files(archive):
    (path,) = paths(f"file://{archive}/3.png")
    assert read_picture(Picture(path)) == (archive / "3.png").read_bytes()
    assert len(paths(f"file://{archive}")) == 8


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(archive):
    pytest.importorskip("aiohttp")
    handler = functools.partial(_Quiet, directory=str(archive))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_a_web_server(server, archive):
    (archive / "list.txt").write_text("0.png\nmore/5.png\nnothing.png\n")
    first, second, missing = find_pictures([f"{server}/list.txt"])
    assert read_picture(first) == (archive / "0.png").read_bytes()
    assert read_picture(second) == (archive / "more" / "5.png").read_bytes()
    with pytest.raises(ImageError, match=r"nothing\.png does not exist"):
        read_picture(missing)
    assert paths(f"{server}/more/") == [f"{server}/more/5.png", f"{server}/more/6.png"]


def test_messages_hide_what_addresses_may_hold(server):
    address = f"{server}/nothing.png?signature=secret"
    with pytest.raises(ImageError) as caught:
        read_picture(Picture(address))
    assert "secret" not in str(caught.value)
