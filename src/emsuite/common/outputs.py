"""Outputs that grow over hours (zarr arrays, folders of tables): unfinished until their manifest is written.

    prediction.zarr                     grows
    prediction.zarr.unfinished.json     while it grows: what it is being made from
    prediction.zarr.manifest.json       written last, with provenance: the output is whole
    .prediction.zarr.emsuite            for ever: made by this suite, and may be replaced by it

A run that finds an unfinished output made from the same settings continues it; made from others, it starts anew. The
last of the marks is for the case that somebody removed the manifest, as Snakemake does before it runs a rule again.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emsuite.common.errors import BadInput
from emsuite.common.files import naming, remove, write_json, write_text
from emsuite.common.provenance import Fingerprint, checksum, provenance

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
"""Returns the settings of an earlier version in the words of today's."""


@dataclass
class Output:
    """One output while it is being made: `resumed` tells whether earlier work is there; `notes` go to the manifest."""

    path: Path
    resumed: bool
    notes: dict[str, Any] = field(default_factory=dict)


def manifest_path(path: Path) -> Path:
    """Where the manifest of the output at `path` lies."""
    return path.with_name(path.name + ".manifest.json")


def unfinished_path(path: Path) -> Path:
    """Where the mark of an unfinished output at `path` lies."""
    return path.with_name(path.name + ".unfinished.json")


@contextmanager
def output(
    path: Path,
    settings: Mapping[str, Any],
    *,
    inputs: Mapping[str, Path] | None = None,
    seed: int | None = None,
    upgrade: Upgrade | None = None,
    fingerprint: Fingerprint = checksum,
) -> Iterator[Output]:
    """Make the output at `path` within the block; on leaving it well, the manifest is written.

    `settings` decide the bytes (never put the number of workers among them): an unfinished output with the same
    settings is continued (`Output.resumed`), anything else that lies at `path` is removed first. Settings of the
    earlier run go through `upgrade` before they are compared. The manifest records `inputs` with their `fingerprint`.
    """
    path = Path(path)
    for name, given in (inputs or {}).items():
        if Path(given).resolve().is_relative_to(path.resolve()):
            raise BadInput(f"{path}: holds {given}, the {name} it would be made from; choose another output")
    owned = path.with_name(f".{path.name}.emsuite")
    if path.exists() and not any(mark.exists() for mark in (owned, manifest_path(path), unfinished_path(path))):
        raise BadInput(
            f"{path}: exists but was not made by this suite (no manifest beside it); remove it or choose another"
        )
    wanted = json.loads(json.dumps(settings, default=str))
    write_text(owned, "")
    resumed = path.exists() and _equal(read_json(unfinished_path(path)), wanted, upgrade)
    if not resumed:
        write_json(unfinished_path(path), "being removed")  # no settings: a run that is killed here is not continued
        manifest_path(path).unlink(missing_ok=True)
        remove(path)
        write_json(unfinished_path(path), wanted)
    manifest_path(path).unlink(missing_ok=True)
    for pattern in ("*.partial", ".*.part"):  # what zarr, or `atomic_path`, was writing when the run was killed
        for leftover in path.rglob(pattern):
            leftover.unlink()
    made = Output(path, resumed)
    with naming(path):
        yield made
    write_json(manifest_path(path), provenance(settings, inputs, seed, fingerprint) | made.notes)
    unfinished_path(path).unlink()


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None where there is none or it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def is_finished(path: Path, settings: Mapping[str, Any], upgrade: Upgrade | None = None) -> bool:
    """Whether the output at `path` is whole and was made from the same settings; see `output` for `upgrade`."""
    manifest = read_json(manifest_path(path))
    if not isinstance(manifest, dict) or not path.exists():
        return False
    return _equal(manifest.get("settings"), json.loads(json.dumps(settings, default=str)), upgrade)


def _equal(earlier: Any, settings: Any, upgrade: Upgrade | None) -> bool:
    if upgrade is not None and isinstance(earlier, dict):
        earlier = json.loads(json.dumps(upgrade(earlier), default=str))
    return bool(earlier == settings)


def check_finished(path: Path) -> None:
    """Refuse to read an output (or anything inside it) that a run left unfinished."""
    for part in (path, *path.parents):
        if part.name and unfinished_path(part).exists() and not manifest_path(part).exists():
            raise BadInput(
                f"{part}: unfinished (a run is writing it, or was stopped); run its stage again to continue it"
            )
