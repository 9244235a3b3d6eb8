"""The folder of results: which rows are there, and how shards are written.

::

    batch.json                  what the run was made of, and whether it is complete
    results/part-00000.parquet  a row a picture, in the order of the inputs
    timings/part-00000.parquet  milliseconds of the same rows: the only numbers that differ between two runs
    labels/ab/ab12….png         with format "png": label maps, named after the content of their pictures
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pixelclip_sdk.batch.inputs import EXTRA
from pixelclip_sdk.batch.job import STAGES, Cells, Done, ShardResult, is_final
from pixelclip_sdk.errors import OutputError
from pixelclip_sdk.support.files import atomic_write, is_file
from pixelclip_sdk.support.json_files import read_json
from pixelclip_sdk.support.packages import imported

__all__ = ["ResultFolder"]

_FACTS = b"pixelclip"
_FACTS_HASH = b"pixelclip_sha256"
# Columns whose values repeat from row to row.
_REPEATED = ["names.list.element", "model", "model_sha256", "vocabulary_sha256"]

_WRITERS = 16


class ResultFolder:
    """Reads and writes the results of one run. Shards appear whole, timings before rows.

    Args:
        folder: The folder; created with the first file.
        facts: What decides the rows; written into every shard. With the format "png", label maps are files.
        facts_hash: Its SHA-256. Rows with another one count as missing.

    Raises:
        BackendUnavailableError: pyarrow is not installed.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], facts_hash: str) -> None:
        self._folder = folder
        self._as_png = facts["format"] == "png"
        self._parquet = imported("pyarrow.parquet", EXTRA)
        self._arrow = imported("pyarrow", EXTRA)
        self._meta = {
            _FACTS: json.dumps(facts, ensure_ascii=False).encode(),
            _FACTS_HASH: facts_hash.encode(),
        }
        self._schema = self._row_schema().with_metadata(self._meta)
        times = [(f"{stage}_ms", self._arrow.float64()) for stage in STAGES]
        self._timing_schema = self._arrow.schema([("path", self._arrow.string()), *times])

    def begin(self, run: Mapping[str, Any]) -> None:
        """Write batch.json; raise OutputError if the folder has the results of other inputs."""
        file = self._folder / "batch.json"
        if is_file(file):
            try:
                before = read_json(file)["inputs_sha256"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise OutputError(f"{file} cannot be read: {error}. Remove {self._folder}.") from error
            if before != run["inputs_sha256"]:
                raise OutputError(
                    f"{self._folder} has the results of other inputs, which would be replaced. Choose "
                    "another folder for the results, or remove that one."
                )
        self._write_run(run, complete=False)

    def finish(self, run: Mapping[str, Any], shards: int) -> None:
        """Remove what earlier runs left: shards beyond the last, and files that a killed run had begun."""
        for begun in ("results/.*.parquet", "timings/.*.parquet", "labels/*/.*.png"):
            for file in self._folder.glob(begun):
                file.unlink(missing_ok=True)
        for folder in ("results", "timings"):
            for file in sorted((self._folder / folder).glob("part-*.parquet")):
                number = file.stem.removeprefix("part-")
                if number.isdecimal() and int(number) >= shards:
                    file.unlink(missing_ok=True)
        self._write_run(run, complete=True)

    def known(self, number: int) -> frozenset[str]:
        """The contents whose rows a shard has, and that need not be made again."""
        file = self._file("results", number)
        table = self._read(file, ["content_sha256", "error"])
        if table is None:
            return frozenset()
        rows = zip(table["content_sha256"].to_pylist(), table["error"].to_pylist(), strict=True)
        return frozenset(
            content
            for content, error in rows
            if is_final(content, error)
            and not (self._as_png and error is None and not is_file(self._label_file(content)))
        )

    def write(self, result: ShardResult) -> None:
        """Write a shard, with the rows of the earlier run for pictures that were known.

        Nothing is written if the shard is there already.

        Raises:
            OutputError: The files cannot be written.
        """
        file = self._file("results", result.number)
        old = self._rows(file)
        rows = [self._row(done, old) for done in result.done]
        if self._as_png:
            self._write_labels(result.done)
        table = self._arrow.Table.from_pylist(rows, self._schema)
        if old and (before := self._read(file)) is not None and before.equals(table):
            return
        timings = self._timings(result)
        self._write_table(timings, self._file("timings", result.number))
        self._write_table(table, file)

    def _row(self, done: Done, old: Mapping[str, Cells]) -> Cells:
        if done.cells is None:
            if done.content not in old:
                raise OutputError(
                    f"{self._folder} changed during the run. Let one run at a time write there."
                )
            return {**old[done.content], "path": done.path}
        if not self._as_png:
            return done.cells
        cells = dict(done.cells)
        found = cells.pop("label_png") is not None
        file = self._label_file(done.content).relative_to(self._folder).as_posix()
        return {**cells, "label_file": file if found else None}

    def _write_labels(self, pictures: Sequence[Done]) -> None:
        """Write label maps. Several threads, because each waits until its file is on the disk."""

        def write(item: tuple[str, bytes]) -> None:
            with atomic_write(self._label_file(item[0])) as temporary:
                temporary.write_bytes(item[1])

        labels = {done.content: png for done in pictures if done.cells and (png := done.cells["label_png"])}
        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(write, labels.items()))

    def _rows(self, file: Path) -> dict[str, Cells]:
        table = self._read(file)
        return {} if table is None else {row["content_sha256"]: row for row in table.to_pylist()}

    def _timings(self, result: ShardResult) -> Any:
        file = self._file("timings", result.number)
        old: dict[str, Cells] = {}
        if is_file(file):
            old = {row["path"]: row for row in self._parquet.read_table(file).to_pylist()}
        rows = []
        for done in result.done:
            times = {f"{stage}_ms": milliseconds for stage, milliseconds in done.timings.items()}
            rows.append({**old.get(done.path, {}), "path": done.path, **times})
        return self._arrow.Table.from_pylist(rows, self._timing_schema)

    def _read(self, file: Path, columns: Sequence[str] | None = None) -> Any:
        """A shard of this run's words, model and settings, or None."""
        if not is_file(file):
            return None
        try:
            with self._parquet.ParquetFile(file) as reader:
                if (reader.schema_arrow.metadata or {}).get(_FACTS_HASH) != self._meta[_FACTS_HASH]:
                    return None
                return reader.read(columns=columns)
        except (OSError, ValueError):  # Damaged. Arrow's errors are among them.
            return None

    def _write_table(self, table: Any, file: Path) -> None:
        with atomic_write(file) as temporary:
            repeated = [name for name in _REPEATED if name.partition(".")[0] in table.column_names]
            self._parquet.write_table(table, temporary, compression="zstd", use_dictionary=repeated)

    def _write_run(self, run: Mapping[str, Any], *, complete: bool) -> None:
        with atomic_write(self._folder / "batch.json") as file:
            text = json.dumps({**run, "complete": complete}, indent=1, ensure_ascii=False)
            file.write_text(text + "\n", "utf-8", "backslashreplace")

    def _file(self, folder: str, number: int) -> Path:
        return self._folder / folder / f"part-{number:05}.parquet"

    def _label_file(self, content: str) -> Path:
        return self._folder / "labels" / content[:2] / f"{content}.png"

    def _row_schema(self) -> Any:
        arrow = self._arrow
        text = arrow.string()
        label = ("label_file", text) if self._as_png else ("label_png", arrow.binary())
        columns = [
            ("path", text),
            ("content_sha256", text),
            ("height", arrow.int32()),
            ("width", arrow.int32()),
            ("names", arrow.list_(text)),
            ("shares", arrow.list_(arrow.float64())),
            ("unknown_share", arrow.float64()),
            label,
            ("error", text),
            ("model", text),
            ("model_sha256", text),
            ("vocabulary_sha256", text),
        ]
        return arrow.schema(columns)
