"""Outputs that are written over hours (zarr arrays, folders of tables), and the files beside them that tell the state.

    prediction.zarr                     the output
    prediction.zarr.unfinished.json     exists while the output is written; holds its settings and the id of its run
    prediction.zarr.manifest.json       written last, with provenance: the output is complete
    .prediction.zarr.emsuite            stays for ever: what the suite wrote there and may replace, see `ownership`
    prediction.zarr/.emsuite            exists while the output is written: the folder is this suite's
    .prediction.zarr.lock               exists while a run writes, see `lock`: a second run is refused

A run that finds an unfinished output with its own settings continues it, under the id of the run that began it. Records
of finished parts carry this id: parts of another run do not count. An output with other settings is removed and
written from the beginning; where something lies in it that this suite did not write, nothing is removed. The hidden
`.emsuite` file is needed because the manifest may be gone: Snakemake removes it before it runs a rule again.

The manifest also records which files were `written`. A copy that broke off and a program that cleans folders take files
away, and a chunk that is gone reads as zeros; somebody puts another checkpoint in the place of this one.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.files import naming, remove, remove_leftovers, remove_parts_below, write_json, write_text
from emsuite.common.provenance import Fingerprint, as_recorded, checksum, provenance, recorded_settings
from emsuite.common.state.lock import owned
from emsuite.common.state.origins import Reading, manifest_path, record_names
from emsuite.common.state.ownership import (
    foreign_beside,
    foreign_while_unfinished,
    is_one_gone,
    is_own,
    keep_edited,
    mark,
    mark_path,
    marked_parts,
    note_file,
    top_names,
    unmark,
    wrote,
)
from emsuite.common.state.written import arrays_in, lost, written

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
"""Returns the settings of an earlier version in the words of today's."""


@dataclass
class Output:
    """An output that is being written: `resumed` if it holds earlier work; `notes` are added to the manifest.

    `run` is the id of the run that began it, for records of its finished parts; a version without ids left it empty.
    `everything` says that all of the folder is the run's, not its arrays alone.
    """

    path: Path
    resumed: bool
    run: str = ""
    notes: dict[str, Any] = field(default_factory=dict)
    parts: set[str] = field(default_factory=set)
    everything: bool = False

    def claim(self, *parts: str) -> None:
        """Create the folder with the mark of this suite, before anything is written there.

        Args:
            parts: the names in the folder that the run writes; none: all. Further calls add to them.
        """
        self.parts |= set(parts)
        mark(self.path, parts)

    def clear(self, *parts: str) -> None:
        """Remove what a stopped run left, and `claim` the folder."""
        remove(self.path)
        self.claim(*parts)

    @property
    def file(self) -> Path:
        """Where an output that is one file is written, to `become` the output when it is whole."""
        return self.path.with_name(f".{self.path.name}.new")

    def become_file(self) -> None:
        """Put `file` in the place of the output."""
        remove(self.path)
        note_file(self.path, self.file)
        self.file.replace(self.path)


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
            try:
                yield unfinished
            except BaseException:
                if not keep:
                    _mark_stopped(unfinished)
                raise
        lock.check()
        try:
            reading.check()
        except BadInput:
            write_json(unfinished_path(path), {"copied": wrote_earlier(path)})  # nobody continues what has two inputs
            raise
        if _unfinished(path)[0] != unfinished.run:
            raise RunFailed(f"{path}: another run has replaced it; run this again")
        _write_record(unfinished)
        about = {"made_from": reading.made_from, "written": written(path, unfinished.parts)} | unfinished.notes
        write_json(manifest_path(path), provenance(settings, inputs, seed, fingerprint) | about)
        unfinished_path(path).unlink()


def _begin(path: Path, settings: Mapping[str, Any], upgrade: Upgrade | None, keep: bool) -> Output:
    """Mark the output as unfinished, and remove what lies there unless it is continued."""
    marks = mark_path(path), manifest_path(path), unfinished_path(path)
    if path.exists() and not keep:
        _check_own(path)
    wanted, copied = as_recorded(settings), wrote_earlier(path)
    run, earlier = _unfinished(path)
    # a file is whole, or not there: nothing is left to continue
    resumed = path.exists() and (keep or (not path.is_file() and _equal(earlier, wanted, upgrade)))
    if not (resumed and earlier is not None):
        run = uuid.uuid4().hex[:16]
        if not resumed:
            write_json(unfinished_path(path), {"copied": copied})  # a run that is killed here is not continued
            manifest_path(path).unlink(missing_ok=True)
            keep_edited(path, read_json(marks[0]), marks[0])
            remove(path)
        write_json(unfinished_path(path), {"run": run, "settings": wanted, "copied": copied})
    manifest_path(path).unlink(missing_ok=True)
    remove_parts_below(path)
    remove_leftovers(*marks, Output(path, resumed).file)
    if resumed and path.is_dir() and not keep and marked_parts(path) is None:
        mark(path, top_names(read_json(mark_path(path))))
    write_text(mark_path(path), "")  # until it is finished, the mark in the folder stands for it
    return Output(path, resumed, run, parts=set(marked_parts(path) or ()))


