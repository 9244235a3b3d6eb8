"""Memory of this process. Imports little, for processes whose memory is measured."""

from pathlib import Path


def memory_mb(field: str) -> float:
    """Returns ``VmRSS`` (resident memory) or ``VmHWM`` (its peak) in megabytes (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024 / 1e6
