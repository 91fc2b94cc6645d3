"""A training volume: raw, labels and labels mask, in memory or read from disk piece by piece as samples need them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import fastremap
import numpy as np
import torch

from emsuite.augment.resample import Source
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi
from emsuite.common.outputs import check_whole
from emsuite.data.grey_values import TYPES, GreyRange, in_grey_range, is_grey
from emsuite.data.labels_mask import MaskRule, check_mask_of, mask_of
from emsuite.data.normalization import Normalization
from emsuite.data.raw import SAYS_RANGE
from emsuite.io.values import check_not_empty, in_unit_range
from emsuite.io.volume import LABELS, MASK, RAW, Volume, holds_array, open_volume

NO_RULE = MaskRule()
DTYPE = Normalization()
_SLAB = 16  # sections of labels that are read together to find one


@dataclass(frozen=True)
class TrainingVolume:
    """Raw, labels and labels mask of one volume, on one device and on one voxel grid."""

    raw: Source
    """(Z, Y, X) uint8, or float32 0 to 1."""
    labels: Source | None
    """(Z, Y, X) int32, renumbered from 1; when labels are streamed from disk, each crop is renumbered independently.
    0 is background. None for a volume without labels, as in a domain that images are only translated to."""
    mask: Source | None
    """(Z, Y, X) uint8 {0, 1}, as `labels`; `Ones` where the mask is 1 throughout."""
    voxel_size: Coordinate
    """nm, z y x."""
    raw_offset: Coordinate
    """Where raw begins, nm."""
    labels_offset: Coordinate
    """Where labels and mask begin, nm; where raw begins in a volume without labels."""
    name: str
    """The path of the volume, for messages."""
    grey_range: GreyRange | None = None
    """The range of grey values that was measured on all training volumes, if raw is read in it."""

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The arrays that take memory; none if they are read from disk."""
        return [source for source in (self.raw, self.labels, self.mask) if isinstance(source, torch.Tensor)]

    @property
    def paths(self) -> Sequence[str]:
        """The files that it was read from, for provenance."""
        return (self.name,)

    def has_labels(self) -> bool:
        """Return whether any voxel has a label above 0 and is masked in; reads no farther than the first of them."""
        if self.labels is None or self.mask is None:
            return False
        labels, mask = self.labels, self.mask
        slabs = (np.s_[z : z + _SLAB, :, :] for z in range(0, labels.shape[0], _SLAB))
        return any(bool(((labels[slab] != 0) & (mask[slab] != 0).to(labels.device)).any()) for slab in slabs)

    def to(self, device: torch.device | str) -> "TrainingVolume":
        """Return the volume on `device`; a volume on disk stays there."""
        if not self.tensors:
            return self
        raw, labels, mask = (_moved(source, device) for source in (self.raw, self.labels, self.mask))
        assert raw is not None
        return replace(self, raw=raw, labels=labels, mask=mask)


def load_unlabelled_volume(
    path: str | Path, stream: bool = False, normalization: Normalization = DTYPE, measured: GreyRange | None = None
) -> TrainingVolume:
    """Read `volumes/raw` alone, into memory or, if `stream`, as samples need it; raise BadInput for a wrong type."""
    stored = open_volume(Path(path) / RAW)
    _check_axes(stored)
    check_grey(stored)
    raw = in_grey_range(stored, normalization, measured)
    source = raw_source(raw)
    voxels = source if stream else source[:, :, :]
    return TrainingVolume(voxels, None, None, raw.voxel_size, raw.offset, raw.offset, str(path), measured)


def load_training_volume(
    path: str | Path,
    roi: Roi | None = None,
    stream: bool = False,
    rule: MaskRule = NO_RULE,
    normalization: Normalization = DTYPE,
    measured: GreyRange | None = None,
) -> TrainingVolume:
    """Read `volumes/raw`, `volumes/labels/neuron_ids` and, if it exists, `volumes/labels/labels_mask`.

    Args:
        path: the container.
        roi: use the labels inside this region (nm) and inside raw; None: all labels. Raw is kept whole, as context.
        stream: leave the arrays on disk and read pieces as samples need them.
        rule: labels that are no ground truth. They become background, and make the mask of a volume without one.
        normalization: says which grey values become 0 and 1, see `in_grey_range`.
        measured: the range for `percentiles`.

    Raises:
        BadInput: an array is missing, has lost files or a wrong type, or arrays differ in voxels or do not overlap.
    """
    path = Path(path)
    check_whole(path, is_edited=True)
    raw, labels = open_volume(path / RAW), open_volume(path / LABELS)
    mask = open_volume(path / MASK) if holds_array(path / MASK) else None
    _check_axes(raw, labels, *([mask] if mask else []))
    _check_types(raw, labels)
    raw = in_grey_range(raw, normalization, measured)
    used = _used(path, raw, labels, roi)
    if mask:
        check_mask_of(mask, used)
    labelled = labels_source(labels, used, rule, mask)
    sources: list[Source] = [raw_source(raw, mask), labelled]
    if mask:
        sources.append(StoredVoxels(mask, used, as_mask, torch.uint8))
    elif rule.unlabelled:
        sources.append(StoredVoxels(labels, used, partial(_mask_by_rule, rule=rule), torch.uint8))
    if not stream:
        sources = [source[:, :, :] for source in sources]
    raw_voxels, label_voxels, *masks = sources
    mask_voxels = masks[0] if masks and not is_full(masks[0]) else Ones(labelled.shape)
    return TrainingVolume(
        raw_voxels, label_voxels, mask_voxels, raw.voxel_size, raw.offset, used.offset, str(path), measured
    )


