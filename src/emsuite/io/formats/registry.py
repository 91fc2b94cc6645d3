"""The formats by suffix or scheme. A new one is a module beside this one and its line in `FORMATS`."""

import os
import re
import stat
from pathlib import Path

from emsuite.common.errors import BadInput
from emsuite.common.state.origins import look_behind
from emsuite.io.formats import dvid, hdf5, zarr
from emsuite.io.formats.base import Format
from emsuite.io.formats.sections import image_folder, tiff
from emsuite.io.formats.tensors import n5, precomputed, remote, servers

FORMATS: dict[str, Format] = {
    ".zarr": zarr,
    ".n5": n5,
    ".precomputed": precomputed,
    ".h5": hdf5,
    ".hdf": hdf5,
    ".hdf5": hdf5,
    ".tif": tiff,
    ".tiff": tiff,
    "dvid://": dvid,
    precomputed.SCHEME: precomputed,
    **dict.fromkeys(servers.SCHEMES, remote),
}
"""A suffix such as `.zarr` ends the name of the container in a path; a scheme such as `precomputed://` begins a URL."""


def find_format(path: str | Path) -> tuple[Format, str, str]:
    """Return the format, the container and the name of the array inside, for the path or URL of an array.

    The innermost container counts. A container is what it holds: an HDF5 or TIFF file, a folder with documents of zarr,
    or one of images; its suffix decides if it does not exist, or holds nothing yet. All of a URL is the container. A
    Path that holds a URL, and so has lost one of two slashes, is understood as well.

    Raises:
        BadInput: No part of the path is a container, or the container is a pipe, a device or a circle of links.
    """
    if url := as_url(str(path)):
        return url
    path = Path(path)
    for container in (path, *path.parents):
        if found := _by_content(container) or FORMATS.get(container.suffix):
            return found, str(container), _name(path, container)
    # a folder without an ending: all of zarr's folders above the array belong to one container
    if groups := [folder for folder in (path, *path.parents) if zarr.is_zarr(folder)]:
        return zarr, str(groups[-1]), _name(path, groups[-1])
    if groups := [folder for folder in (path, *path.parents) if n5.is_n5(folder)]:
        return n5, str(groups[-1]), _name(path, groups[-1])
    if image_folder.is_image_folder(path):
        return image_folder, str(path), ""
    *suffixes, last = [suffix for suffix in FORMATS if suffix.startswith(".")]
    nothing = "" if path.exists() else ", and no file or folder is there"
    raise BadInput(
        f"{path}: not in a {', '.join(suffixes)} or {last} container{nothing}; expected a path as "
        "VOLUME.zarr/volumes/raw, or a folder of images"
    )


def _name(path: Path, container: Path) -> str:
    name = path.relative_to(container).as_posix()
    return "" if name == "." else name


def _by_content(container: Path) -> Format | None:
    """Return the format of a file, or of a folder whose suffix is that of another format; None where it is open."""
    try:
        mode = os.stat(container).st_mode
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
            return None
        raise BadInput(f"{container}: {(error.strerror or str(error)).lower()}, expected a file or folder") from None
    if stat.S_ISDIR(mode):
        return zarr if container.suffix in FORMATS and zarr.is_zarr(container) else None
    if not stat.S_ISREG(mode):
        raise BadInput(f"{container}: a pipe, socket or device, expected a file or folder")
    return hdf5 if hdf5.is_hdf5(container) else tiff if tiff.is_tiff(container) else None


def as_url(text: str) -> tuple[Format, str, str] | None:
    """Return what `find_format` does for a URL; None for another path."""
    url = re.sub(r"\b([a-z][a-z0-9+]+):/(?!/)", r"\1://", text)
    for scheme, stored_as in FORMATS.items():
        if scheme.endswith("://") and url.startswith(scheme):
            return stored_as, url, ""
    return None


def further_files(path: Path) -> list[Path]:
    """Return the other files that an array's voxels lie in, as behind links of HDF5; BadInput if one is missing."""
    try:
        stored_as, container, name = find_format(path)
    except BadInput:
        return []
    further = getattr(stored_as, "further_files", None)
    return further(container, name) if further else []


look_behind(further_files)
