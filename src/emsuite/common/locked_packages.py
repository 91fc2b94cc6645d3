"""Whether the packages that are installed are those that requirements.lock pins.

Imports nothing but Python's own, so that it can tell what an image lacks, whatever that is.
"""

import os
import re
import sys
from importlib import metadata
from pathlib import Path

from emsuite.common.errors import BadInput

_LOCK = Path(__file__).resolve().parents[3] / "requirements.lock"
_BESIDES = "# What the workflow"
_SHOWN = 3


def pinned(lock: Path) -> dict[str, str]:
    """The version of each package that a lock file (`name==version` lines) names for the stages.

    What only the workflow and the tests need follows behind a comment that says so. Raises BadInput for no such file.
    """
    try:
        text = lock.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{lock}: {error.strerror}; expected the list of pinned packages") from None
    return dict(re.findall(r"^([\w.-]+)==([^\s;+]+)", text.partition(_BESIDES)[0], re.MULTILINE))


def differences(lock: Path) -> list[str]:
    """What is missing here or of another version, as `torch 2.12.0, expected 2.13.0`; empty if nothing is."""
    found = []
    for name, version in pinned(lock).items():
        try:
            here = (metadata.version(name) or "none").partition("+")[0]  # nothing: its description is damaged
        except metadata.PackageNotFoundError:
            here = "none"
        if here != version:
            found.append(f"{name} {here}, expected {version}")
    return found


def check_packages(lock: Path, where: str) -> None:
    """Raise BadInput, naming `where`, unless all that `lock` pins is installed here at these versions."""
    if found := differences(lock):
        more = f"; {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise BadInput(
            f"{where}: its packages are not those of {lock.name}: {'; '.join(found[:_SHOWN])}{more}. "
            "Build it again with containers/build, or fetch the one that belongs to this version"
        )


def check_image_here(lock: Path = _LOCK) -> None:
    """Raise BadInput unless the image that this runs in has what `lock` (default: this suite's) pins.

    In an image for CUDA, what containers/cuda.lock beside it pins as well.
    """
    image = image_here() or sys.prefix
    check_packages(lock, image)
    if os.environ.get("EMSUITE_KIND") == "cuda":
        check_packages(lock.parent / "containers/cuda.lock", image)


def image_here() -> str | None:
    """The image that this runs in: its path, or its name alone where it was unpacked to run it; None outside of any."""
    for program in ("APPTAINER", "SINGULARITY"):
        if path := os.environ.get(f"{program}_CONTAINER"):
            name = os.environ.get(f"{program}_NAME") or Path(path).name
            return path if Path(path).name == name else name
    return None
