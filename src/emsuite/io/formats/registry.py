"""The formats by suffix or scheme. A new one is a module beside this one and its line in `FORMATS`."""

import re
from pathlib import Path

from emsuite.common.errors import BadInput
from emsuite.io.formats import hdf5, zarr
from emsuite.io.formats.base import Format

FORMATS: dict[str, Format] = {
    ".zarr": zarr,
    ".h5": hdf5,
    ".hdf": hdf5,
    ".hdf5": hdf5,
}
"""A suffix such as `.zarr` ends the name of the container in a path; a scheme such as `precomputed://` begins a URL."""


def find_format(path: str | Path) -> tuple[Format, str, str]:
    """Return the format, the container and the name of the array inside, for the path or URL of an array.

    The innermost container counts. All of a URL is the container. A Path that holds a URL, and so has lost one of two
    slashes, is understood as well. Raise BadInput if no part of the path has a known suffix.
    """
    if url := _as_url(str(path)):
        return url
    for container in (Path(path), *Path(path).parents):
        if container.suffix in FORMATS:
            name = Path(path).relative_to(container).as_posix()
            return FORMATS[container.suffix], str(container), "" if name == "." else name
    raise BadInput(f"{path}: not in a .zarr or .hdf container; expected a path as VOLUME.zarr/volumes/raw")


def _as_url(text: str) -> tuple[Format, str, str] | None:
    url = re.sub(r"\b([a-z][a-z0-9+]+):/+", r"\1://", text)
    for scheme, stored_as in FORMATS.items():
        if scheme.endswith("://") and url.startswith(scheme):
            return stored_as, url, ""
    return None
