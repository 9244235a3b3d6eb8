"""How many threads can work at the same time."""

import math
import os
from pathlib import Path

__all__ = ["default_threads"]

_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_CPUS = Path("/sys/devices/system/cpu")


def default_threads() -> int:
    """Cores that a matrix product can use: the least of what the process may run on and what it is given.

    * The cores that it may run on (its affinity).
    * In a container its quota of processor time, rounded up: beyond it the kernel stops all threads for the
      rest of a period. Of the process's own control group and those above it, version 1 or 2.
    * Of two threads of one physical core one: they share its arithmetic units. Linux says which they are.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    usable = os.sched_getaffinity(0)
    quotas = [math.ceil(quota) for quota in _quotas()]
    return max(min(len(usable), _physical(usable), *quotas), 1)


def _quotas() -> list[float]:
    """Processor time a second that control groups give this process, in cores; none where none limits it."""
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
        # A container often sees its own group as the root while /proc names it from the host.
        folders = [own, *own.parents] if ".." not in own.parts else [root]
        for folder in [folder for folder in folders if folder.is_relative_to(root)]:
            quota = _quota_v1(folder) if kind else _quota_v2(folder)
            if quota is not None:
                found.append(quota)
    return found


def _quota_v2(folder: Path) -> float | None:
    words = " ".join(_lines(folder / "cpu.max")).split()
    return _ratio(*words) if len(words) == 2 else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = (" ".join(_lines(folder / f"cpu.cfs_{part}_us")) for part in ("quota", "period"))
    return _ratio(quota, period)


def _ratio(quota: str, period: str) -> float | None:
    """None for no limit, which is written "max" or -1."""
    if not (quota.isdecimal() and period.isdecimal() and int(quota) and int(period)):
        return None
    return int(quota) / int(period)


def _physical(usable: set[int]) -> int:
    """Physical cores among these; as many as there are where Linux does not say."""
    siblings = [
        " ".join(_lines(_CPUS / f"cpu{core}" / "topology" / "thread_siblings_list")) for core in usable
    ]
    return len(set(siblings)) if all(siblings) else len(usable)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
