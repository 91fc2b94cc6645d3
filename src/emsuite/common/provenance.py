"""The record of how an output was made: settings, seed, code, packages, inputs, machine, time and memory.

A record may be published, except for its part `private`, which tells of the user and the machine: the host's name, and
the folder, the command, the inputs and the settings with their absolute paths. Elsewhere, paths count from the root of
the project, or are the bare names of files. No part holds secrets.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
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
from emsuite.common.errors import without_secrets
from emsuite.common.files import file_of, files_below, is_there, sha256
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
_REPRODUCIBLE = (
    "settings", "seed", "inputs", "git_commit", "packages", "container", "frozen", "start_from", "validation",
)  # fmt: skip
_PROJECT = Path(__file__).resolve().parents[3]
_CONTAINER = re.compile(r"\.(zarr|n5|h5|hdf5?)$")
_WHOLE_PATH = re.compile(r"(\s*(?:[\w.-]+\s*=\s*)?)(?:file://)?((?:/|\.\./).*?)((?:@[^/@]*)?\s*)", re.DOTALL)
_PATH_WITHIN = re.compile(r"(?<![\w.~:/*-])(?:file://)?/[^\s'\"@]+")

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
    if (file := file_of(path)) is not None:
        return "sha256:" + sha256(file)
    if not path.exists():
        return "missing"
    digest = hashlib.sha256()
    for file in files_below(path):
        digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
        if file.name in read_whole:
            digest.update(file.read_bytes())
    return "listing:" + digest.hexdigest()


def checksums(file: Path, further: Collection[Path]) -> str:
    """Return `checksum` of a file; a hash of all if its voxels lie in further files too."""
    if not further:
        return checksum(file)
    told = [checksum(file), *(f"{other.name} {checksum(other)}" for other in further)]
    return "sha256:" + hashlib.sha256("\n".join(told).encode("utf-8", "surrogateescape")).hexdigest()


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
        in bytes. What must not be published is in `private`.
    """
    seconds = process_seconds()
    command = without_secrets([Path(sys.argv[0]).name, *sys.argv[1:]])
    paths = {name: Path(path) for name, path in (inputs or {}).items()}
    recorded = as_recorded(settings)
    public = without_paths(recorded)
    return ordered() | {
        "command": without_paths(command),
        "settings": public,
        "seed": seed,
        "inputs": {
            name: {"path": public_path(without_secrets(str(path))), "checksum": fingerprint(path)}
            for name, path in paths.items()
        },
        "git_commit": git_commit(),
        "packages": package_versions(),
        "container": container(),
        "machine": machine(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds)),
        "seconds": round(seconds, 3),
        "peak_memory": peak_memory(),
        "private": {
            "host": socket.gethostname(),
            "folder": os.getcwd(),
            "command": command,
            "inputs": {name: without_secrets(os.path.abspath(path)) for name, path in paths.items()},
            "settings": {key: value for key, value in recorded.items() if public[key] != value},
        },
    }


def ordered() -> dict[str, str]:
    """Return the order that the workflow runs this step by, see `emsuite.workflow.orders`; nothing by hand."""
    order = os.environ.get("EMSUITE_ORDER")
    return {"order": order} if order else {}


def as_recorded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as a record holds them, with their paths: as JSON gives them back, without secrets."""
    recorded: dict[str, Any] = without_secrets(json.loads(json.dumps(settings, default=str)))
    return recorded


def recorded_settings(record: Mapping[str, Any]) -> Any:
    """Return the settings of a record with their paths, as far as its private part is there."""
    settings, private = record.get("settings"), record.get("private")
    more = private.get("settings") if isinstance(private, dict) else None
    return settings | more if isinstance(settings, dict) and isinstance(more, dict) else settings


def input_path(record: Mapping[str, Any], name: str) -> Path | None:
    """Return the path of the input `name` of a record, or None: the private one, or the public one if that is gone."""
    paths = [_inside(record, "private", "inputs", name), _inside(record, "inputs", name, "path")]
    candidates = [Path(path) for path in paths if path and isinstance(path, str)]
    return next((path for path in candidates if is_there(path)), candidates[0] if candidates else None)


def recorded_checksum(record: Mapping[str, Any], name: str) -> str | None:
    """Return the fingerprint that a record holds of the input `name`, or None."""
    checksum = _inside(record, "inputs", name, "checksum")
    return checksum if isinstance(checksum, str) else None


def _inside(record: Any, *keys: str) -> Any:
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def published(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may be published of a record, also of one that an earlier version wrote."""
    public = {key: without_paths(without_secrets(value)) for key, value in record.items() if key != "private"}
    if isinstance(public.get("machine"), dict):
        public["machine"].pop("host", None)
    return public


def reproducible(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the public part of a record that every run with the same settings on the same machine shares."""
    return {key: value for key, value in published(record).items() if key in _REPRODUCIBLE}


def public_path(path: str | Path) -> str:
    """Return a path counted from the project's root, or from the container that it leads into, or its last name."""
    absolute = Path(os.path.abspath(path))
    if absolute.is_relative_to(_PROJECT):
        return absolute.relative_to(_PROJECT).as_posix()
    if absolute == Path.home():
        return "~"
    parts = absolute.parts
    inside = [index for index, part in enumerate(parts) if _CONTAINER.search(part)]
    return "/".join(parts[inside[-1] if inside else -1 :])


def without_paths(value: Any) -> Any:
    """Return a text, or a structure of dictionaries and lists, with each absolute path in it as `public_path` gives it.

    A path that leads out of the current folder, as `../x`, counts as absolute.
    """
    if isinstance(value, str):
        pieces = re.split(r"([][{},;'\"])", value)
        return "".join(_without_path(piece) for piece in pieces)
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    return [without_paths(item) for item in value] if isinstance(value, list | tuple) else value


def _without_path(text: str) -> str:
    if match := _WHOLE_PATH.fullmatch(text):
        return match[1] + public_path(match[2].strip()) + match[3]
    return _PATH_WITHIN.sub(lambda match: public_path(match[0].removeprefix("file://")), text)


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
    """Return the number of usable CPU cores, and the name of the GPU if torch is loaded and sees one."""
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    return {"cpus": len(os.sched_getaffinity(0)), "gpu": gpu}


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
