"""The table that tells the kernels of a GPU what to read for each sample of a batch, written by the host.

A row describes one box of one sample: where its volume lies, the terms of its sampling coordinates, its control vectors
and their weights. Axes are z, y, x of the sample. Mirrored and transposed axes are steps of other lengths and signs in
the same arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

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
class Table:
    """The rows, and the arrays that they point into."""

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


def add_displacement(table: Table, warp: Warp) -> tuple[int, list[int]] | None:
    """Add the displacement of a sample; return the places of its vectors and weights (z, y, x), None without one."""
    displacement = warp.resampling and warp.resampling.displacement
    if not displacement:
        return None
    return table.add(displacement.vectors), [table.add(weights) for weights in displacement.weights]


def add_row(
    table: Table,
    sample: Placed,
    box_sample_vx: Roi,
    sources: tuple[Tensor | None, Tensor | None],
    displaced: tuple[int, list[int]] | None,
) -> None:
    """Add the row of one box of a sample.

    Args:
        table: gets the row and its axis terms.
        sample: where it lies.
        box_sample_vx: the voxels of the sample to be read.
        sources: what is read: raw and None, or labels and their mask.
        displaced: what `add_displacement` has returned for the sample.
    """
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
