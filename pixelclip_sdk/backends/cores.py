"""The number of CPU threads that can run at the same time."""

import math
import os
import platform
from pathlib import Path

from pixelclip_sdk.errors import BackendError

_MAX_THREADS = 1024
_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_CPUS = Path("/sys/devices/system/cpu")


def default_threads() -> int:
    """Return the number of cores that a matrix product can use: the smallest of three numbers.

    * The cores that the process may run on (its affinity).
    * The CPU quota of its control groups (version 1 or 2, as in containers), rounded up. The kernel stops
      threads that exceed it for the rest of a period.
    * The physical cores: two hardware threads of one core share its arithmetic units.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    usable = os.sched_getaffinity(0)
    quotas = [math.ceil(quota) for quota in _quotas()]
    return max(min(len(usable), _physical(usable), *quotas), 1)


def checked_threads(threads: int | None) -> int:
    """Return the number of threads of a call: `threads`, or `default_threads` for None.

    Raises BackendError for another value than a number from 1 to 1024.
    """
    if threads is None:
        return default_threads()
    if not (isinstance(threads, int) and 1 <= threads <= _MAX_THREADS):
        raise BackendError(f"threads is {threads!r}; expected 1 to {_MAX_THREADS}, or None for all cores")
    return threads


def processor() -> str:
    """Return a text that differs between kinds of processors: name, family, model and features."""
    facts = [platform.machine(), platform.processor()]
    for line in _lines(Path("/proc/cpuinfo")):
        if not line.strip():
            break  # The others are of the same kind.
        key, _, value = line.partition(":")
        if key.strip() in ("vendor_id", "cpu family", "model", "model name", "flags", "Features"):
            facts.append(value.strip())
    return " ".join(facts)


def _quotas() -> list[float]:
    """Return the CPU quotas of this process's control groups, in cores."""
    paths = {"": _CGROUP, "cpu": _CGROUP / "cpu"}
    found = []
    for line in _lines(_OWN_CGROUP):
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        kind = "cpu" if "cpu" in controllers.split(",") else controllers
        if kind not in paths:
            continue
        root = paths[kind]
        own = root / group.lstrip("/")
        # In a container the root is often its own group, while /proc has the path of the host.
        folders = [own, *own.parents] if ".." not in own.parts else [root]
        for folder in [folder for folder in folders if folder.is_relative_to(root)]:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if kind else ("cpu.max",)
            words = [word for name in names for word in " ".join(_lines(folder / name)).split()]
            # No limit is written "max" or -1.
            if len(words) == 2 and all(word.isdecimal() and int(word) for word in words):
                found.append(int(words[0]) / int(words[1]))
    return found


def _physical(usable: set[int]) -> int:
    """Return the number of physical cores among these, or of all if Linux does not tell."""
    siblings = [
        " ".join(_lines(_CPUS / f"cpu{core}" / "topology" / "thread_siblings_list")) for core in usable
    ]
    return len(set(siblings)) if all(siblings) else len(usable)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
