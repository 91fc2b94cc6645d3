"""Outputs that are written over hours (zarr arrays, folders of tables), and the files beside them that tell the state.

    prediction.zarr                     the output
    prediction.zarr.unfinished.json     exists while the output is written; holds its settings and the id of its run
    prediction.zarr.manifest.json       written last, with provenance: the output is complete
    .prediction.zarr.emsuite            stays for ever: what the suite wrote there and may replace, see `ownership`
    .prediction.zarr.lock               exists while a run writes, see `lock`: a second run is refused

A run that finds an unfinished output with its own settings continues it, under the id of the run that began it. Records
of finished parts carry this id: parts of another run do not count. An output with other settings is removed and
written from the beginning. The `.emsuite` file is needed because the manifest may be gone: Snakemake removes it before
it runs a rule again.

The manifest also records which files were `written`. A copy that broke off and a program that cleans folders take files
away, and a chunk that is gone reads as zeros; somebody puts another checkpoint in the place of this one.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.files import naming, remove, remove_leftovers, write_json, write_text
from emsuite.common.provenance import Fingerprint, as_recorded, checksum, provenance, recorded_settings
from emsuite.common.state.lock import owned
from emsuite.common.state.origins import Reading, manifest_path
from emsuite.common.state.ownership import is_own, wrote
from emsuite.common.state.written import difference, written

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
"""Returns the settings of an earlier version in the words of today's."""


@dataclass
class Output:
    """An output that is being written: `resumed` if it holds earlier work; `notes` are added to the manifest.

    `run` is the id of the run that began it, for records of its finished parts; a version without ids left it empty.
    """

    path: Path
    resumed: bool
    run: str = ""
    notes: dict[str, Any] = field(default_factory=dict)


def unfinished_path(path: Path) -> Path:
    """Return the path of the file that marks the output at `path` as unfinished."""
    return path.parent / (path.name + ".unfinished.json")


def lock_path(path: Path) -> Path:
    """Return the path of the lock that a run holds while it writes the output at `path`."""
    return path.with_name(f".{path.name}.lock")


def unfinished_settings(path: Path) -> Any:
    """Return the settings of the unfinished output at `path`; None if it is not unfinished."""
    return _unfinished(path)[1]


@contextmanager
def output(
    path: Path,
    settings: Mapping[str, Any],
    *,
    inputs: Mapping[str, Path] | None = None,
    seed: int | None = None,
    upgrade: Upgrade | None = None,
    fingerprint: Fingerprint = checksum,
    keep: bool = False,
) -> Iterator[Output]:
    """Make the output at `path` within the block; on leaving it well, the manifest is written.

    `settings` decide the bytes (never put the number of workers among them): an unfinished output with the same
    settings is continued (`Output.resumed`), anything else that lies at `path` is removed first, unless the caller has
    checked it and says `keep`. Settings of the earlier run go through `upgrade` before they are compared. The manifest
    records `inputs` with their `fingerprint`.

    Raises:
        OutputInUse: Another run writes it.
        BadInput: An input was replaced or edited meanwhile.
        RunFailed: Another run has replaced it meanwhile.
    """
    path = Path(path)
    for name, source in (inputs or {}).items():
        if Path(source).resolve().is_relative_to(path.resolve()):
            raise BadInput(f"{path}: holds {source}, the {name} it would be made from; choose another output")
    with owned(lock_path(path), path) as lock:
        reading = Reading.of(inputs)
        unfinished = _begin(path, settings, upgrade, keep)
        with naming(path):
            yield unfinished
        lock.check()
        try:
            reading.check()
        except BadInput:
            write_json(unfinished_path(path), "made from two inputs")  # nobody continues this
            raise
        if _unfinished(path)[0] != unfinished.run:
            raise RunFailed(f"{path}: another run has replaced it; run this again")
        about = {"made_from": reading.made_from, "written": written(path)} | unfinished.notes
        write_json(_mark(path), wrote(path, about.get("arrays") or about["written"] or ()))
        write_json(manifest_path(path), provenance(settings, inputs, seed, fingerprint) | about)
        unfinished_path(path).unlink()


