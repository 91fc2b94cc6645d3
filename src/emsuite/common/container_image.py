"""Container images: which image a setting names, its digest, and whether Apptainer can run it.

emsuite.sif         the image
emsuite.sif.json    its record: sha256, size and time, written when the image is built, fetched or first used
"""

import contextlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput, without_secrets
from emsuite.common.files import sha256, write_json

_EXPECTED = "expected a file, s3://BUCKET/KEY, or a URI that Apptainer knows, as docker://..."
_DAMAGED = "build it again with containers/build, or fetch it again (and remove the .json beside one of your own)"


@dataclass(frozen=True)
class Image:
    """The image that `container` in config.yaml names: a `file`, fetched from `s3` if that is set, or a `uri`."""

    file: Path | None
    s3: str | None = None
    uri: str | None = None

    @property
    def location(self) -> str:
        """The value for Snakemake's `container:`."""
        return self.uri or str(self.file)


def parse_image(setting: str, folder: Path) -> Image:
    """Read `container` of config.yaml. An image from S3 goes to `folder`. Raise BadInput if it names no image."""
    scheme, separator, rest = setting.partition("://")
    if not setting.strip() or " " in setting:
        raise BadInput(f"config/config.yaml: container: '{setting}'; {_EXPECTED}")
    if not separator:
        return Image(Path(setting))
    if without_secrets(setting) != setting:  # Snakemake prints the setting, and hands it to other processes
        raise BadInput(
            f"config/config.yaml: container: '{setting}' holds a password or a token; expected a URL without, and "
            "`apptainer registry login`, or the image's file"
        )
    if scheme != "s3":
        return Image(None, uri=setting)
    if not (name := file_name(rest)):
        raise BadInput(f"config/config.yaml: container: '{setting}' names no object; expected s3://BUCKET/KEY")
    return Image(folder / name, s3=setting)


def file_name(key: str) -> str:
    """Return the file name for a copy of the S3 object `key`: its last part, colons replaced.

    Apptainer would take a name with a colon for a URI.
    """
    return key.rpartition("/")[2].replace(":", "_")


def digest(image: Path) -> str:
    """Return the SHA-256 of an image file.

    It is computed once; afterwards it comes from the image's record, as long as size and time of the file are those of
    the record. Raise BadInput for a file that differs from its record.
    """
    try:
        state = image.stat()
        earlier = recorded(image)
        if earlier and (earlier["bytes"], earlier["modified_ns"]) == (state.st_size, state.st_mtime_ns):
            return earlier["sha256"]
        if earlier and earlier["bytes"] != state.st_size:
            raise BadInput(f"{image}: {state.st_size} bytes, {earlier['bytes']} were recorded; {_DAMAGED}")
        computed = sha256(image)
    except OSError as error:
        raise BadInput(f"{image}: {error.strerror}; expected a container image") from None
    if earlier and earlier["sha256"] != computed:
        raise BadInput(f"{image}: its sha256 is {computed}, {earlier['sha256']} was recorded; {_DAMAGED}")
    with contextlib.suppress(OSError):  # a folder of images is often read-only for its users
        record(image, computed)
    return computed


def record(image: Path, sha256: str, **more: str | None) -> None:
    """Write the record of an image beside it: sha256, size and time of the file, and the items of `more`."""
    state = image.stat()
    write_json(_record_path(image), {"sha256": sha256, "bytes": state.st_size, "modified_ns": state.st_mtime_ns} | more)


def recorded(image: Path) -> dict[str, Any]:
    """Return the record of an image; an empty one if there is none that can be used."""
    content = read_json(_record_path(image))
    kinds = {"sha256": str, "bytes": int, "modified_ns": int}
    is_record = isinstance(content, dict) and all(isinstance(content.get(key), kind) for key, kind in kinds.items())
    return content if is_record else {}


def container_program() -> str:
    """Return `apptainer`, or `singularity` if only that is on PATH. Raise BadInput if neither is."""
    for name in ("apptainer", "singularity"):
        if shutil.which(name):
            return name
    raise BadInput("no apptainer (or singularity) on PATH, which runs steps in an image; install it, or run bare")


def check_image(image: Path, project: Path) -> str:
    """Return the digest of an image that Apptainer can run and that has the packages of `project`/requirements.lock.

    Raise BadInput if Apptainer or the image is missing, or if the image is damaged or has other packages.
    """
    program, sha256 = container_program(), digest(image)
    command = [program, "--quiet", "exec", "--bind", str(project), "--pwd", str(project), str(image)]
    check = subprocess.run([*command, "python3", "containers/check.py"], capture_output=True, text=True, check=False)
    if check.returncode == 0:
        return sha256
    lines = [line for line in check.stderr.splitlines() if line.strip()] or [f"exit code {check.returncode}"]
    if message := next((line for line in lines if line.startswith("error: ")), None):
        raise BadInput(message.removeprefix("error: "))
    raise BadInput(f"{image}: {program} cannot run it ({lines[-1].removeprefix('FATAL:').strip()}); {_DAMAGED}")


def _record_path(image: Path) -> Path:
    return image.with_name(image.name + ".json")