def _moved(source: Source | None, device: torch.device | str) -> Source | None:
    return source.to(device) if isinstance(source, torch.Tensor | Ones) else source


def raw_source(raw: Volume, mask: Volume | None = None) -> "StoredVoxels":
    """Return raw on disk as a source of uint8, or of float32 in [0, 1]: 0 where it is no number and masked out."""
    return StoredVoxels(raw, raw.roi, _raw, torch.uint8 if raw.dtype == np.uint8 else torch.float32, mask)


def labels_source(labels: Volume, roi: Roi, rule: MaskRule = NO_RULE, mask: Volume | None = None) -> "StoredVoxels":
    """Return the labels on disk inside `roi` (nm) as a source of int32, renumbered from 1 in each piece."""
    return StoredVoxels(labels, roi, partial(_labels, rule=rule), torch.int32, mask)


def memory_needed(path: str | Path, roi: Roi | None = None, normalization: Normalization = DTYPE) -> int:
    """Return the bytes that reading a volume takes in memory at most."""
    raw, labels = open_volume(Path(path) / RAW), open_volume(Path(path) / LABELS)
    used = labels.roi if roi is None else labels.roi.intersect(roi)
    grey = raw.dtype.itemsize + 4  # what is stored, and float32
    if raw.dtype.kind in "ui" and raw.dtype.itemsize > 2:
        grey += 8  # float64 on the way
    if raw.dtype == np.uint8 and normalization.grey_range == "dtype":
        grey = 1
    labelled = math.prod(used.shape / labels.voxel_size)
    return math.prod(raw.shape) * grey + labelled * (labels.dtype.itemsize + 5)  # an int32 and the mask


def on_device(volumes: Sequence[TrainingVolume], device: torch.device) -> list[TrainingVolume]:
    """Return the volumes on `device`; they stay on the host if they need over a quarter of the GPU's free memory."""
    if device.type != "cuda":
        return list(volumes)
    if sum(tensor.nbytes for volume in volumes for tensor in volume.tensors) > torch.cuda.mem_get_info(device)[0] // 4:
        return list(volumes)
    return [volume.to(device) for volume in volumes]


def _check_axes(*volumes: Volume) -> None:
    first = volumes[0]
    for volume in volumes:
        check_not_empty(volume)
        if volume.voxel_size.dims != 3 or volume.channels is not None:
            raise BadInput(f"{volume.path}: has {len(volume.shape)} axes {volume.shape}, expected 3: z, y, x")
        if volume.voxel_size != first.voxel_size:
            raise BadInput(f"{volume.path}: voxels of {volume.voxel_size} nm, expected raw's, {first.voxel_size} nm")
        if (volume.offset - first.offset) % first.voxel_size != first.voxel_size * 0:
            raise BadInput(
                f"{volume.path}: begins at {volume.offset} nm, which is not whole voxels from raw's {first.offset}"
            )


def check_grey(raw: Volume) -> None:
    """Raise BadInput unless the voxels can be grey values."""
    if not is_grey(raw.dtype):
        raise BadInput(f"{raw.path}: holds {raw.dtype}, expected {TYPES}")


def _check_types(raw: Volume, labels: Volume) -> None:
    check_grey(raw)
    if labels.dtype.kind not in "uib":
        raise BadInput(f"{labels.path}: holds {labels.dtype}, expected integers, one per neuron")


def _used(path: Path, raw: Volume, labels: Volume, roi: Roi | None) -> Roi:
    used = labels.roi.intersect(raw.roi)
    if used.empty:
        raise BadInput(f"{path}: labels cover {labels.roi} nm and raw {raw.roi} nm, expected them to overlap")
    if roi is not None:
        used = used.intersect(roi)
        if used.empty:
            raise BadInput(f"{path}: labels cover {labels.roi} nm, nothing of {roi}, the ROI to train in")
    return used


def is_full(mask: Source) -> bool:
    """Return whether a mask in memory is 1 throughout: such a one needs no memory and no reading."""
    return isinstance(mask, torch.Tensor) and bool(mask.all())