def _begin(path: Path, settings: Mapping[str, Any], upgrade: Upgrade | None, keep: bool) -> Output:
    """Mark the output as unfinished, and remove what lies there unless it is continued."""
    marks = _mark(path), manifest_path(path), unfinished_path(path)
    if path.exists() and not keep:
        _check_own(path)
    wanted = as_recorded(settings)
    write_text(_mark(path), "")  # until it is finished, `unfinished_path` stands for it
    run, earlier = _unfinished(path)
    resumed = path.exists() and (keep or _equal(earlier, wanted, upgrade))
    if not (resumed and earlier is not None):
        run = uuid.uuid4().hex[:16]
        if not resumed:
            write_json(unfinished_path(path), "being removed")  # a run that is killed here is not continued
            manifest_path(path).unlink(missing_ok=True)
            remove(path)
        write_json(unfinished_path(path), {"run": run, "settings": wanted})
    manifest_path(path).unlink(missing_ok=True)
    if path.is_dir():
        for pattern in ("*.partial", ".*.part"):  # files of zarr and of `atomic_path` from a run that was killed
            for leftover in path.rglob(pattern):
                leftover.unlink()
    remove_leftovers(*marks)
    return Output(path, resumed, run)


def _mark(path: Path) -> Path:
    return path.parent / f".{path.name}.emsuite"


def _check_own(path: Path) -> None:
    """Raise BadInput for an output that this suite did not write, or that holds something else by now."""
    if not any(mark.exists() for mark in (_mark(path), manifest_path(path), unfinished_path(path))):
        raise BadInput(
            f"{path}: exists but was not made by this suite (no manifest beside it); remove it or choose another"
        )
    if not unfinished_path(path).exists() and not is_own(path, read_json(_mark(path))):
        raise BadInput(f"{path}: holds something else than this suite wrote there; remove it or choose another")


def _unfinished(path: Path) -> tuple[str, Any]:
    """Return the run and the settings of the unfinished output at `path`; settings alone of a version without ids."""
    content = read_json(unfinished_path(path))
    if isinstance(content, dict) and content.keys() == {"run", "settings"}:
        return str(content["run"]), content["settings"]
    return "", content


def read_manifest(path: Path, **kinds: type) -> dict[str, Any]:
    """Return the manifest of the output at `path`; an empty one if there is none, or if it is no such manifest.

    Args:
        path: the output, not its manifest.
        kinds: keys that the manifest must have, and the types of their values.
    """
    content = read_json(manifest_path(path))
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in kinds.items()):
        return {}
    return content


def is_finished(path: Path, settings: Mapping[str, Any], upgrade: Upgrade | None = None) -> bool:
    """Whether the output at `path` is whole and was made from the same settings; see `output` for `upgrade`."""
    manifest = read_manifest(path)
    if not manifest or not path.exists():
        return False
    return _equal(recorded_settings(manifest), as_recorded(settings), upgrade)


def _equal(earlier: Any, settings: Any, upgrade: Upgrade | None) -> bool:
    if upgrade is not None and isinstance(earlier, dict):
        earlier = json.loads(json.dumps(upgrade(earlier), default=str))
    return bool(earlier == settings)


def check_finished(path: Path) -> None:
    """Raise BadInput if `path` is, or lies inside, an output that is unfinished."""
    # the record of an array alone lies beside its container: cube.zarr.volumes.raw for cube.zarr/volumes/raw
    containers = [part for part in path.parents if part.name]
    arrays = (part.with_name(".".join((part.name, *path.relative_to(part).parts))) for part in containers)
    for part in (path, *path.parents, *arrays):
        if part.name and unfinished_path(part).exists() and not manifest_path(part).exists():
            raise BadInput(
                f"{part}: unfinished (a run is writing it, or was stopped); run its stage again to continue it"
            )


def check_whole(path: Path) -> None:
    """Raise BadInput if `path` is, or lies inside, an output that is unfinished or has lost files since it was written.

    Looks at all files of the output, about 10 us each: for the steps that read it, not for each of their workers.
    """
    check_finished(path)
    for part in (path, *path.parents):
        manifest = read_manifest(part) if part.name else {}
        # users edit volumes, and zeros that they write may remove chunks
        changed = None if "arrays" in manifest else difference(part, manifest.get("written"))
        if changed:
            raise BadInput(f"{part}: {changed}; remove {manifest_path(part).name} beside it and run its stage again")
