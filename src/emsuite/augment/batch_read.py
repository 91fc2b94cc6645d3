"""Reading all samples of a batch from volumes in a GPU's memory, in a handful of kernels and one copy of parameters.

The host writes what each sample needs into one table: where its volume lies, the terms of its sampling coordinates,
its control vectors and their weights. The kernels of `interpolate_triton` do the rest. Values are those of
`emsuite.augment.resample`, up to the order of sums.

A row of the table describes one box of one sample, in the axes z, y, x of the sample, mirrored and transposed axes
included: they are steps of other lengths and signs in the same arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from emsuite.augment.warp import Warp, WarpStep
from emsuite.common.geometry import Roi

WORDS = 32
"""Words of a row."""
_STILL = WarpStep(np.eye(3), np.zeros(3))


class Word(IntEnum):
    """The first word of each part of a row. Places of arrays count float32 from the first array."""

    SOURCE = 0
    """Address of the first voxel of the piece that is read."""
    MASK = 1
    """The same in the mask; 0 where the mask is 1 throughout."""
    SHAPE = 2
    """Voxels of the piece, z y x. What lies outside is 0."""
    STRIDES = 5
    """Distance between its voxels, in elements, along z y x."""
    MASK_STRIDES = 8
    """The same in the mask."""
    IS_BYTES = 11
    """1: uint8, 0: float32."""
    TERMS = 12
    """Place of the axis terms: (3, Z), (3, Y), (3, X)."""
    POINTS = 13
    """Control points along y, for each component of the coordinates; 0 for one that is not displaced."""
    COUNTS = 16
    """Control points along z, y and x."""
    VECTORS = 19
    """Place of the control vectors."""
    STEPS = 20
    """Distance between them along the components, z, y and x."""
    WEIGHTS = 24
    """Places of the weights of the first voxel along z, y and x. Those of one voxel follow each other."""
    WEIGHT_STEPS = 27
    """Distances between the weights of neighbouring voxels along z, y and x."""


@dataclass(frozen=True)
class Placed:
    """One sample: its volume, and where in it the sample lies."""

    raw: Tensor
    """(Z, Y, X) uint8, or float32 0 to 1."""
    labels: Tensor | None
    """(Z, Y, X) int32."""
    mask: Tensor | None
    """(Z, Y, X) uint8; None: 1 throughout."""
    warp: Warp
    origin_raw_vx: Sequence[int]
    """The voxel of `raw` at the sample's voxel 0."""
    origin_label_vx: Sequence[int]
    """The voxel of `labels` at the sample's voxel 0."""


