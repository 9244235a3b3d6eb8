"""The pictures of an archive: listed in a fixed order, and read one by one."""

import functools
import glob
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pixelclip_sdk.errors import BackendUnavailableError, ImageError, PixelClipError
from pixelclip_sdk.support.files import is_file, is_folder, user_path
from pixelclip_sdk.support.images import RESULT_SUFFIXES, find_images, image_suffixes
from pixelclip_sdk.support.packages import imported
from pixelclip_sdk.support.redact import redact

__all__ = ["EXTRA", "Picture", "find_pictures", "read_picture"]

EXTRA = '"pixelclip-sdk[batch]"'

# Arrow has its own clients for these, which need no further package; fsspec has the others.
_ARROW = ("s3", "gs", "gcs")
_PATTERN = frozenset("*?[")
# What a store says of a refusal in Arrow's message, whose rest may hold anything.
_STORE_ERROR = re.compile(r"AWS Error [A-Z_]+|HTTP status [0-9]{3}")
_MAX_GROUPS = 2


class Picture(NamedTuple):
    """Where a picture is.

    Attributes:
        path: An absolute path or an address. For bytes in a Parquet file, the path that the row names, or
            ``FILE#ROW``.
        file: The Parquet file that has its bytes, or empty.
        row: Its row in that file, from 0.
    """

    path: str
    file: str = ""
    row: int = -1


def find_pictures(inputs: Sequence[str | os.PathLike[str]], out: Path | None = None) -> list[Picture]:
    """List the pictures that `inputs` name, each once, in the order of the inputs.

    Args:
        inputs: Folders, which are searched with the folders below; picture files; patterns such as
            ``photos/**/*.jpg``; ``.txt`` files with one of these paths per line; ``.parquet`` files with a
            column ``path``, or ``bytes``, or ``image`` (of bytes, or of both); and addresses of all these,
            ``s3://bucket/folder``.
        out: A folder whose files are left out: that of the results.

    Raises:
        ImageError: An input does not exist, cannot be read, or has no pictures.
        BackendUnavailableError: A package that an input needs is not installed.
    """
    if isinstance(inputs, str | bytes | os.PathLike):
        raise ImageError(f"inputs is one {type(inputs).__name__}; expected a list of paths or addresses")
    results = None if out is None else Path(os.path.realpath(out))
    found: dict[Picture, None] = {}
    texts = [os.fspath(text) for text in inputs]
    for text in texts:
        found.update(dict.fromkeys(_expanded(text, results)))
    if not found:
        raise ImageError(f"no pictures in {', '.join(map(redact, texts)) or 'an empty list of inputs'}")
    return list(found)


def read_picture(picture: Picture) -> bytes:
    """Return the bytes of a picture's file.

    Raises:
        ImageError: It cannot be read.
        BackendUnavailableError: A package that its address needs is not installed.
    """
    if picture.file:
        content, path = _rows.read(picture)
        if content is not None:
            return content
        if path is None:
            raise ImageError(f"row {picture.row} of {redact(picture.file)} has neither bytes nor a path")
        picture = Picture(_beside(picture.file, path))
    if "://" not in picture.path:
        try:
            return Path(picture.path).read_bytes()
        except OSError as error:
            raise ImageError(f"{picture.path} cannot be read: {error.strerror or error}") from error
    system, place, _ = _open_address(picture.path)
    with _Reading(picture.path):
        return bytes(system.cat_file(place))


def _expanded(text: str, results: Path | None) -> Iterator[Picture]:
    name = text.partition("?")[0].lower()
    remote = "://" in text
    if not remote:
        text = os.path.abspath(user_path(text))  # noqa: PTH100 (Path.absolute keeps "..")
    if not remote and is_folder(text):
        paths = _without_results(map(str, find_images(Path(text), recursive=True)), results)
        if not paths:
            raise ImageError(f"the folder {text} has no image files but results of earlier runs")
    elif not remote and _PATTERN & set(text) and not is_file(text):
        matches = [
            path
            for path in sorted(glob.glob(text, recursive=True))  # noqa: PTH207
            if is_file(path)
        ]
        paths = _without_results(matches, results)
        if not paths:
            raise ImageError(f"no file matches {text}; ** stands for folders of any depth")
    elif name.endswith(".txt"):
        paths = [_beside(text, line) for raw in _text(text).splitlines() if (line := raw.strip())]
    elif name.endswith(".parquet"):
        yield from _parquet(text)
        return
    elif remote:
        paths = _below(text)
    elif is_file(text):
        paths = [text]
    else:
        raise ImageError(f"{text} does not exist; expected a file, a folder, a pattern or an address")
    yield from map(Picture, paths)