def _check_own(path: Path) -> None:
    """Raise BadInput for an output that this suite did not write, or that holds something else by now."""
    if not any(mark.exists() for mark in (mark_path(path), manifest_path(path), unfinished_path(path))):
        raise BadInput(
            f"{path}: exists but was not made by this suite (no manifest beside it); remove it or choose another"
        )
    found = _foreign(path)
    if found == ".":
        raise BadInput(f"{path}: holds something else than this suite wrote there; remove it or choose another")
    if found:
        raise BadInput(f"{path}: holds {found}, which this suite did not write; move it elsewhere or choose another")


def _foreign(path: Path) -> str | None:
    """Return the first thing at `path` that this suite did not write; `.` for all of it, None if there is none."""
    record = read_json(mark_path(path))
    if unfinished_path(path).exists() and not record:
        of_earlier_version = _begun_without_marks(path) and marked_parts(path) is None
        return None if of_earlier_version else foreign_while_unfinished(path)
    if not is_own(path, record):
        return "."
    parts = record.get("parts") if isinstance(record, dict) else ()
    levels = [f"{part}_levels" for part in parts or ()]
    records = [path.with_name(f"{path.name}.{name.replace('/', '.')}") for name in levels]
    return foreign_beside(path, record, [n for n, r in zip(levels, records, strict=True) if is_copy(path / n, r)])


def is_copy(path: Path, record: Path) -> bool:
    """Return whether the array or folder at `path` is what the run of a record wrote, or still writes.

    Args:
        path: what was written, marked while it is; see `mark`.
        record: the output that keeps the state of the run; its manifest tells what it `wrote`.
    """
    if not unfinished_path(record).exists():
        return manifest_path(record).exists() and is_own(path, read_manifest(record).get("wrote"))
    if path.is_file() or _begun_without_marks(record) or foreign_while_unfinished(path) is None:
        return True
    earlier = wrote_earlier(record)
    return isinstance(earlier, dict) and is_own(path, earlier)


def _begun_without_marks(path: Path) -> bool:
    """Whether an earlier version began to write an output; this one notes what had been `copied` before."""
    content = read_json(unfinished_path(path))
    return isinstance(content, dict) and "copied" not in content


def wrote_earlier(path: Path) -> Any:
    """Return what the last whole run of a record wrote elsewhere; None without one."""
    content = read_json(unfinished_path(path))
    return read_manifest(path).get("wrote") or (content.get("copied") if isinstance(content, dict) else None)


def _mark_stopped(out: Output) -> None:
    """Tell the next run that what lies there is this suite's, of a step that did not `claim` it."""
    with suppress(OSError):  # the error that ends the run matters more
        if out.path.is_file():
            write_json(mark_path(out.path), wrote(out.path))
        elif out.path.is_dir() and marked_parts(out.path) is None:
            mark(out.path, out.parts)


def _write_record(out: Output) -> None:
    """Record what was written, in the place of the mark in the folder."""
    names = [array.relative_to(out.path).as_posix() for array in arrays_in(out.path, out.parts)]
    all_of_it = ["."] if out.path.exists() else []
    known = all_of_it if out.everything else out.notes.get("arrays") or names or all_of_it
    write_json(mark_path(out.path), wrote(out.path, known))
    unmark(out.path)


def _unfinished(path: Path) -> tuple[str, Any]:
    """Return the run and the settings of the unfinished output at `path`; settings alone of a version without ids."""
    content = read_json(unfinished_path(path))
    if isinstance(content, dict) and content.keys() in ({"run", "settings"}, {"run", "settings", "copied"}):
        return str(content["run"]), content["settings"]
    if isinstance(content, dict) and content.keys() == {"copied"}:
        return "", "not to be continued"
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
    """Whether the output at `path` is whole and was made from the same settings; see `output` for `upgrade`.

    Looks at all files of the output, as `check_whole` does.
    """
    manifest = read_manifest(path)
    if not manifest or not path.exists() or not _equal(recorded_settings(manifest), as_recorded(settings), upgrade):
        return False
    return lost(path, manifest) is None and not is_one_gone(path, read_json(mark_path(path)))


def _equal(earlier: Any, settings: Any, upgrade: Upgrade | None) -> bool:
    if upgrade is not None and isinstance(earlier, dict):
        earlier = json.loads(json.dumps(upgrade(earlier), default=str))
    return bool(earlier == settings)


def check_finished(path: Path) -> None:
    """Raise BadInput if `path` is, or lies inside, an output that is unfinished."""
    # the record of an array or of its levels lies beside its container, as cube.zarr.volumes.raw
    inside = [(part, record_names(path.relative_to(part).as_posix())) for part in path.parents if "." in part.name]
    arrays = (part.with_name(".".join((part.name, *rest[: n + 1]))) for part, rest in inside for n in range(len(rest)))
    for part in (path, *path.parents, *arrays):
        if part.name and unfinished_path(part).exists() and not manifest_path(part).exists():
            raise BadInput(
                f"{part}: unfinished (a run is writing it, or was stopped); run its stage again to continue it"
            )


def check_whole(path: Path, is_edited: bool = False) -> None:
    """Raise BadInput if `path` is, or lies inside, an output that is unfinished or has lost files since it was written.

    Looks at all files of the output, about 10 us each: for the steps that read it, not for each of their workers.
    What users may edit, `is_edited`, is whole unless files are gone.
    """
    check_finished(path)
    for part in (path, *path.parents):
        manifest = read_manifest(part) if part.name else {}
        if changed := lost(part, manifest, is_edited):
            raise BadInput(f"{part}: {changed}; remove {manifest_path(part).name} beside it and run its stage again")
