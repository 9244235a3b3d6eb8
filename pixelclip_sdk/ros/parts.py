"""Writes a rosbag2 in parts, so that a run that was killed can go on.

While it is written, the bag OUT is the folder ``OUT.partial``. Every part is a file of the bag,
``OUT_0.mcap``, ``OUT_1.mcap``, …, as `ros2 bag record` splits a recording. It is written elsewhere, flushed
to the disk and renamed; then ``progress.json`` is replaced, which says what is done. What is not in it is
written again. At the end the folder gets its name in one step.
"""

import contextlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pixelclip_sdk.errors import OutputError
from pixelclip_sdk.ros.typestore import EXTRA, typestore
from pixelclip_sdk.support.files import atomic_write, fsync_file, fsync_folder
from pixelclip_sdk.support.json_files import read_json
from pixelclip_sdk.support.packages import imported

__all__ = ["PartsWriter"]

_PROGRESS = "progress.json"
_METADATA = "metadata.yaml"
_INFORMATION = "rosbag2_bagfile_information"
_VERSION = 8  # Of rosbag2's metadata; ROS 2 Humble reads it, but not 9.


class PartsWriter:
    """Writes the bag `out`, or goes on writing it.

    Args:
        out: The folder of the bag, which must not exist.
        topics: Topic → type of its messages, and whether they are kept for those who subscribe later.
        run: What the bag is made from and how. A run with another one cannot go on with it.

    Attributes:
        done: Facts that were given to the last `commit`; empty for a new bag.

    Raises:
        OutputError: The folder exists, or what is there is of another run, or cannot be written.
        BackendUnavailableError: The package rosbags is not installed.
    """

    def __init__(self, out: Path, topics: Mapping[str, tuple[str, bool]], run: Mapping[str, Any]) -> None:
        self._out, self._topics = out, topics
        self._run = json.loads(json.dumps(run))  # As it is read again.
        self._folder = out.with_name(f"{out.name}.partial")
        self._rosbag2 = imported("rosbags.rosbag2", EXTRA)
        self._interfaces = imported("rosbags.interfaces", EXTRA)
        self._parts: list[dict[str, Any]] = []
        self.done: dict[str, int] = {}
        self._writer: Any = None
        self._connections: dict[str, Any] = {}
        if out.exists():
            raise OutputError(f"{out} exists; name another folder, or remove it")
        if self._folder.exists():
            self._resume()
        else:
            self._make_folder()

    @property
    def counts(self) -> dict[str, int]:
        """Topic → number of its messages in finished parts."""
        counts = dict.fromkeys(self._topics, 0)
        for part in self._parts:
            for topic in part["topics_with_message_count"]:
                counts[topic["topic_metadata"]["name"]] += topic["message_count"]
        return counts

    def write(self, topic: str, time_ns: int, message: Any) -> None:
        """Write a message. It is lost in a kill until `commit`."""
        with _os_errors(self._out):
            if self._writer is None:
                self._open_part()
            raw = typestore().serialize_cdr(message, self._topics[topic][0])
            self._writer.write(self._connections[topic], time_ns, raw)

    def commit(self, done: Mapping[str, int]) -> None:
        """Make what was written so far durable, together with facts from which a later run goes on."""
        with _os_errors(self._out):
            if self._writer is not None:
                self._close_part()
            self.done = dict(done)
            self._store_progress()

    def finish(self) -> None:
        """Give the bag its name, after the last `commit`."""
        with _os_errors(self._out):
            with atomic_write(self._folder / _METADATA) as file:
                file.write_text(_yaml({_INFORMATION: self._information()}), encoding="utf-8")
            self._folder.rename(self._out)
            fsync_folder(self._out.parent)
            (self._out / _PROGRESS).unlink()

    def close(self) -> None:
        """Forget what was written since the last `commit`. Does nothing after `finish`."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
            shutil.rmtree(self._folder / self._part_name, ignore_errors=True)

    def _resume(self) -> None:
        try:
            progress = read_json(self._folder / _PROGRESS)
            run, self._parts, self.done = progress["run"], progress["parts"], progress["done"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{self._folder} is not of an unfinished run: {error}. Remove it, or name another folder"
            ) from error
        if others := [key for key in {**run, **self._run} if run.get(key) != self._run.get(key)]:
            raise OutputError(
                f"{self._folder} is of a run with other {', '.join(others)}. Repeat the command of that run, "
                "remove the folder, or name another one"
            )
        shutil.rmtree(self._folder / self._part_name, ignore_errors=True)

    def _make_folder(self) -> None:
        # Its first file is there when it gets its name.
        fresh = self._folder.with_name(f".{self._folder.name}")
        with _os_errors(self._out):
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            named, self._folder = self._folder, fresh
            self._store_progress()
            self._folder = fresh.rename(named)
            fsync_folder(self._folder.parent)

    def _store_progress(self) -> None:
        progress = {"run": self._run, "done": self.done, "parts": self._parts}
        with atomic_write(self._folder / _PROGRESS) as file:
            file.write_text(json.dumps(progress, indent=1), encoding="utf-8")

    @property
    def _part_name(self) -> str:
        return f"{self._out.name}_{len(self._parts)}"

    def _open_part(self) -> None:
        rosbag2 = self._rosbag2
        self._writer = rosbag2.Writer(
            self._folder / self._part_name, version=_VERSION, storage_plugin=rosbag2.StoragePlugin.MCAP
        )
        # Compressed chunks of mcap, which every reader of mcap knows.
        self._writer.set_compression(rosbag2.CompressionMode.STORAGE, rosbag2.CompressionFormat.ZSTD)
        self._writer.open()
        self._connections = {
            topic: self._writer.add_connection(
                topic, kind, typestore=typestore(), offered_qos_profiles=[self._qos(kept)]
            )
            for topic, (kind, kept) in self._topics.items()
        }

    def _close_part(self) -> None:
        name = self._part_name
        self._writer.close()
        self._writer = None
        folder = self._folder / name
        information = _read_yaml(folder / _METADATA)[_INFORMATION]
        file = folder / f"{name}.mcap"
        fsync_file(file)
        file.replace(self._folder / file.name)
        shutil.rmtree(folder)
        fsync_folder(self._folder)
        self._parts.append(information)

    def _information(self) -> dict[str, Any]:
        """The metadata of all parts together, from what rosbags wrote for each."""
        starts = [part["starting_time"]["nanoseconds_since_epoch"] for part in self._parts]
        ends = [
            start + part["duration"]["nanoseconds"] for start, part in zip(starts, self._parts, strict=True)
        ]
        counts = self.counts
        return {
            **self._parts[-1],
            "relative_file_paths": [name for part in self._parts for name in part["relative_file_paths"]],
            "files": [file for part in self._parts for file in part["files"]],
            "starting_time": {"nanoseconds_since_epoch": min(starts)},
            "duration": {"nanoseconds": max(ends) - min(starts)},
            "message_count": sum(counts.values()),
            "topics_with_message_count": [
                {**topic, "message_count": counts[topic["topic_metadata"]["name"]]}
                for topic in self._parts[-1]["topics_with_message_count"]
            ],
        }

    def _qos(self, kept: bool) -> Any:
        """Reliable, as the node publishes; `kept` for those who subscribe later."""
        names, unspecified = self._interfaces, self._interfaces.QosTime(0, 0)
        durability = names.QosDurability
        return names.Qos(
            history=names.QosHistory.KEEP_LAST,
            depth=1 if kept else 5,
            reliability=names.QosReliability.RELIABLE,
            durability=durability.TRANSIENT_LOCAL if kept else durability.VOLATILE,
            deadline=unspecified,
            lifespan=unspecified,
            liveliness=names.QosLiveliness.AUTOMATIC,
            liveliness_lease_duration=unspecified,
            avoid_ros_namespace_conventions=False,
        )


@contextlib.contextmanager
def _os_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {out}: {error.strerror or error}. "
            "Choose a folder that can be written and a disk with free space."
        ) from error


def _yaml(value: Any) -> str:
    writer = imported("ruamel.yaml", EXTRA).YAML(typ="safe")
    writer.default_flow_style = False
    text = io.StringIO()
    writer.dump(value, text)
    return text.getvalue()


def _read_yaml(file: Path) -> Any:
    return imported("ruamel.yaml", EXTRA).YAML(typ="safe").load(file.read_text(encoding="utf-8"))
