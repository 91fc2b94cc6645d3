"""Labels from membranes: where annotators drew the membranes, the cells are what lies between them.

    membranes    . . # . . # . .        labels, the next section going on     1 1 0 2 2 0 3 3
                 . . # . . # . .        with 4, 5, 6 ...                      1 1 0 2 2 0 3 3

Ids are those of one section: nothing tells which pieces of two sections are one neuron. Pieces through the volume are
for membranes that are closed in three dimensions.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, PositiveInt

from emsuite.common.errors import BadInput
from emsuite.common.outputs import check_finished
from emsuite.common.progress import progress
from emsuite.common.settings import Settings
from emsuite.data.labels_mask import AddedArray
from emsuite.io.fingerprint import content_or_files
from emsuite.io.volume import (
    LABELS,
    Volume,
    create_volume,
    holds_array,
    open_volume,
    rename_array,
)

log = logging.getLogger(__name__)

_UNFINISHED = "volumes/labels/neuron_ids_unfinished"
_RULE, _MEMBRANES_CHECKSUM, _LABELS_CHECKSUM = "labels_rule", "membranes_checksum", "labels_checksum"


class LabelsRule(Settings):
    """How labels are made from membranes."""

    membranes: str = Field("volumes/labels/membranes", description="Array in the volume; not 0 where a membrane is.")
    through_sections: bool = Field(False, description="Pieces go on through z-sections; else each ends with its own.")
    smallest: PositiveInt = Field(1, description="Smaller pieces become 0, as membranes; voxels.")


def labels_of(membranes: np.ndarray, rule: LabelsRule) -> np.ndarray:
    """Return the ids of the pieces between membranes: uint64 (Z, Y, X), from 1 up without gaps, 0 on membranes.

    Args:
        membranes: (Z, Y, X), not 0 on membranes.
        rule: How pieces are found. They are connected over faces of voxels, in a section over edges of pixels.
    """
    inside = membranes == 0
    if rule.through_sections:
        return _pieces(inside, rule.smallest).astype(np.uint64)
    labels, highest_id = np.zeros(inside.shape, np.uint64), 0
    for z in range(len(inside)):
        section = _pieces(inside[z : z + 1], rule.smallest)[0]
        labels[z][section != 0] = section[section != 0].astype(np.uint64) + np.uint64(highest_id)
        highest_id += int(section.max(initial=0))
    return labels


def labels_path(container: Path) -> Path:
    """Return the path of the record of a volume's labels; it is written when they are complete."""
    return container.with_name(container.name + ".labels.json")


def create_labels(container: Path, rule: LabelsRule) -> bool:
    """Write `volumes/labels/neuron_ids` (uint64) into a container, with the grid of the membranes.

    The labels bear another name until they are complete. Labels that were made from these membranes by this rule are
    kept, and so are those that somebody has edited since.

    Args:
        container: The volume.
        rule: How labels are made.

    Returns:
        Whether labels were written.

    Raises:
        BadInput: The container cannot be written, has no membranes, has labels of another origin, or there is nothing
            but membranes.
    """
    container = Path(container)
    labels = AddedArray(container, LABELS, labels_path(container), "labels")
    with labels.owned():
        return _create_labels(labels, container, rule)


def _create_labels(labels: AddedArray, container: Path, rule: LabelsRule) -> bool:
    membranes = open_volume(container / rule.membranes)
    if membranes.channels is not None or membranes.voxel_size.dims != 3 or membranes.dtype.kind not in "iub":
        raise BadInput(f"{membranes.path}: {membranes.dtype} {membranes.shape}, expected membranes, 0 or 1 (z, y, x)")
    settings = {_RULE: rule.model_dump(mode="json"), _MEMBRANES_CHECKSUM: content_or_files(membranes)}
    is_kept, inputs = _keeps_labels(container, settings), {"membranes": membranes.path}
    return labels.add(settings, inputs, is_kept, lambda: _write(container, membranes, rule, settings))


def _keeps_labels(container: Path, settings: dict[str, Any]) -> bool:
    """Return whether labels exist that were made by the same rule from the same membranes, or edited since."""
    if not holds_array(container / LABELS):
        return False
    labels = open_volume(container / LABELS)
    if _RULE not in labels.attributes:
        raise BadInput(f"{labels.path}: was not made from membranes; remove it, or make no labels from membranes")
    if labels.attributes.get(_LABELS_CHECKSUM) != content_or_files(labels):
        log.warning("%s: was edited since it was written, and is kept; remove it, and it is made anew", labels.path)
        return True
    return {key: labels.attributes.get(key) for key in settings} == settings


def _write(container: Path, membranes: Volume, rule: LabelsRule, settings: dict[str, Any]) -> None:
    check_finished(container)
    path, grid, ids = container / _UNFINISHED, (membranes.voxel_size, membranes.offset), 0
    labels = create_volume(path, membranes.shape, np.uint64, *grid, membranes.stored_block, **settings)
    for part in _parts(membranes, rule, container.name):
        found = labels_of(membranes[part], rule)
        found[found != 0] += np.uint64(ids)
        ids = max(ids, int(found.max(initial=0)))
        labels.array[part] = found
    if not ids:
        raise BadInput(f"{membranes.path}: nothing lies between membranes, expected 0 inside of cells")
    labels.array.attrs[_LABELS_CHECKSUM] = content_or_files(open_volume(path))
    rename_array(container, _UNFINISHED, LABELS)


def _parts(membranes: Volume, rule: LabelsRule, name: str) -> Iterator[slice]:
    """Yield what is read at once: as many sections as are stored together, or the volume."""
    sections = membranes.shape[0] if rule.through_sections else membranes.stored_block[0]
    begins = progress(range(0, membranes.shape[0], sections), what=f"labels of {name}")
    return (slice(begin, begin + sections) for begin in begins)


def _pieces(inside: np.ndarray, smallest: int) -> np.ndarray:
    import cc3d  # training alone does without

    pieces = cc3d.connected_components(inside, connectivity=6, out_dtype=np.uint32)
    if smallest > 1:
        size = np.bincount(pieces.ravel())
        kept = np.cumsum(size >= smallest, dtype=np.uint32) - np.uint32(size[0] >= smallest)
        pieces = np.where(size >= smallest, kept, np.uint32(0))[pieces]
    return pieces
