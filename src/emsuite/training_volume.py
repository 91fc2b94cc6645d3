"""A volume to train on, resident in memory: raw, labels and labels mask."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import fastremap
import h5py
import numpy as np
import torch
from funlib.geometry import Coordinate, Roi

from emsuite.errors import BadInput
from emsuite.volume import Volume, open_volume, split_path

RAW, LABELS, MASK = "volumes/raw", "volumes/labels/neuron_ids", "volumes/labels/labels_mask"


@dataclass(frozen=True)
class TrainingVolume:
    """Raw, labels and mask of one volume on one device, on the same voxel grid."""

    raw: torch.Tensor
    """(Z, Y, X) uint8, or float32 0 to 1."""
    labels: torch.Tensor
    """(Z, Y, X) int32, renumbered from 1; 0 is background."""
    mask: torch.Tensor
    """(Z, Y, X) uint8 {0, 1}, as `labels`."""
    voxel_size: Coordinate
    """nm, z y x."""
    raw_offset: Coordinate
    """Where raw begins, nm."""
    labels_offset: Coordinate
    """Where labels and mask begin, nm."""
    name: str
    """For messages: the path it was read from."""

    def to(self, device: torch.device | str) -> "TrainingVolume":
        """The same volume on `device`."""
        return replace(self, raw=self.raw.to(device), labels=self.labels.to(device), mask=self.mask.to(device))


def load_training_volume(path: str | Path, roi: Roi | None = None) -> TrainingVolume:
    """Read `volumes/raw`, `volumes/labels/neuron_ids` and, where there is one, `volumes/labels/labels_mask`.

    Labels are used inside `roi` (nm) and inside raw; raw is kept whole, as context. Raises BadInput for arrays that are
    missing or of the wrong type, that do not share their voxels, or that do not overlap.
    """
    path = Path(path)
    raw, labels = open_volume(path / RAW), open_volume(path / LABELS)
    mask = open_volume(path / MASK) if _holds_mask(path) else None
    _check_axes(raw, labels, *([mask] if mask else []))
    _check_types(raw, labels)
    used = labels.roi.intersect(raw.roi)
    if used.empty:
        raise BadInput(f"{path}: labels cover {labels.roi} nm and raw {raw.roi} nm, expected them to overlap")
    if roi is not None:
        used = used.intersect(roi)
        if used.empty:
            raise BadInput(f"{path}: labels cover {labels.roi} nm, nothing of {roi}, the ROI to train in")
    numbers = _read_labels(labels, used)
    return TrainingVolume(
        raw=_read_raw(raw),
        labels=numbers,
        mask=_read_mask(mask, used) if mask else torch.ones_like(numbers, dtype=torch.uint8),
        voxel_size=raw.voxel_size,
        raw_offset=raw.offset,
        labels_offset=used.offset,
        name=str(path),
    )


def on_device(volumes: Sequence[TrainingVolume], device: torch.device) -> list[TrainingVolume]:
    """The volumes on `device`, or, if they would take more than a quarter of a GPU's free memory, where they are."""
    if device.type != "cuda":
        return list(volumes)
    tensors = [tensor for volume in volumes for tensor in (volume.raw, volume.labels, volume.mask)]
    if sum(tensor.nbytes for tensor in tensors) > torch.cuda.mem_get_info(device)[0] // 4:
        return list(volumes)
    return [volume.to(device) for volume in volumes]


def _holds_mask(path: Path) -> bool:
    container, name = split_path(path / MASK)
    if container.is_dir():
        return (container / name).exists()
    with h5py.File(container) as file:
        return name in file


def _check_axes(*volumes: Volume) -> None:
    first = volumes[0]
    for volume in volumes:
        if volume.voxel_size.dims != 3 or volume.channels is not None:
            raise BadInput(f"{volume.path}: has {len(volume.shape)} axes {volume.shape}, expected 3: z, y, x")
        if volume.voxel_size != first.voxel_size:
            raise BadInput(
                f"{volume.path}: voxels of {tuple(volume.voxel_size)} nm, expected raw's, {tuple(first.voxel_size)} nm"
            )
        if (volume.offset - first.offset) % first.voxel_size != first.voxel_size * 0:
            raise BadInput(
                f"{volume.path}: begins at {tuple(volume.offset)} nm, which is not whole voxels from raw's "
                f"{tuple(first.offset)}"
            )


def _check_types(raw: Volume, labels: Volume) -> None:
    if raw.dtype != np.uint8 and raw.dtype.kind != "f":
        raise BadInput(f"{raw.path}: holds {raw.dtype}, expected uint8, or floats from 0 to 1")
    if labels.dtype.kind not in "ui":
        raise BadInput(f"{labels.path}: holds {labels.dtype}, expected integers, one per neuron")


def _read_raw(raw: Volume) -> torch.Tensor:
    voxels = np.ascontiguousarray(raw.read())
    if voxels.dtype == np.uint8:
        return torch.from_numpy(voxels)
    if np.isnan(voxels).any():
        raise BadInput(f"{raw.path}: holds NaN, in {int(np.isnan(voxels).sum())} voxels, expected numbers from 0 to 1")
    if voxels.min() < 0 or voxels.max() > 1:
        raise BadInput(f"{raw.path}: floats from {voxels.min():g} to {voxels.max():g}, expected 0 to 1")
    return torch.from_numpy(voxels.astype(np.float32))


def _read_mask(mask: Volume, used: Roi) -> torch.Tensor:
    if not mask.roi.contains(used):
        raise BadInput(f"{mask.path}: covers {mask.roi} nm, expected it to cover the labels, {used} nm")
    return torch.from_numpy((mask.read(used) != 0).astype(np.uint8))


def _read_labels(labels: Volume, used: Roi) -> torch.Tensor:
    voxels = np.ascontiguousarray(labels.read(used))
    if voxels.dtype.kind == "i" and voxels.min() < 0:
        raise BadInput(f"{labels.path}: holds the label {voxels.min()}, expected 0 for background and labels above")
    renumbered, _ = fastremap.renumber(voxels, in_place=True)
    return torch.from_numpy(renumbered.astype(np.int32))
