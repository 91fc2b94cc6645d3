"""The map from each voxel of a sample to the position that it is read from: all geometric augmentations, composed.

    sample voxel p  --permutation-->  q  --matrix, offset, displacement, section shifts-->  position r

    r = matrix q + offset + displacement(q) + shift(z-section of q)

Each step maps backwards, from its output to its input. So steps compose by substitution, and the volume is read once,
however many steps there are. Here "upstream" means nearer to the volume, "downstream" nearer to the sample.

Mirrored and transposed axes that come last are kept apart as `permutation`: they only permute the result. The
displacement is linear in its control vectors, so an affine step upstream acts on the vectors alone:
matrix (q + displacement(q)) equals matrix q plus the displacement whose vectors are multiplied by matrix. gunpowder
resamples once for a rotation, once for a mirroring and once for a jitter; here they are one resampling, which avoids
the repeated blur.

Frames. All coordinates are voxels, z y x, and every `Roi` is a box of voxels. Names of variables say the frame where
more than one meets:

    _sample_vx     p: from the first voxel of the sample's output region, as in `emsuite.data.sampler`
    _permuted_vx   q: the same origin, with the axes mirrored and transposed
    _source_vx     r, plus the position of the sample's voxel 0 in the array that is read: an index into the array.
                   For labels and mask it is the sampler's _label_vx, for raw its _raw_vx
    _piece_vx      an index into the piece of that array that was read
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from emsuite.augment.sampling_grid import SamplingGrid, make_sampling_grid
from emsuite.common.geometry import Roi


@dataclass(frozen=True)
class ControlPointField:
    """A smooth displacement: control vectors, and per axis the weights that spread them over a box."""

    vectors: np.ndarray
    """(3, Kz, Ky, Kx) float32, voxels."""
    weights: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Per axis (voxels of the box, control points) float32."""
    box: Roi
    """The box that the weights cover."""
    sum_of_weights: float | None = None
    """The largest sum of all weights of a voxel, if it is known, see `largest_sum`."""

    @cached_property
    def reach(self) -> np.ndarray:
        """The largest displacement along each axis that the vectors can make, (3,) voxels."""
        largest = largest_sum(self.weights) if self.sum_of_weights is None else self.sum_of_weights
        return np.abs(self.vectors).max(axis=(1, 2, 3)) * largest


def largest_sum(weights: Sequence[np.ndarray]) -> float:
    """Return the largest sum of the magnitudes of all weights of a voxel, from the weights of each axis."""
    return np.prod([np.abs(along).sum(axis=1).max() for along in weights])


@dataclass(frozen=True)
class SectionShifts:
    """A displacement of whole sections."""

    vectors: np.ndarray
    """(sections, 3) float32, voxels."""
    first_section: int
    """The z of the first vector."""

    def of_box(self, box: Roi) -> np.ndarray:
        """Return the vectors of the sections of `box`, (sections, 3)."""
        first = box.begin[0] - self.first_section
        return self.vectors[first : first + box.shape[0]]


