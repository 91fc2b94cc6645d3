"""The volumes, masks and skeletons that a run of the workflow reads, and whether they have changed since the last run.

Snakemake compares the states of arrays, see `emsuite.io.fingerprint.state`, as params of the rules that read them. An
array that a rule has written counts as it was written, as long as it is what the rule's record saw: a mask of a user's
own may be older than the record.
"""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

from emsuite.common.files import write_json
from emsuite.common.outputs import manifest_path, read_json
from emsuite.config.network import NetworkConfig
from emsuite.config.parts import VolumePart
from emsuite.data.labels_mask import masks_path
from emsuite.data.membranes import labels_path
from emsuite.io.fingerprint import is_as_seen, state
from emsuite.io.volume import LABELS, MASK, RAW, is_writable
from emsuite.training.volumes import paths_named
from emsuite.workflow.plan import WorkflowPlan

AS_WRITTEN = "as written"


@functools.cache
def input_state(path: Path, record: Path | None = None, name: str = ".") -> str:
    """Return a text that changes when a user changes an array or a folder. Each is looked at once.

    Args:
        path: of the array or folder.
        record: the file that a rule writes behind it; None: no rule writes it.
        name: of the array in the record; a folder is `.`.

    Returns:
        `as written` for an array that a rule has written or is still to write; `missing` for nothing.
    """
    if record is not None and not record.exists():
        return AS_WRITTEN
    told, newest = state(path)
    if record is None:
        return told
    content = read_json(record)
    kept = content.get("arrays", {}).get(name) if isinstance(content, dict) else None
    if not isinstance(kept, dict):  # of an earlier version, or of a volume without such an array when it was fetched
        return AS_WRITTEN if newest <= record.stat().st_mtime_ns else told
    return AS_WRITTEN if is_as_seen(path, kept) else told


def states_named_by(config: NetworkConfig) -> dict[str, str]:
    """Return the states of arrays that the file of a network names beside its training volumes, by path.

    They decide on weights: volumes of artifacts, and volumes of a validation, which can end training.
    """
    return {str(path): input_state(path) for path in paths_named(config, Path())}


def states(
    plan: WorkflowPlan, parts: Iterable[VolumePart], *arrays: str, with_skeletons: bool = False
) -> dict[str, str]:
    """Return the states of some arrays of some parts, by path, and those of the skeletons beside them."""
    told = {}
    for volume in dict.fromkeys(part.volume for part in parts):
        manifest = manifest_path(volume) if plan.volumes.is_managed(volume) else None
        for array in arrays:
            record = _record(plan, volume, array) or manifest
            told[str(volume / array)] = input_state(volume / array, record, array)
        if with_skeletons and plan.volumes.skeletons_option(volume):
            skeletons = volume.with_suffix(".skeletons")
            is_written = plan.volumes.is_managed(volume) and plan.dataset.synthesis
            told[str(skeletons)] = input_state(skeletons, manifest_path(skeletons) if is_written else None)
    return told


def _record(plan: WorkflowPlan, volume: Path, array: str) -> Path | None:
    """Return the record of an array that a rule writes into a volume; None for an array that came with it."""
    if array == MASK and is_writable(volume):
        return masks_path(volume)
    return labels_path(volume) if array == LABELS and volume in plan.labelled_volumes else None


def all_states(plan: WorkflowPlan) -> dict[str, str]:
    """Return the states of all inputs of a run, by path."""
    tested = plan.test_parts.values()
    return states(plan, plan.parts, RAW, LABELS, MASK) | states(plan, tested, with_skeletons=True)


def seen_path(plan: WorkflowPlan) -> Path:
    """Return the file that holds the states that the last run of this plan has seen."""
    return plan.results / "log" / "inputs.json"


def changed_inputs(plan: WorkflowPlan) -> list[str]:
    """Return the paths of the inputs that have changed since the last run of this plan that ended well."""
    return changed_since(seen_path(plan), all_states(plan))


def changed_since(seen: Path, now: Mapping[str, str]) -> list[str]:
    """Return the paths whose states differ from those in the file `seen`; paths that it does not know do not."""
    earlier = read_json(seen)
    return [path for path in now if isinstance(earlier, Mapping) and earlier.get(path, now[path]) != now[path]]


def note_inputs(plan: WorkflowPlan, only_if_new: bool = False) -> None:
    """Write the states of all inputs, as this process has seen them, for `changed_inputs` of the next run."""
    note(seen_path(plan), all_states(plan), only_if_new)


def note(seen: Path, now: Mapping[str, str], only_if_new: bool = False) -> None:
    """Write states into the file `seen`; `only_if_new`, where there is no such file."""
    if not only_if_new or not seen.exists():
        write_json(seen, now)


def log_name(plan: WorkflowPlan, volume: Path) -> str:
    """Return a name for the logs of a volume: its own, with that of its folder where two volumes have the same."""
    others = {part.volume for part in plan.parts} - {volume}
    is_unique = volume.stem not in {other.stem for other in others}
    return volume.stem if is_unique else f"{volume.absolute().parent.name}_{volume.stem}"
