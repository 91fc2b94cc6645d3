"""How much memory this process may still allocate: on the machine, and within the limit of a container or job."""

import re
from pathlib import Path

_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Files that hold the limit and the use of a container or cluster job, in version 2 and 1 of Linux control groups."""


def free_memory() -> int:
    """Return the bytes that are free on this machine, or within the limit of the container or job if that is less."""
    available = re.search(r"^MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    free = [int(available[1]) * 1024] if available else []
    for limit, used in _LIMITS:
        if _read(limit).strip().isdigit():
            free.append(int(_read(limit)) - int(_read(used) or 0))
    return max(0, min(free, default=2**63))


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
