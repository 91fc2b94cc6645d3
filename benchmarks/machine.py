"""Describe the machine and the versions of a measurement."""

import contextlib
import os
import platform
import time
from importlib import metadata
from pathlib import Path

from emsuite.common.provenance import git_commit

_PACKAGES = ("torch", "numpy", "numba", "scipy", "zarr", "waterz", "daisy", "edt")


def machine(gpu: bool) -> str:
    """Return a list in Markdown: processor, memory, GPU, load, date, commit, versions."""
    cores = len(os.sched_getaffinity(0))
    lines = [
        f"processor: {_processor()}, {cores} of {os.cpu_count()} cores, {_memory()} of memory",
        f"GPU: {_gpu() if gpu else 'none was used'}",
        f"load before: {os.getloadavg()[0]:.2f} (a busy machine measures nothing)",
        f"date: {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}",
        f"commit: {git_commit() or 'unknown'}",
        f"versions: Python {platform.python_version()}, {_versions()}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none"
    about = torch.cuda.get_device_properties(0)
    return f"{about.name}, {about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def _versions() -> str:
    versions = []
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):  # the GPU part needs only some of them
            versions.append(f"{name} {metadata.version(name)}")
    return ", ".join(versions)