MaskedIn = Callable[[], np.ndarray]
"""Returns which of the voxels that were read count: booleans, or one True for all of them."""


def _raw(volume: Volume, voxels: np.ndarray, masked_in: MaskedIn) -> torch.Tensor:
    voxels = np.ascontiguousarray(voxels)
    if voxels.dtype == np.uint8:
        return torch.from_numpy(voxels)
    checked = in_unit_range(voxels)
    voxels = voxels if checked is None else checked
    if voxels.size and not (voxels.min() >= 0 and voxels.max() <= 1):
        odd = ~((voxels >= 0) & (voxels <= 1))
        _check_floats(volume, voxels[odd & masked_in()])
        voxels[odd] = 0  # as outside the volume
    return torch.from_numpy(voxels.astype(np.float32))


def _check_floats(volume: Volume, odd: np.ndarray) -> None:
    if nans := int(np.isnan(odd).sum()):
        raise BadInput(f"{volume.path}: holds NaN, in {nans} voxels, expected numbers from 0 to 1")
    if odd.size:
        low, high = min(odd.min(), 0), max(odd.max(), 1)
        raise BadInput(f"{volume.path}: floats from {low:g} to {high:g}, expected 0 to 1{SAYS_RANGE}")


def as_mask(_volume: Volume, voxels: np.ndarray, _masked_in: MaskedIn) -> torch.Tensor:
    """Return a mask as uint8 {0, 1}."""
    return torch.from_numpy((voxels != 0).astype(np.uint8))


def _mask_by_rule(_volume: Volume, voxels: np.ndarray, _masked_in: MaskedIn, rule: MaskRule) -> torch.Tensor:
    return torch.from_numpy(mask_of(voxels, rule))


def _labels(volume: Volume, voxels: np.ndarray, masked_in: MaskedIn, rule: MaskRule) -> torch.Tensor:
    voxels = np.ascontiguousarray(voxels)
    if rule.unlabelled:
        voxels = np.where(mask_of(voxels, rule), voxels, voxels.dtype.type(0))
    negative = voxels < 0 if voxels.dtype.kind == "i" else np.zeros(0, bool)
    if negative.any() and (negative & masked_in()).any():
        label = voxels[negative & masked_in()].min()
        raise BadInput(f"{volume.path}: holds the label {label}, expected 0 for background and labels above")
    renumbered, _ = fastremap.renumber(voxels.view(f"u{voxels.dtype.itemsize}"), in_place=True)
    return torch.from_numpy(renumbered.astype(np.int32))


CPU = torch.device("cpu")


@dataclass(frozen=True)
class StoredVoxels:
    """The part of an array on disk inside `roi`, which yields tensors as a tensor in memory would."""

    volume: Volume
    roi: Roi
    """nm."""
    convert: Callable[[Volume, np.ndarray, MaskedIn], torch.Tensor]
    """Checks the voxels that were read and returns a tensor of `dtype`; gets the volume for its messages."""
    dtype: torch.dtype
    mask: Volume | None = None
    """Voxels where it is 0, and those outside it, may hold anything. None: all voxels are checked."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels, z y x."""
        return tuple(self.roi.shape / self.volume.voxel_size)

    @property
    def device(self) -> torch.device:
        """The device of the tensors: the CPU."""
        return CPU

    def __getitem__(self, box: tuple[slice, ...]) -> torch.Tensor:
        """Read the voxels of a box."""
        ends = [part.indices(size)[:2] for part, size in zip(box, self.shape, strict=True)]
        begin, end = (Coordinate(side) * self.volume.voxel_size for side in zip(*ends, strict=True))
        region = Roi(self.roi.begin + begin, end - begin)
        return self.convert(self.volume, self.volume.read(region), lambda: self._masked_in(region))

    def _masked_in(self, region: Roi) -> np.ndarray:
        if self.mask is None:
            return np.array(True)
        masked_in = np.zeros(region.shape / self.volume.voxel_size, bool)
        if not (inside := region.intersect(self.mask.roi)).empty:
            begin, end = ((side - region.begin) / self.volume.voxel_size for side in (inside.begin, inside.end))
            index = tuple(slice(int(b), int(e)) for b, e in zip(begin, end, strict=True))
            masked_in[index] = self.mask.read(inside) != 0
        return masked_in


@dataclass(frozen=True)
class Ones:
    """A volume of ones that takes no memory."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.uint8
    device: torch.device = CPU

    def to(self, device: torch.device | str) -> "Ones":
        """Return the same on `device`."""
        return replace(self, device=torch.device(device))

    def __getitem__(self, box: tuple[slice, ...]) -> torch.Tensor:
        """Return the ones of a box: one element, expanded."""
        ends = [part.indices(size)[:2] for part, size in zip(box, self.shape, strict=True)]
        return torch.ones((), dtype=self.dtype, device=self.device).expand([end - begin for begin, end in ends])