def _without_results(paths: Iterator[str] | list[str], results: Path | None) -> list[str]:
    """Leave out what earlier runs wrote: label maps beside the pictures, and a folder of results."""
    kept = [path for path in paths if not path.endswith(RESULT_SUFFIXES)]
    if results is None:
        return kept
    return [path for path in kept if not Path(os.path.realpath(path)).is_relative_to(results)]


def _beside(file: str, path: str) -> str:
    """A path that a file names: absolute, an address, or relative to the folder of the file."""
    if "://" in path or os.path.isabs(path):  # noqa: PTH117
        return path
    if "://" in file:
        return f"{file.partition('?')[0].rpartition('/')[0]}/{path}"
    return os.path.normpath(os.path.join(os.path.dirname(file), path))  # noqa: PTH118, PTH120


def _text(path: str) -> str:
    content = read_picture(Picture(path))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImageError(f"{redact(path)} is not UTF-8 text; expected one path per line") from error


# Addresses -------------------------------------------------------------------------------------------------


class _Reading:
    """Turns every error of a file system into an ImageError. Their clients raise errors of many kinds."""

    def __init__(self, address: str) -> None:
        self._name = redact(address)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise ImageError(f"{self._name} does not exist") from error
        if isinstance(error, Exception) and not isinstance(error, PixelClipError):
            code = _STORE_ERROR.search(str(error))
            reason = code[0] if code else type(error).__name__
            raise ImageError(f"{self._name} cannot be read ({reason})") from error


def _open_address(address: str) -> tuple[Any, str, str]:
    """The file system of an address, the path in it, and what stands before that path in the address."""
    scheme = address.partition("://")[0].lower()
    if scheme in _ARROW:
        base, mark, query = address.partition("?")
        server, slash, path = base.partition("://")[2].partition("/")
        place = f"{server.rpartition('@')[2]}{slash}{path}".rstrip("/")
        system = _arrow(f"{scheme}://{server}{mark}{query}")
        return system, place, base[: base.rindex(place)]
    fsspec = imported("fsspec", EXTRA)
    try:
        system, place = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise BackendUnavailableError(f"{scheme}:// addresses need another package: {error}") from error
    except ValueError as error:
        known = "s3, gs, https, memory, and those of fsspec"
        raise ImageError(f"{redact(address)}: {error}. Known addresses: {known}") from error
    start = address.rfind(place)
    return system, place, address[:start] if start >= 0 else f"{scheme}://"


@functools.lru_cache(maxsize=64)
def _arrow(address: str) -> Any:
    """Arrow's file system of a bucket. Its credentials are those of the environment, or of the address."""
    wrapper = imported("fsspec.implementations.arrow", EXTRA).ArrowFSWrapper
    files = imported("pyarrow.fs", EXTRA).FileSystem
    with _Reading(address):
        return wrapper(files.from_uri(address)[0])


def _below(address: str) -> list[str]:
    """The addresses of the pictures in a folder, of a pattern, or of one picture."""
    system, place, before = _open_address(address)
    by_arrow = before.partition("://")[0] in _ARROW
    after = "?" + address.partition("?")[2] if by_arrow and "?" in address else ""
    suffixes = image_suffixes()
    with _Reading(address):
        if _PATTERN & set(place.partition("?")[0]) and not place.startswith("http"):
            names = [name for name in system.glob(place) if system.isfile(name)]
        elif Path(place).suffix.lower() in suffixes or not _is_folder(system, place, by_arrow):
            return [address]
        else:
            names = [name for name in system.find(place) if Path(name).suffix.lower() in suffixes]
        if by_arrow and not names:
            system.info(place.partition("/")[0])  # `glob` takes a refusal, or no such bucket, for no match.
    names = [name for name in sorted(names) if not name.endswith(RESULT_SUFFIXES)]
    if not names:
        raise ImageError(f"{redact(address)} has no pictures; expected {', '.join(sorted(suffixes))}")
    return [f"{before}{name}{after}" for name in names]