@dataclass(frozen=True)
class WarpStep:
    """One drawn geometric augmentation: r = matrix q + offset + displacement(q) + shift(z-section of q)."""

    matrix: np.ndarray
    """(3, 3) float64."""
    offset: np.ndarray
    """(3,) float64, voxels."""
    displacement: ControlPointField | None = None
    section_shifts: SectionShifts | None = None

    @property
    def only_permutes_axes(self) -> bool:
        """Whether the step maps voxels onto voxels: it mirrors, transposes and moves by whole voxels at most."""
        whole = np.array_equal(self.matrix, np.rint(self.matrix)) and np.array_equal(self.offset, np.rint(self.offset))
        return whole and self.displacement is None and self.section_shifts is None

    def bounds(self, box: Roi) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and the highest coordinates that the voxels of `box` can be read from, (3,) each."""
        begin = np.array(box.begin)
        corners = np.stack([begin, begin + box.shape - 1])
        terms = self.matrix[None] * corners[:, None]
        low, high = terms.min(axis=0).sum(axis=1) + self.offset, terms.max(axis=0).sum(axis=1) + self.offset
        if self.displacement:
            low, high = low - self.displacement.reach, high + self.displacement.reach
        if self.section_shifts:
            shifts = self.section_shifts.of_box(box)
            low, high = low + shifts.min(axis=0), high + shifts.max(axis=0)
        return low, high

    def axis_terms(self, box: Roi, origin: Sequence[int]) -> list[np.ndarray]:
        """Return the term that each axis of `box` adds to a coordinate, without the displacement: (3, n) float64 each.

        `origin` is added to all coordinates.
        """
        voxels = [begin + np.arange(size, dtype=np.float64) for begin, size in zip(box.begin, box.shape, strict=True)]
        terms = [self.matrix[:, axis, None] * along for axis, along in enumerate(voxels)]
        terms[0] += (self.offset + np.array(origin))[:, None]
        if self.section_shifts:
            terms[0] += self.section_shifts.of_box(box).T
        return terms


@dataclass(frozen=True)
class AxisPermutation:
    """A permutation of voxels: q = matrix p + offset. Every row of the matrix has one entry, 1 or -1."""

    matrix: np.ndarray = field(default_factory=lambda: np.eye(3))
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def image(self, box_sample_vx: Roi) -> Roi:
        """Return the box of all q of the p in a box."""
        begin, shape = self._offset_vx.copy(), [0, 0, 0]
        for first, size, q, mirrored in zip(box_sample_vx.begin, box_sample_vx.shape, *self.axes, strict=True):
            begin[q] += 1 - first - size if mirrored else first
            shape[q] = size
        return Roi(begin, shape)

    @cached_property
    def _offset_vx(self) -> list[int]:
        return np.rint(self.offset).astype(int).tolist()

    @cached_property
    def axes(self) -> tuple[list[int], list[bool]]:
        """For each axis of p, the axis of q that it runs along, and whether it runs backwards."""
        order = [int(axis) for axis in np.abs(self.matrix).argmax(axis=0)]
        return order, [bool(self.matrix[q, p] < 0) for p, q in enumerate(order)]

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        """Turn `values` over the image of a box into values over the box itself."""
        order, mirrored = self.axes
        return values.permute(order).flip([axis for axis in range(3) if mirrored[axis]])

    def with_upstream(self, step: WarpStep) -> "AxisPermutation":
        """Return this permutation composed with an upstream `step` that only permutes axes, too."""
        return AxisPermutation(step.matrix @ self.matrix, step.matrix @ self.offset + step.offset)


@dataclass(frozen=True)
class Warp:
    """The map of all steps together: `permutation`, then `resampling`."""

    permutation: AxisPermutation = field(default_factory=AxisPermutation)
    resampling: WarpStep | None = None
    """None if the permutation is the whole map; then the volume is read without interpolation."""

    def with_upstream(self, step: WarpStep) -> "Warp":
        """Return this warp composed with an upstream `step`, which must be affine if the warp resamples already."""
        if self.resampling is None:
            if step.only_permutes_axes:
                return Warp(self.permutation.with_upstream(step))
            return Warp(self.permutation, step)
        if step.displacement or step.section_shifts:
            raise ValueError("a displacement upstream of another step cannot be composed")
        return Warp(self.permutation, _with_affine_upstream(self.resampling, step))

    def bounds(self, box_permuted_vx: Roi) -> tuple[np.ndarray, np.ndarray]:
        """Return begin and end, (3,) whole voxels each, of a box that holds every voxel that interpolation reads.

        The box is not the smallest one. It counts from the sample's voxel 0.
        """
        if self.resampling is None:
            return np.array(box_permuted_vx.begin), np.array(box_permuted_vx.begin) + box_permuted_vx.shape
        low, high = self.resampling.bounds(box_permuted_vx)
        # a hundredth of a voxel for rounding
        return np.floor(low - 0.01).astype(int), np.floor(high + 0.01).astype(int) + 2

    def sampling_grid(self, box_sample_vx: Roi, origin_piece_vx: Sequence[int], device: torch.device) -> SamplingGrid:
        """Return the sampling coordinates of every voxel of a box, in voxels of the piece that was read.

        Args:
            box_sample_vx: the voxels to be read.
            origin_piece_vx: the position of the sample's voxel 0 in the piece.
            device: the device that the piece is on.
        """
        if self.resampling is None:
            raise ValueError("a permutation alone needs no sampling grid")
        box_permuted_vx, displacement = self.permutation.image(box_sample_vx), self.resampling.displacement
        terms = self.resampling.axis_terms(box_permuted_vx, origin_piece_vx)
        vectors, weights = np.zeros((3, 1, 1, 1)), [np.zeros((size, 1)) for size in box_permuted_vx.shape]
        if displacement:
            first = box_permuted_vx.begin - displacement.box.begin
            parts = zip(displacement.weights, first, box_permuted_vx.shape, strict=True)
            vectors, weights = displacement.vectors, [matrix[begin : begin + size] for matrix, begin, size in parts]
        order, mirrored = self.permutation.axes
        permuted = [(terms[q][:, ::-1], weights[q][::-1]) if flip else (terms[q], weights[q])
                    for q, flip in zip(order, mirrored, strict=True)]  # fmt: skip
        vectors = vectors.transpose(0, *(q + 1 for q in order))
        return make_sampling_grid([term for term, _ in permuted], vectors, [matrix for _, matrix in permuted], device)


def _with_affine_upstream(step: WarpStep, upstream: WarpStep) -> WarpStep:
    displacement, section_shifts = step.displacement, step.section_shifts
    if displacement:
        vectors = np.tensordot(upstream.matrix, displacement.vectors, axes=1).astype(np.float32)
        displacement = replace(displacement, vectors=vectors)
    if section_shifts:
        vectors = (section_shifts.vectors @ upstream.matrix.T).astype(np.float32)
        section_shifts = replace(section_shifts, vectors=vectors)
    offset = upstream.matrix @ step.offset + upstream.offset
    return WarpStep(upstream.matrix @ step.matrix, offset, displacement, section_shifts)
