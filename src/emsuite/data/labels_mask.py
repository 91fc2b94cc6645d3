"""The labels mask: 1 where the label of a voxel is ground truth, 0 where nobody labelled the voxel."""

import itertools
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from emsuite.common.errors import BadInput
from emsuite.common.files import remove, remove_leftovers, write_json
from emsuite.common.geometry import Roi
from emsuite.common.outputs import check_finished, lock_path
from emsuite.common.progress import progress
from emsuite.common.provenance import provenance
from emsuite.common.settings import Settings
from emsuite.common.state.lock import owned
from emsuite.io.fingerprint import content_or_files, seen
from emsuite.io.values import SPECIAL_IDS
from emsuite.io.volume import (
    LABELS,
    MASK,
    Volume,
    create_volume,
    fingerprint,
    holds_array,
    is_writable,
    open_volume,
    rename_array,
    split_path,
)

log = logging.getLogger(__name__)

_UNFINISHED = "volumes/labels/labels_mask_unfinished"
_RULE = "mask_rule"
_LABELS_CHECKSUM = "labels_checksum"
_MASK_CHECKSUM = "mask_checksum"


class MaskRule(Settings):
    """The labels that are no ground truth: the labels mask is 0 in voxels with one of them, 1 in all others."""

    unlabelled: tuple[Annotated[int, Field(ge=0, lt=2**64)], ...] = ()


def mask_of(labels: np.ndarray, rule: MaskRule) -> np.ndarray:
    """Return the mask of `labels` (integers, any shape) as uint8: 0 where `rule` says unlabelled, 1 elsewhere.

    Labels are compared as unsigned 64-bit numbers: int64 -3 is uint64 18446744073709551613, the unlabelled voxels of
    the hemibrain's training volumes (lsd_nm_experiments, create_masks).
    """
    mask = np.ones(labels.shape, np.uint8)
    numbers = labels.astype(np.uint64, copy=False)
    for label in rule.unlabelled:
        mask[numbers == np.uint64(label)] = 0
    return mask


def is_known_without_mask(rule: MaskRule) -> bool:
    """Return whether scoring leaves out all labels of the rule by itself: 0 and `SPECIAL_IDS`.

    Training applies every rule as it reads labels. So volumes that are not written into, HDF5 files, need no mask.
    """
    return set(rule.unlabelled) <= {0, *SPECIAL_IDS}


def mask_beside(labels: Path) -> Path | None:
    """Return the mask of labels, if they are a volume's own and it has one: where somebody labelled."""
    container, name = split_path(labels)
    return container / MASK if name == LABELS and holds_array(container / MASK) else None


def check_mask_of(mask: Volume, labelled: Roi) -> None:
    """Raise BadInput if a mask does not cover the labels in use, a region in nm, or may hold NaN, neither 0 nor 1."""
    if mask.dtype.kind not in "uib" or mask.channels is not None:
        raise BadInput(f"{mask.path}: {mask.dtype} {mask.shape}, expected a mask (z, y, x), integers")
    if not mask.roi.contains(labelled):
        raise BadInput(f"{mask.path}: covers {mask.roi} nm, expected it to cover the labels, {labelled} nm")


def masks_path(container: Path) -> Path:
    """Return the path of the record of a volume's mask; it is written when the mask is complete."""
    return container.with_name(container.name + ".masks.json")


