"""Memory of a process. Imports little, for processes whose memory is measured."""

from pathlib import Path


def memory_mb(field: str, process: int | str = "self") -> float:
    """Returns ``VmRSS`` (resident memory), ``VmHWM`` (its peak) or ``RssAnon`` in megabytes (Linux).

    It is 0 if the process has ended.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
        return int(status.partition(f"{field}:")[2].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        return 0.0
