"""The other files that voxels of an HDF5 file lie in: behind external links, virtual datasets and external storage."""

import posixpath
from collections import deque
from pathlib import Path

import h5py

from emsuite.common.errors import BadInput

_MOST = 10_000
"""Links that are followed, at most: through other files, and to links there."""

_Link = tuple[Path, str | None]
"""A file, and the name of what is read there; None for plain bytes."""


def linked_files(container: Path, name: str) -> list[Path]:
    """Return the other files that the voxels of an array lie in, through links to any depth, sorted.

    Args:
        container: the HDF5 file.
        name: of an array or a group; "" for all that the file holds.

    Raises:
        BadInput: such a file is missing, or links are without end.
    """
    found, seen = set[Path](), set[_Link]()
    waiting = deque([(container, name.strip("/"))])
    while waiting:
        file, inside = waiting.popleft()
        for other, target in _links(file, inside):
            if not other.is_file():
                if not name:  # of another array than those that are read
                    continue
                raise BadInput(f"{container}: '{name}' leads to {other}, which is no file")
            if not other.samefile(container):
                found.add(other)
            link = other.resolve(), target
            if target is not None and link not in seen:
                seen.add(link)
                waiting.append((other, target))
        if len(seen) > _MOST:
            raise BadInput(f"{container}: '{name}' leads through more than {_MOST} links")
    return sorted(found)


def _links(file: Path, name: str) -> list[_Link]:
    """Return where the voxels of an array, or of all in a group, lie: in other files, or under other names."""
    try:
        with h5py.File(file, "r") as opened:
            return _on_the_way(opened, file, name) or _of_item(opened, file, name)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError):
        return []  # damaged, as whoever reads it says


def _on_the_way(opened: h5py.File, file: Path, name: str) -> list[_Link]:
    """Return where the first link leads that stands on the way to a name, with the rest of the way."""
    parts = name.split("/") if name else []
    for depth in range(1, len(parts) + 1):
        above, rest = "/".join(parts[: depth - 1]), parts[depth:]
        if target := _target(file, above, opened.get("/".join(parts[:depth]), getlink=True)):
            return [(target[0], posixpath.normpath("/".join([str(target[1]), *rest])).strip("/"))]
    return []


def _target(file: Path, above: str, link: object) -> _Link | None:
    if isinstance(link, h5py.ExternalLink):
        return file.parent / link.filename, link.path.strip("/")
    if isinstance(link, h5py.SoftLink):
        return file, posixpath.normpath(posixpath.join("/", above, link.path)).strip("/")
    return None


def _of_item(opened: h5py.File, file: Path, name: str) -> list[_Link]:
    item = opened.get(name) if name else opened
    if isinstance(item, h5py.Dataset):
        return _of_dataset(item, file)
    links = list[_Link]()
    if isinstance(item, h5py.Group):

        def add_link(inside: str, link: object) -> None:
            target = _target(file, posixpath.dirname(posixpath.join(name, inside)), link)
            links.extend([target] if target else [])

        def add_dataset(_: str, found: object) -> None:
            links.extend(_of_dataset(found, file) if isinstance(found, h5py.Dataset) else [])

        item.visititems_links(add_link)
        item.visititems(add_dataset)
    return links


def _of_dataset(dataset: h5py.Dataset, file: Path) -> list[_Link]:
    links: list[_Link] = [(file.parent / other, None) for other, _, _ in dataset.external or ()]
    for source in dataset.virtual_sources() if dataset.is_virtual else ():
        other = file if source.file_name == "." else file.parent / source.file_name
        links.append((other, source.dset_name.strip("/")))
    return links