@dataclass(frozen=True)
class AddedArray:
    """An array that is made from another one of a volume and written into the volume, and its record beside it."""

    container: Path
    name: str
    record: Path
    what: str
    """Such arrays in words, for messages."""

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the array and its record; raise BadInput unless the container is a zarr volume."""
        if not is_writable(self.container):
            raise BadInput(
                f"{self.container}: expected a zarr volume, as VOLUME.zarr ({self.what} are written into it)"
            )
        with owned(lock_path(self.record), self.container / self.name):
            remove_leftovers(self.record)
            yield

    def add(self, settings: dict[str, Any], inputs: dict[str, Path], is_kept: bool, write: Callable[[], None]) -> bool:
        """Write the array unless it is kept, then the record unless it exists; return whether the array was written.

        Args:
            settings: What the array is made by, for the record.
            inputs: What it is made from.
            is_kept: Whether the array that exists stays.
            write: Writes the array.
        """
        if not is_kept:
            try:
                write()
            except PermissionError:
                raise BadInput(
                    f"{self.container}: cannot be written; {self.what} are written into the volume: take a copy of it"
                ) from None
        if not is_kept or not self.record.exists():
            record = provenance(settings | {"kept": is_kept}, inputs=inputs, fingerprint=fingerprint)
            write_json(self.record, record | {"arrays": {self.name: seen(self.container / self.name)}})
        return not is_kept


def create_mask(container: Path, rule: MaskRule) -> bool:
    """Write `volumes/labels/labels_mask` (uint8, 0 or 1) into a container, with the labels' ROI and chunks.

    The mask is written block by block under another name and renamed when it is complete. A mask that exists is kept
    if it was made from these labels by this rule, or by another program, or if somebody has edited it.

    Args:
        container: The volume, with labels in `volumes/labels/neuron_ids`.
        rule: The labels that are no ground truth.

    Returns:
        Whether a mask was written.

    Raises:
        BadInput: The container cannot be written, its labels are missing or no integers, or its mask does not fit them.
    """
    container = Path(container)
    mask = AddedArray(container, MASK, masks_path(container), "masks")
    with mask.owned():
        return _create_mask(mask, container, rule)


def _create_mask(mask: AddedArray, container: Path, rule: MaskRule) -> bool:
    labels = open_volume(container / LABELS)
    if labels.channels is not None or labels.dtype.kind not in "iub":
        raise BadInput(f"{labels.path}: {labels.dtype} {labels.shape}, expected integer labels without channels")
    settings = {_RULE: rule.model_dump(mode="json"), _LABELS_CHECKSUM: content_or_files(labels)}
    is_kept = _keeps_mask(container, labels, settings)
    inputs = {"labels": container / LABELS}
    return mask.add(settings, inputs, is_kept, lambda: _write(container, labels, rule, settings))


def remove_mask(container: Path) -> None:
    """Remove the mask that `create_mask` wrote into a volume that is made anew; one that somebody has edited stays."""
    if not is_writable(container) or not holds_array(container / MASK):
        return
    mask = open_volume(container / MASK)
    if _RULE in mask.attributes and not _was_edited(mask):
        masks_path(container).unlink(missing_ok=True)
        remove(container / MASK)


def check_mask_rule(mask: Path, rule: MaskRule) -> None:
    """Raise BadInput if a mask was written by another rule, as for another data set; masks of other programs may be."""
    told = open_volume(mask).attributes.get(_RULE)
    if told is not None and told != rule.model_dump(mode="json"):
        raise BadInput(
            f"{mask}: was written by the rule {told}, expected {rule.model_dump(mode='json')}; write it again"
        )


def _keeps_mask(container: Path, labels: Volume, settings: dict[str, Any]) -> bool:
    """Return whether a mask exists that was made by the same rule from the same labels, or by another program."""
    if not holds_array(container / MASK):
        return False
    mask = open_volume(container / MASK)
    if _RULE in mask.attributes and not _was_edited(mask):
        if str(mask.attributes.get(_LABELS_CHECKSUM)).startswith("listing:"):  # of an earlier version
            settings = settings | {_LABELS_CHECKSUM: fingerprint(labels.path)}
        return {key: mask.attributes.get(key) for key in settings} == settings
    if mask.roi != labels.roi or mask.voxel_size != labels.voxel_size or mask.dtype.kind not in "iub":
        raise BadInput(
            f"{mask.path}: {mask.dtype} over {mask.roi} nm does not fit the labels, which cover {labels.roi} nm; "
            "remove it, and a new one is written"
        )
    if _RULE in mask.attributes:
        log.warning("%s: was edited since it was written, and is kept; remove it, and a new one is written", mask.path)
    return True


def _was_edited(mask: Volume) -> bool:
    """Return whether somebody painted into a mask after it was written; earlier versions left no checksum to tell."""
    checksum = mask.attributes.get(_MASK_CHECKSUM)
    return checksum is not None and checksum != content_or_files(mask)


def _write(container: Path, labels: Volume, rule: MaskRule, settings: dict[str, Any]) -> None:
    check_finished(container)
    block = labels.stored_block
    mask = create_volume(
        container / _UNFINISHED,
        labels.shape,
        np.uint8,
        labels.voxel_size,
        labels.offset,
        chunks=block,
        **settings,
    )
    blocks = math.prod(-(-n // width) for n, width in zip(labels.shape, block, strict=True))
    for index in progress(_blocks(labels.shape, block), what=f"mask of {container.name}", total=blocks):
        mask.array[index] = mask_of(labels[index], rule)
    mask.array.attrs[_MASK_CHECKSUM] = content_or_files(open_volume(container / _UNFINISHED))
    rename_array(container, _UNFINISHED, MASK)


def _blocks(shape: tuple[int, ...], block: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    steps = [range(0, length, step) for length, step in zip(shape, block, strict=True)]
    for corner in itertools.product(*steps):
        yield tuple(slice(low, low + step) for low, step in zip(corner, block, strict=True))
