"""Check that the installed packages are those that requirements.lock pins.

This module imports only Python's standard library, so that it runs in an image that lacks any other package.
"""

import os
import re
import sys
from importlib import metadata
from pathlib import Path

from emsuite.common.errors import BadInput

_LOCK = Path(__file__).resolve().parents[3] / "requirements.lock"
_END_OF_STAGES = "# What the workflow"
"""Behind this line of a lock file follow packages that only the workflow, the tests and the checks need."""
_SHOWN = 3
"""Differences that a message names."""


def pinned(lock: Path) -> dict[str, str]:
    """Return the version of each package that the stages need, by name, from a lock file (lines `name==version`).

    Raise BadInput if the file cannot be read.
    """
    try:
        text = lock.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{lock}: {error.strerror}; expected the list of pinned packages") from None
    return dict(re.findall(r"^([\w.-]+)==([^\s;+]+)", text.partition(_END_OF_STAGES)[0], re.MULTILINE))


def differences(lock: Path) -> list[str]:
    """Return each package that is missing or has another version, as `torch 2.12.0, expected 2.13.0`."""
    different = []
    for name, version in pinned(lock).items():
        try:
            installed = (metadata.version(name) or "none").partition("+")[0]  # None if its metadata are damaged
        except metadata.PackageNotFoundError:
            installed = "none"
        if installed != version:
            different.append(f"{name} {installed}, expected {version}")
    return different


def check_packages(lock: Path, where: str) -> None:
    """Raise BadInput, with a message about `where`, unless every package of `lock` is installed at its version."""
    if different := differences(lock):
        more = f"; {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
        raise BadInput(
            f"{where}: its packages are not those of {lock.name}: {'; '.join(different[:_SHOWN])}{more}. "
            "Build it again with containers/build, or fetch the one that belongs to this version"
        )


def check_image_here(lock: Path = _LOCK) -> None:
    """Raise BadInput unless the image of this process has the packages that `lock` (default: this suite's) pins.

    An image for CUDA must also have those of containers/cuda.lock beside it.
    """
    image = image_here() or sys.prefix
    check_packages(lock, image)
    if os.environ.get("EMSUITE_KIND") == "cuda":
        check_packages(lock.parent / "containers/cuda.lock", image)


def image_here() -> str | None:
    """Return the path of the image that this process runs in; only its name if the image was unpacked to run it.

    Return None outside a container.
    """
    for program in ("APPTAINER", "SINGULARITY"):
        if path := os.environ.get(f"{program}_CONTAINER"):
            name = os.environ.get(f"{program}_NAME") or Path(path).name
            return path if Path(path).name == name else name
    return None
