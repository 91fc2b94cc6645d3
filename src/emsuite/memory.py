"""How much memory this process may still take."""

import re
from pathlib import Path

_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Of the container or of the cluster's job: limit and use, in either version of control groups."""


def free_memory() -> int:
    """Bytes that are free on this machine, and within the limit of the container or job."""
    known = re.search(r"^MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    free = [int(known[1]) * 1024] if known else []
    for limit, used in _LIMITS:
        if _read(limit).strip().isdigit():
            free.append(int(_read(limit)) - int(_read(used) or 0))
    return max(0, min(free, default=2**63))


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
