"""Which runs an output was made from: the identities of the manifests of its inputs.

    fragments.zarr.manifest.json     made_from: {"affs": "5f0c..."}     the identity of prediction.zarr.manifest.json

Times of files do not survive copies, and names and sizes of files do not tell one run's work from another's. Where a
manifest tells the content of its output by a hash, this is the identity; otherwise it is that of the manifest itself.
"""

import functools
import hashlib
import time
from calendar import timegm
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput, without_secrets
from emsuite.common.files import METADATA, file_of, files_below, sha256
from emsuite.common.state.metadata import is_told, told_by
from emsuite.common.state.written import difference

_MOST_FILES = 200_000


def record_names(array: str) -> list[str]:
    """Return the parts of an array's name as they stand in the names of records, where dots separate them."""
    return [part.replace(".", "%2E") for part in array.split("/") if part]


def manifest_path(path: Path) -> Path:
    """Return the path of the manifest of the output at `path`."""
    return path.parent / (path.name + ".manifest.json")  # `with_name` refuses "." and "/"


def record_of(path: Path) -> Path | None:
    """Return the record of a path: a JSON file itself, or the manifest of the path or of what it lies in; or None."""
    if path.suffix == ".json":
        return path
    for part in (part for part in (path, *path.parents) if part.name):
        inside = path.relative_to(part).parts
        # of an array that was written into a container of others, and of the whole container
        for name in (".".join([part.name, *inside]), part.name):
            if (record := manifest_path(part.with_name(name))).is_file():
                return record
    return None


def identity(record: Path) -> str:
    """Return a text that tells a finished output from any other, by its record; `missing` without one."""
    content = read_json(record)
    files = content.get("written") if isinstance(content, dict) else None
    known = files.get("sha256") if isinstance(files, dict) else None
    if isinstance(known, str):
        return known[:32]
    try:
        return hashlib.sha256(record.read_bytes()).hexdigest()[:32]
    except OSError:
        return "missing"


def identity_of(path: Path) -> str | None:
    """Return the identity of a file or folder, by its own record.

    A file without a record, or put in the place of the recorded one, has that of its content. None if there is neither.
    """
    record = path if path.suffix == ".json" else manifest_path(path)
    if record.exists():
        content = read_json(record)
        files = content.get("written") if isinstance(content, dict) else None
        if path == record or not path.is_file() or difference(path, files) is None:
            return identity(record)
    try:
        about = path.stat()
    except OSError:
        return None
    return _hash_of(path, about.st_size, about.st_mtime_ns)[:32] if path.is_file() else None


@functools.lru_cache(maxsize=64)
def _hash_of(path: Path, _size: int, _time: int) -> str:
    return sha256(path)


def made_from(inputs: Mapping[str, Path] | None) -> dict[str, str]:
    """Return the identities of those inputs that have a record, by their names."""
    records = {name: record_of(Path(path)) for name, path in (inputs or {}).items()}
    return {name: identity(record) for name, record in records.items() if record is not None}


@dataclass(frozen=True)
class Reading:
    """The inputs of a run as they were when it began."""

    inputs: Mapping[str, Path]
    made_from: dict[str, str]
    files: dict[str, dict[Path, tuple[int, int]]]
    """The sizes and times of files, of inputs with a record as well."""
    told: dict[str, dict[str, Any]]
    """What the documents of arrays and groups said."""

    @classmethod
    def of(cls, inputs: Mapping[str, Path] | None) -> "Reading":
        """Look at inputs, at most `_MOST_FILES` files of each."""
        paths = {name: Path(path) for name, path in (inputs or {}).items()}
        files = {name: _files(path) for name, path in paths.items()}
        return cls(paths, made_from(paths), files, {name: told_by(path) for name, path in paths.items()})

    def only(self, names: Collection[str]) -> "Reading":
        """Return what was seen of some of the inputs."""
        made_from = {name: record for name, record in self.made_from.items() if name in names}
        files, told = {name: self.files[name] for name in names}, {name: self.told[name] for name in names}
        return Reading({name: self.inputs[name] for name in names}, made_from, files, told)

    def check(self) -> None:
        """Raise BadInput if an input was made anew, edited or removed meanwhile, or grew, as by a copy under way."""
        now = made_from(self.inputs)
        for name, path in self.inputs.items():
            known = self.files.get(name, {})
            edited = any(_about(file) != about for file, about in known.items())
            edited = edited or not is_told(self.told.get(name, {}), told_by(path))
            if edited or now.get(name) != self.made_from.get(name) or _has_grown(path, known):
                shown = without_secrets(str(path))
                raise BadInput(f"{shown}: was replaced or edited while it was read; run this stage again")


def look_behind(find: Callable[[Path], Sequence[Path]]) -> None:
    """Have the further files of each input watched that `find` returns, as files behind links of HDF5."""
    _finders.append(find)


_finders = list[Callable[[Path], Sequence[Path]]]()
"""Of `emsuite.io`, a floor above."""


def _files(path: Path) -> dict[Path, tuple[int, int]]:
    file = file_of(path)
    behind = [further for find in _finders for further in find(path)] if file else []
    found = [file, *behind] if file else (found for found in files_below(path) if found.name not in METADATA)
    abouts = ((file, _about(file)) for file in islice(found, _MOST_FILES))
    return {file: about for file, about in abouts if about is not None}


def _has_grown(path: Path, known: Mapping[Path, tuple[int, int]]) -> bool:
    """Return whether files have come; a group may get further arrays, as the mask of a volume."""
    if len(known) >= _MOST_FILES or _is_group(path):
        return False
    return any(file not in known and not file.name.startswith(".") for file in _files(path))


def _is_group(path: Path) -> bool:
    if (path / ".zgroup").is_file():
        return True
    document = read_json(path / "zarr.json")
    return isinstance(document, dict) and document.get("node_type") == "group"


def _about(file: Path) -> tuple[int, int] | None:
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns


def ended(content: Mapping[str, Any]) -> float | None:
    """Return when the run of a record ended, seconds since 1970, as the record tells; None if it does not."""
    started, seconds = content.get("started"), content.get("seconds")
    if not isinstance(started, str) or not isinstance(seconds, int | float):
        return None
    try:
        return timegm(time.strptime(started, "%Y-%m-%dT%H:%M:%SZ")) + float(seconds)
    except ValueError:
        return None
