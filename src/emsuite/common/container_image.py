"""Container images as files: which one a setting means, what digest it has, whether Apptainer can run it.

emsuite.sif
emsuite.sif.json    its sha256, size and time: written when it was built or fetched, else when it is first used
"""

import contextlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emsuite.common.errors import BadInput
from emsuite.common.files import sha256, write_json

_EXPECTED = "expected a file, s3://BUCKET/KEY, or a URI that Apptainer knows, as docker://..."
_DAMAGED = "build it again with containers/build, or fetch it again (and remove the .json beside one of your own)"


@dataclass(frozen=True)
class Image:
    """What `container` in config.yaml says: a `file`, which comes from `s3` if that is set, or a `uri`."""

    file: Path | None
    s3: str | None = None
    uri: str | None = None

    @property
    def place(self) -> str:
        """For Snakemake's `container:`."""
        return self.uri or str(self.file)


def parse_image(setting: str, folder: Path) -> Image:
    """Read `container` of config.yaml; what comes from S3 goes to `folder`. Raises BadInput where it means nothing."""
    scheme, found, rest = setting.partition("://")
    if not setting.strip() or " " in setting:
        raise BadInput(f"config/config.yaml: container: '{setting}'; {_EXPECTED}")
    if not found:
        return Image(Path(setting))
    if scheme != "s3":
        return Image(None, uri=setting)
    if not (name := file_name(rest)):
        raise BadInput(f"config/config.yaml: container: '{setting}' names no object; expected s3://BUCKET/KEY")
    return Image(folder / name, s3=setting)


def file_name(key: str) -> str:
    """What a copy of `key` is called: its last part, without the colons that Apptainer would take for an URI's."""
    return key.rpartition("/")[2].replace(":", "_")


def digest(image: Path) -> str:
    """SHA-256 of an image file, once computed taken from its record while size and time stay as they are.

    Raises BadInput for a file that is not (or no longer) what was recorded.
    """
    try:
        state = image.stat()
        known = recorded(image)
        if known and (known["bytes"], known["modified_ns"]) == (state.st_size, state.st_mtime_ns):
            return known["sha256"]
        if known and known["bytes"] != state.st_size:
            raise BadInput(f"{image}: {state.st_size} bytes, {known['bytes']} were recorded; {_DAMAGED}")
        found = sha256(image)
    except OSError as error:
        raise BadInput(f"{image}: {error.strerror}; expected a container image") from None
    if known and known["sha256"] != found:
        raise BadInput(f"{image}: its sha256 is {found}, {known['sha256']} was recorded; {_DAMAGED}")
    with contextlib.suppress(OSError):  # a folder of images is often not ours to write to
        record(image, found)
    return found


def record(image: Path, sha256: str, **more: str | None) -> None:
    """Write beside the image what it is, with `more` to tell."""
    state = image.stat()
    write_json(_record(image), {"sha256": sha256, "bytes": state.st_size, "modified_ns": state.st_mtime_ns} | more)


def recorded(image: Path) -> dict[str, Any]:
    """What `record` wrote; empty where there is nothing of use."""
    try:
        content = json.loads(_record(image).read_text(encoding="utf-8"))
        return content if {"sha256", "bytes", "modified_ns"} <= content.keys() else {}
    except (FileNotFoundError, ValueError, AttributeError):
        return {}


def container_program() -> str:
    """`apptainer` or `singularity`, whichever is on PATH; raises BadInput if neither is."""
    for name in ("apptainer", "singularity"):
        if shutil.which(name):
            return name
    raise BadInput("no apptainer (or singularity) on PATH, which runs steps in an image; install it, or run bare")


def check_image(image: Path, project: Path) -> str:
    """The digest of an image that Apptainer runs and that has the packages of `project`/requirements.lock.

    Raises BadInput, one line, where there is no Apptainer, no image, a damaged one or one with other packages.
    """
    program, found = container_program(), digest(image)
    command = [program, "--quiet", "exec", "--bind", str(project), "--pwd", str(project), str(image)]
    ran = subprocess.run([*command, "python3", "containers/check.py"], capture_output=True, text=True, check=False)
    if ran.returncode == 0:
        return found
    said = [line for line in ran.stderr.splitlines() if line.strip()] or [f"exit code {ran.returncode}"]
    if told := next((line for line in said if line.startswith("error: ")), None):
        raise BadInput(told.removeprefix("error: "))
    raise BadInput(f"{image}: {program} cannot run it ({said[-1].removeprefix('FATAL:').strip()}); {_DAMAGED}")


def _record(image: Path) -> Path:
    return image.with_name(image.name + ".json")
