"""How much memory this process may still take.

Memory that this process keeps between uses instead of giving it back to the system.

glibc asks the system for large blocks anew each time and returns them, and the system clears every page of them: in a
prediction of 320^3 voxels that took as long as the network itself (FIB-25 `small`: 5 of 11 s), in training a fifth of
an iteration (15,000 pages in each).
"""

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
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


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 * 2**20}
_AS_EVER = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 128 * 1024, _TOP_PAD: 128 * 1024}
"""glibc's own values, which are no longer adapted once one of them was set."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside, what is freed is kept for what is allocated next."""
    _set(_KEEP)
    try:
        yield
    finally:
        _set(_AS_EVER)
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)


def keep_memory() -> None:
    """From now on, until this process ends, what is freed is kept for what is allocated next."""
    _set(_KEEP)


def share_memory() -> None:
    """From now on the threads of this process take memory from one place, so that what one frees serves another.

    To be called before there are threads: one of its own keeps whoever has it. Each keeps to its own otherwise, and in
    a long prediction the process grows by a third before all have what they need.
    """
    _set({_ARENA_MAX: 1})


def _set(options: dict[int, int]) -> None:
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc's
        for option, value in options.items():
            library.mallopt(option, value)
