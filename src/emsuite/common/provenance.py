"""Where an output comes from: settings, seed, code, packages, inputs, machine and what it cost."""

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
_STARTED = time.time()


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
    """Return what one run used and cost, ready for JSON; call it at the end of the run.

    `settings` is the resolved configuration; `inputs` names files or folders, each recorded with its `fingerprint`:
    for volumes that of `emsuite.io.volume`. Durations are seconds, memory is bytes.
    """
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
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_STARTED)),
        "seconds": round(time.time() - _STARTED, 3),
        "peak_memory": peak_memory(),
    }


@functools.cache
def git_commit() -> str | None:
    """The commit of the checkout this library lies in, with `+changes` if the work tree differs; None outside one.

    An image has no git: there the library's own note of it counts, or for a checkout what the workflow says.
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
    """Versions of Python and of the packages that shape results."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def container() -> dict[str, str] | None:
    """The image this process runs in, with its digest; None outside a container.

    From inside, an image can be read if it lies in a folder that is visible there; else the workflow tells its digest.
    """
    image = image_here()
    if image is None:
        return None
    found = image_digest(Path(image)) if Path(image).is_file() else os.environ.get("EMSUITE_IMAGE_DIGEST", "unknown")
    return {"image": Path(image).name, "digest": found}


def machine() -> dict[str, Any]:
    """Host name, processor count and, where torch sees one, the GPU's name."""
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    return {"host": socket.gethostname(), "cpus": len(os.sched_getaffinity(0)), "gpu": gpu}


def peak_memory() -> dict[str, int]:
    """Peak resident memory of this process and of its largest child, and of the GPU, in bytes."""
    own, children = (
        resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    torch = sys.modules.get("torch")
    gpu = torch.cuda.max_memory_allocated() if torch is not None and torch.cuda.is_available() else 0
    return {"process": own, "largest_child": children, "gpu": gpu}