def _is_folder(system: Any, place: str, by_arrow: bool) -> bool:
    """As ``isdir``, which takes a refusal for a file."""
    return bool(system.info(place)["type"] == "directory" if by_arrow else system.isdir(place))


# Parquet ---------------------------------------------------------------------------------------------------


def _parquet(path: str) -> Iterator[Picture]:
    """The pictures of a Parquet file, by its column of paths, or by its rows."""
    with _Reading(path), _open_parquet(path) as file:
        columns = _columns(file, path)
        names: list[str | None] = [None] * file.metadata.num_rows
        if columns.path:
            names = _values(file.read(columns=[columns.path]), columns.path)
    for row, name in enumerate(names):
        if columns.bytes:
            yield Picture(name or f"{path}#{row}", path, row)
        elif name:
            yield Picture(_beside(path, name))
        else:
            raise ImageError(f"row {row} of {redact(path)} has no path")


class _Columns(NamedTuple):
    path: str | None
    bytes: str | None


def _columns(file: Any, path: str) -> _Columns:
    """The columns with paths and with bytes; ``image.path`` stands for a part of a column."""
    types = imported("pyarrow.types", EXTRA)
    found: dict[str, str] = {}
    flat = {field.name: field.type for field in file.schema_arrow}
    image = flat.get("image")
    if image is not None and types.is_struct(image):
        flat |= {f"image.{image.field(i).name}": image.field(i).type for i in range(image.num_fields)}
    for name, kind in flat.items():
        is_bytes = types.is_binary(kind) or types.is_large_binary(kind)
        is_text = types.is_string(kind) or types.is_large_string(kind)
        if is_bytes and name in ("bytes", "image", "image.bytes"):
            found.setdefault("bytes", name)
        elif is_text and name in ("path", "image.path"):
            found.setdefault("path", name)
    if not found:
        raise ImageError(
            f"{redact(path)} has the columns {', '.join(file.schema_arrow.names)}; expected path (text), "
            "bytes (binary), or image (binary, or of bytes and path)"
        )
    return _Columns(found.get("path"), found.get("bytes"))


def _values(table: Any, column: str) -> list[Any]:
    top, _, part = column.partition(".")
    values = table.column(top).to_pylist()
    return [value and value.get(part) for value in values] if part else values


def _open_parquet(path: str) -> Any:
    parquet = imported("pyarrow.parquet", EXTRA)
    if "://" not in path:
        return parquet.ParquetFile(path)
    system, place, _ = _open_address(path)
    return parquet.ParquetFile(system.open(place, "rb"))


class _Rows:
    """Reads rows of Parquet files. Keeps the last row groups: neighbours are read one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[str, int], tuple[list[Any], list[Any]]] = OrderedDict()
        self._starts: dict[str, list[int]] = {}

    def read(self, picture: Picture) -> tuple[bytes | None, str | None]:
        """Bytes and path of a row."""
        with self._lock, _Reading(picture.file):
            starts = self._starts.get(picture.file) or self._layout(picture.file)
            group = next(i for i in range(len(starts)) if picture.row < starts[i + 1])
            key = picture.file, group
            if key not in self._groups:
                while len(self._groups) >= _MAX_GROUPS:
                    self._groups.popitem(last=False)
                self._groups[key] = self._load(picture.file, group)
            contents, paths = self._groups[key]
            return contents[picture.row - starts[group]], paths[picture.row - starts[group]]

    def _layout(self, path: str) -> list[int]:
        """The first row of each row group, and the number of rows."""
        with _open_parquet(path) as file:
            meta = file.metadata
            starts = [0]
            for i in range(meta.num_row_groups):
                starts.append(starts[-1] + meta.row_group(i).num_rows)
        self._starts[path] = starts
        return starts

    def _load(self, path: str, group: int) -> tuple[list[Any], list[Any]]:
        with _open_parquet(path) as file:
            columns = _columns(file, path)
            table = file.read_row_group(group, columns=[name for name in columns if name])
        contents = _values(table, columns.bytes) if columns.bytes else [None] * len(table)
        return contents, _values(table, columns.path) if columns.path else [None] * len(table)


_rows = _Rows()
