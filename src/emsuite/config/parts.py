"""Parts of volumes, as configurations and command lines name them: a volume, or a region of it.

    {volume: cube.zarr, roi: "0:240,:,:"}
    {volume: cube.zarr, roi: [[0, 240], null, null]}
    cube.zarr@0:240,:,:

The last `@` counts, and only in front of a region: the paths of volumes may hold `@`, `:`, `,` and `=`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, model_validator

from emsuite.common.settings import EXPECTED_REGION, RANGE, Region, Settings, is_region

_LIKE_A_REGION = re.compile(r"[-+\d.:,\s]*")
_THREE_RANGES = re.compile(r"[^,/]*:[^,/]*(,[^,/]*:[^,/]*){2}")


def _whole_name(path: Path) -> Path:
    if not str(path).strip() or any(not character.isprintable() for character in str(path)):
        raise ValueError(f"expected a path without line breaks and control characters, not {str(path)!r}")
    return path


VolumePath = Annotated[Path, AfterValidator(_whole_name)]


class VolumePart(Settings):
    """A volume to train or to score on, or the region `roi` of it. A text stands for one as well."""

    volume: VolumePath
    roi: Region | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, given: Any) -> Any:
        if not isinstance(given, str | Path):
            return given
        volume, roi = split_part(str(given))
        return {"volume": volume, "roi": roi}

    @property
    def name(self) -> str:
        """A name for folders: that of the volume, with the region if there is one, as `trvol-250-2_z1040-1280`."""
        ranges = zip("zyx", (self.roi or ":,:,:").replace(" ", "").split(","), strict=False)
        return "_".join([self.volume.stem, *(axis + r.replace(":", "-") for axis, r in ranges if r != ":")])

    @property
    def argument(self) -> str:
        """The part as `VOLUME.zarr[@ROI]`, for the option `--data` of training scripts."""
        if self.roi:
            return f"{self.volume}@{self.roi}"
        ambiguous = split_part(str(self.volume))[1] is not None
        return f"{self.volume}@:,:,:" if ambiguous else str(self.volume)


def split_part(text: str) -> tuple[str, str | None]:
    """Return the volume and the region of a text such as `VOLUME.zarr@z0:z1,y0:y1,x0:x1`; None: the whole volume.

    Raises:
        ValueError: a region is meant, by its numbers, colons and commas, but it is none.
    """
    volume, at, roi = text.rpartition("@")
    is_meant = _LIKE_A_REGION.fullmatch(roi) or _THREE_RANGES.fullmatch(roi)
    if not at or not volume or not is_meant:
        return text, None
    if is_region(roi):
        return volume, roi
    if Path(text).exists():
        return text, None
    raise ValueError(f"{roi!r} behind the last @ is no region, {EXPECTED_REGION}")


def read_parts(given: Any) -> Any:
    """Return a list of parts as a yaml parser left it, with regions joined again that it has cut.

    Without quotes, yaml cuts `[cube.zarr@0:240,0:80,:]` at the commas, and takes a colon at the end for a mapping's. A
    single part needs no brackets. What is no list of parts is returned as it is.

    Raises:
        ValueError: yaml has turned a range into a number.
    """
    if isinstance(given, str) and given.startswith("[") and given.endswith("]"):
        given = [part.strip() for part in given[1:-1].split(",")]  # no yaml, as a colon stands alone
    if given is None or not isinstance(given, list | tuple):
        given = [given] if isinstance(given, str | Mapping) else given
    if not isinstance(given, list | tuple):
        return given
    parts: list[Any] = []
    for piece in map(uncut, given):
        before = parts[-1].rpartition("@")[2] if parts and isinstance(parts[-1], str) and "@" in parts[-1] else ""
        is_open = before and len(before.split(",")) < 3 and all(map(RANGE.fullmatch, before.split(",")))
        if is_open and isinstance(piece, int):
            raise ValueError(f"yaml reads a range behind {parts[-1]!r} as the number {piece}: put the part in quotes")
        if is_open and isinstance(piece, str) and all(map(RANGE.fullmatch, piece.split(","))):
            parts[-1] += f",{piece}"
        else:
            parts.append(piece)
    return parts


def uncut(piece: Any) -> Any:
    """Return the text `cube.zarr@0:240,:,:` for what yaml makes of it, `{"cube.zarr@0:240,:,": None}`."""
    if isinstance(piece, Mapping) and len(piece) == 1:
        key, value = next(iter(piece.items()))
        if value in (None, "") and key != "volume":
            return f"{key}:"
    return piece


Parts = Annotated[tuple[VolumePart, ...], BeforeValidator(read_parts)]
"""A list of parts, or a single one."""