@dataclass
class _Table:
    rows: list[list[int]] = field(default_factory=list)
    arrays: list[np.ndarray] = field(default_factory=list)
    filled: int = 0

    def add(self, array: np.ndarray) -> int:
        """Add an array, and return its place."""
        self.arrays.append(array.ravel())
        self.filled += array.size
        return self.filled - array.size

    def on(self, device: torch.device) -> Tensor:
        """Return rows and arrays on a device, in one copy."""
        words = len(self.rows) * WORDS
        memory = torch.empty(words + -(-self.filled // 2), dtype=torch.int64, pin_memory=device.type == "cuda")
        numbers = memory.numpy()
        numbers[:words] = np.array(self.rows).ravel()
        np.concatenate(self.arrays, out=numbers[words:].view(np.float32)[: self.filled], casting="same_kind")
        return memory.to(device, non_blocking=True)


@cache
def can_read_batches(device: torch.device) -> bool:
    """Return whether batches can be read at once on this device: a GPU, with triton."""
    return device.type == "cuda" and find_spec("triton") is not None


def read_batch(
    samples: Sequence[Placed], input_sample_vx: Roi, labels_sample_vx: Roi, device: torch.device
) -> dict[str, Tensor]:
    """Read all samples of a batch through their warps.

    Args:
        samples: all with labels, or all without.
        input_sample_vx: the voxels of raw to be read.
        labels_sample_vx: the voxels of labels and mask to be read.
        device: that of the volumes.

    Returns:
        `raw` (B, Z, Y, X) float32 0 to 1; if there are labels, `labels` (B, Z, Y, X) int32 and `mask` (B, Z, Y, X)
        uint8. Voxels outside a volume are 0.
    """
    from emsuite.augment import interpolate_triton as kernels

    table, number = _Table(), len(samples)
    displacements = [_displacement(table, sample.warp) for sample in samples]
    for sample, displaced in zip(samples, displacements, strict=True):
        _add_row(table, sample, input_sample_vx, (sample.raw, None), displaced)
    has_labels = samples[0].labels is not None
    for sample, displaced in zip(samples, displacements, strict=True) if has_labels else ():
        _add_row(table, sample, labels_sample_vx, (sample.labels, sample.mask), displaced)
    points = max(row[Word.POINTS + axis] for row in table.rows for axis in range(3))
    on_device, rows = table.on(device), len(table.rows)
    arrays = {"raw": _empty(number, input_sample_vx, torch.float32, device)}
    for is_bytes in sorted({sample.raw.dtype == torch.uint8 for sample in samples}):
        kernels.read_linear(on_device, rows, 0, points, is_bytes, arrays["raw"])
    if has_labels:
        arrays["labels"] = _empty(number, labels_sample_vx, torch.int32, device)
        arrays["mask"] = _empty(number, labels_sample_vx, torch.uint8, device)
        kernels.read_nearest(on_device, rows, number, points, arrays["labels"], arrays["mask"])
    return arrays


def _empty(number: int, box: Roi, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.empty((number, *box.shape), dtype=dtype, device=device)


def _displacement(table: _Table, warp: Warp) -> tuple[int, list[int]] | None:
    """Add the displacement of a sample, and return the places of its vectors and of its weights along z, y, x."""
    displacement = warp.resampling and warp.resampling.displacement
    if not displacement:
        return None
    return table.add(displacement.vectors), [table.add(weights) for weights in displacement.weights]


def _add_row(
    table: _Table,
    sample: Placed,
    box_sample_vx: Roi,
    sources: tuple[Tensor | None, Tensor | None],
    displaced: tuple[int, list[int]] | None,
) -> None:
    warp, (source, mask) = sample.warp, sources
    assert source is not None
    origin_source_vx = np.array(sample.origin_raw_vx if source is sample.raw else sample.origin_label_vx)
    box_permuted_vx = warp.permutation.image(box_sample_vx)
    begin_source_vx, end_source_vx = warp.bounds(box_permuted_vx) + origin_source_vx
    # the piece is the part of these bounds inside the volume
    low_source_vx = np.maximum(begin_source_vx, 0)
    shape = np.maximum(np.minimum(end_source_vx, source.shape) - low_source_vx, 0).tolist()
    first = low_source_vx.tolist()
    row = [_address(source, first, shape), 0 if mask is None else _address(mask, first, shape)]
    row += [*shape, *source.stride(), *((0, 0, 0) if mask is None else mask.stride()), source.dtype == torch.uint8]
    terms = (warp.resampling or _STILL).axis_terms(box_permuted_vx, origin_source_vx - low_source_vx)
    order, mirrored = warp.permutation.axes
    along = [terms[q][:, ::-1] if flip else terms[q] for q, flip in zip(order, mirrored, strict=True)]
    row.append(table.add(np.concatenate(along, axis=None)))
    row += [0] * (WORDS - len(row))
    if displaced:
        _displace(row, warp, box_permuted_vx, *displaced)
    table.rows.append(row)


def _displace(row: list[int], warp: Warp, box_permuted_vx: Roi, vectors: int, weights: list[int]) -> None:
    """Write the displacement of a box into its row; it begins within the box that the weights cover."""
    assert warp.resampling is not None
    displacement = warp.resampling.displacement
    assert displacement is not None
    counts = displacement.vectors.shape[1:]
    steps = (counts[1] * counts[2], counts[2], 1)
    order, mirrored = warp.permutation.axes
    row[Word.POINTS : Word.POINTS + 3] = [counts[order[1]] if reach else 0 for reach in displacement.reach]
    row[Word.COUNTS : Word.COUNTS + 3] = [counts[q] for q in order]
    row[Word.VECTORS : Word.VECTORS + 5] = [vectors, counts[0] * steps[0], *(steps[q] for q in order)]
    for axis, (q, flip) in enumerate(zip(order, mirrored, strict=True)):
        voxel = box_permuted_vx.begin[q] - displacement.box.begin[q]
        voxel += box_permuted_vx.shape[q] - 1 if flip else 0
        row[Word.WEIGHTS + axis] = weights[q] + voxel * counts[q]
        row[Word.WEIGHT_STEPS + axis] = -counts[q] if flip else counts[q]


def _address(source: Tensor, first: Sequence[int], shape: Sequence[int]) -> int:
    """Return the address of the voxel `first`, or 0 for a piece of no voxels, which is not read."""
    if not all(shape):
        return 0
    return source.data_ptr() + source.element_size() * sum(n * s for n, s in zip(first, source.stride(), strict=True))
