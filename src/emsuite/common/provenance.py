"""The record of how an output was made: settings, seed, code, packages, inputs, machine, time and memory."""

import contextlib
import functools
import hashlib
import os
import platform
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from emsuite.common.container_image import digest as image_digest
from emsuite.common.files import sha256
from emsuite.common.locked_packages import image_here

_PACKAGES = (
    "emsuite",
    "torch",
    "numpy",
    "zarr",
    "daisy",
    "waterz",
    "scipy",
    "scikit-image",
    "edt",
    "numba",
    "snakemake",
)


Fingerprint = Callable[[Path], str]
"""Returns a text that changes with the file or folder at a path, as `checksum` does."""


def checksum(path: Path, read_whole: Collection[str] = ()) -> str:
    """Return a text that changes with the content of a file, or with the files in a folder.

    Args:
        path: A file, a folder, or a path that leads on inside a file, as that of an array in an HDF5 file.
        read_whole: Names of files in a folder whose content counts as well, such as the metadata of a volume.

    Returns:
        `sha256:` and the hash of a file's content; `listing:` and a hash of the names and sizes of all files in a
        folder, because a volume can be terabytes; `missing` if there is nothing.
    """
    file = next((part for part in (path, *path.parents) if part.is_file()), None)
    if file is not None:
        return "sha256:" + sha256(file)
    if not path.exists():
        return "missing"
    digest = hashlib.sha256()
    for folder, names, files in os.walk(path):
        names.sort()
        for name in sorted(files):
            file = Path(folder) / name
            digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
            if name in read_whole:
                digest.update(file.read_bytes())
    return "listing:" + digest.hexdigest()


def provenance(
    settings: Mapping[str, Any],
    inputs: Mapping[str, Path] | None = None,
    seed: int | None = None,
    fingerprint: Fingerprint = checksum,
) -> dict:
    """Return the record of one run, ready for JSON. Call this at the end of the run.

    Args:
        settings: The resolved configuration.
        inputs: Files or folders by name. Each is recorded with its fingerprint.
        seed: The seed of the run, if it has one.
        fingerprint: For volumes, that of `emsuite.io.volume`.

    Returns:
        Among others `started` (UTC) and `seconds`, both counted from the start of the process, and `peak_memory`
        in bytes.
    """
    seconds = process_seconds()
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "settings": dict(settings),
        "seed": seed,
        "inputs": {
            name: {"path": str(path), "checksum": fingerprint(Path(path))} for name, path in (inputs or {}).items()
        },
        "git_commit": git_commit(),
        "packages": package_versions(),
        "container": container(),
        "machine": machine(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds)),
        "seconds": round(seconds, 3),
        "peak_memory": peak_memory(),
    }


@functools.cache
def git_commit() -> str | None:
    """Return the commit of the checkout that holds this library; `+changes` is appended if the work tree differs.

    Inside a container there is no git. Use the COMMIT file of an installed library, or EMSUITE_GIT_COMMIT, which the
    workflow sets for a mounted checkout. Return None if there is neither, nor a checkout.
    """
    here = Path(__file__).parent
    with contextlib.suppress(OSError):
        return (here.parents[2] / "COMMIT").read_text(encoding="utf-8").strip()
    if commit := os.environ.get("EMSUITE_GIT_COMMIT"):
        return commit

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


@functools.cache
def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def container() -> dict[str, str] | None:
    """Return name and digest of the container image that this process runs in; None outside a container.

    The image file is readable from inside if its folder is mounted there. Otherwise the digest comes from
    EMSUITE_IMAGE_DIGEST, which the workflow sets.
    """
    image = image_here()
    if image is None:
        return None
    readable = Path(image).is_file()
    digest = image_digest(Path(image)) if readable else os.environ.get("EMSUITE_IMAGE_DIGEST", "unknown")
    return {"image": Path(image).name, "digest": digest}


def machine() -> dict[str, Any]:
    """Return the host name, the number of usable CPU cores, and the name of the GPU if torch is loaded and sees one."""
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    return {"host": socket.gethostname(), "cpus": len(os.sched_getaffinity(0)), "gpu": gpu}


def process_seconds() -> float:
    """Return the seconds since this process began."""
    # field 22 of the line, counted from the name in parentheses on: ticks from the machine's start to the process's
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def peak_memory() -> dict[str, int]:
    """Return the peak resident memory of this process, of its largest child, and of the GPU, in bytes."""
    own, children = (
        resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    torch = sys.modules.get("torch")
    gpu = torch.cuda.max_memory_allocated() if torch is not None and torch.cuda.is_available() else 0
    return {"process": own, "largest_child": children, "gpu": gpu}
