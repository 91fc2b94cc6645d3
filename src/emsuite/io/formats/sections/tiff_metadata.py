"""The voxel size that a TIFF file says: ImageJ's spacing and resolution, or OME's PhysicalSize.

Positions of planes are those of a microscope's stage, and no offset, but in files that this suite has written.
"""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tifffile import TiffFile

from emsuite.common.errors import BadInput
from emsuite.io.formats.sections.tiff_writer import CREATOR

_NO_LENGTHS = {"", "pixel", "pixels", "px", "inch", "null", "reference frame"}
"""Units of files that nobody gave a scale: resolutions per inch are those of printers."""
_DIGITS = 7
"""Of a resolution that counts: programs write it as a ratio of whole numbers."""


def attributes_of(path: Path, file: TiffFile) -> dict[str, Any]:
    """Return `voxel_size`, z y x, and the `units` of its axes as far as the file says them, and `written_by`.

    A file that says no size of z says no voxel size: its sections may be any distance apart.
    """
    if file.is_ome:
        return {"written_by": "OME"} | _of_ome(path, file.ome_metadata or "")
    if file.is_imagej:
        return {"written_by": "ImageJ"} | _of_imagej(file)
    return {}


def _of_imagej(file: TiffFile) -> dict[str, Any]:
    said, tags = file.imagej_metadata or {}, file.pages.first.tags
    unit, spacing = _unit(said.get("unit")), said.get("spacing")
    pixels = [_ratio(tags, key) for key in ("YResolution", "XResolution")]
    if unit in _NO_LENGTHS or not _is_positive(spacing) or None in pixels:
        return {}
    return {"voxel_size": [_rounded(spacing), *(_rounded(1 / n) for n in pixels if n)], "units": [unit] * 3}


def _unit(text: Any) -> str:
    """Return a unit; ImageJ writes its micrometre as an escape."""
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), str(text or ""))
    return text.strip().strip('"')


def _ratio(tags: Any, key: str) -> float | None:
    value = tags[key].value if key in tags else None
    if not isinstance(value, tuple) or len(value) != 2 or not all(isinstance(n, int) and n > 0 for n in value):
        return None
    return value[0] / value[1]


def _of_ome(path: Path, text: str) -> dict[str, Any]:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities of entities fill the memory
        raise BadInput(f"{path}: its OME-XML declares entities, expected plain elements")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise BadInput(f"{path}: its OME-XML cannot be read: {error}") from None
    pixels = next((element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return {}
    sizes = [_number(pixels.get(f"PhysicalSize{axis}")) for axis in "ZYX"]
    units = [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"]
    if not all(_is_positive(size) for size in sizes) or not _NO_LENGTHS.isdisjoint(units):
        return {}
    if root.get("Creator") == CREATOR:
        return {"voxel_size": sizes, "units": units} | _offset(pixels)  # all digits
    return {"voxel_size": [_rounded(size) for size in sizes], "units": units}


def _offset(pixels: ElementTree.Element) -> dict[str, Any]:
    """Return the position of the first plane, in the units of sizes."""
    plane = next((element for element in pixels if element.tag.rpartition("}")[2] == "Plane"), None)
    begins = [_number(plane.get(f"Position{axis}")) if plane is not None else None for axis in "ZYX"]
    return {} if None in begins else {"offset": begins}


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < float("inf")


def _rounded(value: Any) -> int | float:
    number = float(f"{value:.{_DIGITS}g}")
    return int(number) if number.is_integer() else number
