"""The labels mask: 1 where a voxel's label is ground truth, 0 where nobody labelled it."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import zarr
from pydantic import Field

from emsuite.common.errors import BadInput
from emsuite.common.files import remove, write_json
from emsuite.common.outputs import check_finished
from emsuite.common.progress import progress
from emsuite.common.provenance import checksum, provenance
from emsuite.common.settings import Settings
from emsuite.io.volume import Volume, create_volume, open_volume

LABELS = "volumes/labels/neuron_ids"
MASK = "volumes/labels/labels_mask"
_UNFINISHED = "volumes/labels/labels_mask_unfinished"
_RULE = "mask_rule"
_LABELS_CHECKSUM = "labels_checksum"


class MaskRule(Settings):
    """Which labels are no ground truth: voxels that carry one of them are 0 in the labels mask, all others 1."""

    unlabelled: tuple[Annotated[int, Field(ge=0, lt=2**64)], ...] = ()


def mask_of(labels: np.ndarray, rule: MaskRule) -> np.ndarray:
    """The mask of `labels` (integers, any shape) as uint8: 0 where `rule` says unlabelled, 1 elsewhere.

    Labels are compared as unsigned 64-bit numbers, so that int64 -3 is uint64 18446744073709551613, as in the
    hemibrain's training volumes (lsd_nm_experiments, create_masks).
    """
    mask = np.ones(labels.shape, np.uint8)
    numbers = labels.astype(np.uint64, copy=False)
    for label in rule.unlabelled:
        mask[numbers == np.uint64(label)] = 0
    return mask


def masks_path(container: Path) -> Path:
    """Where the record of a volume's mask lies; it is written when the mask is whole."""
    return container.with_name(container.name + ".masks.json")


def create_mask(container: Path, rule: MaskRule) -> bool:
    """Write `volumes/labels/labels_mask` (uint8, 0 or 1) into a zarr volume, at the labels' place and in their chunks.

    Goes chunk by chunk under another name and renames when it is whole. A mask that is there, made from these labels
    by this rule or by somebody else, is kept; returns whether one was made. Raises BadInput for labels that are
    missing or no integers, and for a mask that does not fit them.
    """
    container = Path(container)
    if container.suffix != ".zarr":
        raise BadInput(f"{container}: expected a zarr volume, as VOLUME.zarr (masks are written into it)")
    labels = open_volume(container / LABELS)
    if labels.channels is not None or labels.dtype.kind not in "iu":
        raise BadInput(f"{labels.path}: {labels.dtype} {labels.shape}, expected integer labels without channels")
    settings = {_RULE: rule.model_dump(mode="json"), _LABELS_CHECKSUM: checksum(container / LABELS)}
    made = not _is_there(container, labels, settings)
    if made:
        try:
            _write(container, labels, rule, settings)
        except PermissionError:
            raise BadInput(
                f"{container}: cannot be written; masks are written into the volume: take a copy of it"
            ) from None
    if made or not masks_path(container).exists():
        write_json(masks_path(container), provenance(settings | {"kept": not made}, {"labels": container / LABELS}))
    return made


def _is_there(container: Path, labels: Volume, settings: dict[str, Any]) -> bool:
    """Whether there is a mask to keep: one by the same rule from the same labels, or somebody else's that fits."""
    if not (container / MASK).is_dir():
        return False
    mask = open_volume(container / MASK)
    if _RULE in mask.array.attrs:
        return {key: mask.array.attrs.get(key) for key in settings} == settings
    if mask.roi != labels.roi or mask.voxel_size != labels.voxel_size or mask.dtype not in (np.uint8, np.bool_):
        raise BadInput(
            f"{mask.path}: {mask.dtype} over {mask.roi} nm does not fit the labels, which cover {labels.roi} nm; "
            "remove it to have it made anew"
        )
    return True


def _write(container: Path, labels: Volume, rule: MaskRule, settings: dict[str, Any]) -> None:
    check_finished(container)
    block = getattr(labels.array, "shards", None) or labels.array.chunks
    mask = create_volume(
        container / _UNFINISHED,
        labels.shape,
        np.uint8,
        labels.voxel_size,
        labels.offset,
        chunks=block,
        zarr_format=labels.array.metadata.zarr_format,
        **settings,
    )
    blocks = list(_blocks(labels.shape, block))
    for where in progress(blocks, what=f"mask of {container.name}"):
        mask.array[where] = mask_of(labels.array[where], rule)
    remove(container / MASK)
    (container / _UNFINISHED).rename(container / MASK)
    _refresh_listing(container)


def _blocks(shape: tuple[int, ...], block: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    steps = [range(0, length, step) for length, step in zip(shape, block, strict=True)]
    for corner in itertools.product(*steps):
        yield tuple(slice(low, low + step) for low, step in zip(corner, block, strict=True))


def _refresh_listing(container: Path) -> None:
    """Where the container keeps one listing of all its arrays, readers see only what is in there."""
    if zarr.open_group(container, mode="r").metadata.consolidated_metadata is not None:
        zarr.consolidate_metadata(container)
