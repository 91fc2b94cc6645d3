"""Where each voxel of a sample comes from: the geometric augmentations composed into one map.

    sample voxel p  --turn-->  q  --matrix, offset, lattice, slides-->  place in the volume

    place = matrix q + offset + displacement(q) + slide(section of q)

Every step maps backwards, from what it gives to what it takes, so that steps compose by substitution and the volume is
read once, however many steps there are. Mirrored and transposed axes that come last are kept apart as `turn`: they only
permute the result. The displacement is linear in its control vectors, so that an affine step upstream of it acts on the
vectors alone: matrix (q + displacement(q)) is matrix q plus the displacement of the vectors times matrix. That is why a
rotation, a mirroring and a jitter, each a resampling of its own in gunpowder, are one here, without the repeated blur.

All coordinates are voxels, z y x, relative to the first voxel of the output; boxes are `Roi`s in voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from funlib.geometry import Roi

from emsuite.augment.sampling_grid import SamplingGrid, sampling_grid


@dataclass(frozen=True)
class ControlPointField:
    """A smooth displacement: control vectors, and per axis the weights that spread them over a box."""

    vectors: np.ndarray
    """(3, Kz, Ky, Kx) float32, voxels."""
    weights: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Per axis (voxels of the box, control points) float32."""
    box: Roi


@dataclass(frozen=True)
class SectionShifts:
    """A displacement of whole sections."""

    vectors: np.ndarray
    """(sections, 3) float32, voxels."""
    first: int
    """Section of the first vector."""


@dataclass(frozen=True)
class Step:
    """One geometric augmentation, as drawn: place = matrix q + offset + displacement(q) + slide(section of q)."""

    matrix: np.ndarray
    """(3, 3) float64."""
    offset: np.ndarray
    """(3,) float64, voxels."""
    lattice: ControlPointField | None = None
    slides: SectionShifts | None = None

    @property
    def turns(self) -> bool:
        """Whether voxels fall on voxels: axes are mirrored, transposed and moved by whole voxels, if at all."""
        whole = np.array_equal(self.matrix, np.rint(self.matrix)) and np.array_equal(self.offset, np.rint(self.offset))
        return whole and self.lattice is None and self.slides is None

    def bounds(self, box: Roi) -> tuple[np.ndarray, np.ndarray]:
        """Between which coordinates the places of `box` lie, voxels; (3,) each."""
        first = np.array(box.begin)
        ends = np.stack([first, first + box.shape - 1])
        spans = self.matrix[None] * ends[:, None]
        low, high = spans.min(axis=0).sum(axis=1) + self.offset, spans.max(axis=0).sum(axis=1) + self.offset
        if self.lattice:
            shares = [np.abs(weights).sum(axis=1).max() for weights in self.lattice.weights]
            reach = np.abs(self.lattice.vectors).max(axis=(1, 2, 3)) * np.prod(shares)
            low, high = low - reach, high + reach
        if self.slides:
            first = box.begin[0] - self.slides.first
            used = self.slides.vectors[first : first + box.shape[0]]
            low, high = low + used.min(axis=0), high + used.max(axis=0)
        return low, high

    def axes(self, box: Roi, place: Sequence[int]) -> list[np.ndarray]:
        """What each axis of `box` adds to a place, but for the displacement: (3, n) float64 each."""
        voxels = [begin + np.arange(size, dtype=np.float64) for begin, size in zip(box.begin, box.shape, strict=True)]
        added = [self.matrix[:, axis, None] * along for axis, along in enumerate(voxels)]
        added[0] += (self.offset + np.array(place))[:, None]
        if self.slides:
            first = box.begin[0] - self.slides.first
            added[0] += self.slides.vectors[first : first + box.shape[0]].T
        return added


@dataclass(frozen=True)
class AxisPermutation:
    """A permutation of voxels: q = matrix p + offset, every row of the matrix with one entry, 1 or -1."""

    matrix: np.ndarray = field(default_factory=lambda: np.eye(3))
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def image(self, box: Roi) -> Roi:
        """The box of all q of the p in `box`."""
        begin, shape = np.rint(self.offset).astype(int).tolist(), [0, 0, 0]
        for p, (q, mirrored) in enumerate(zip(*self.axes, strict=True)):
            begin[q] += 1 - box.end[p] if mirrored else box.begin[p]
            shape[q] = box.shape[p]
        return Roi(begin, shape)

    @cached_property
    def axes(self) -> tuple[list[int], list[bool]]:
        """For each axis of p, the axis of q that it runs along, and whether it does so backwards."""
        order = [int(axis) for axis in np.abs(self.matrix).argmax(axis=0)]
        return order, [bool(self.matrix[q, p] < 0) for p, q in enumerate(order)]

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        """Values over the image of a box as values over the box itself."""
        order, mirrored = self.axes
        return values.permute(order).flip([axis for axis in range(3) if mirrored[axis]])

    def after(self, step: Step) -> "AxisPermutation":
        """This turn, then the upstream `step`, which turns as well."""
        return AxisPermutation(step.matrix @ self.matrix, step.matrix @ self.offset + step.offset)


@dataclass(frozen=True)
class Warp:
    """The map of all steps together."""

    turn: AxisPermutation = field(default_factory=AxisPermutation)
    rest: Step | None = None
    """None where the turn is all there is."""

    def then(self, step: Step) -> "Warp":
        """This warp, then the `step` upstream of it. Upstream of a displacement, a step must be affine."""
        if self.rest is None:
            return Warp(self.turn.after(step)) if step.turns else Warp(self.turn, step)
        if step.lattice or step.slides:
            raise ValueError("a displacement upstream of another step cannot be composed")
        return Warp(self.turn, _affine_after(self.rest, step))

    def bounds(self, box: Roi) -> tuple[np.ndarray, np.ndarray]:
        """Begin and end, (3,) whole voxels each, of a box that holds the places of all q in `box` and the voxels on
        both sides of them; not the least such box."""
        if self.rest is None:
            return np.array(box.begin), np.array(box.begin) + box.shape
        low, high = self.rest.bounds(box)
        # a hundredth of a voxel for rounding
        return np.floor(low - 0.01).astype(int), np.floor(high + 0.01).astype(int) + 2

    def places(self, box: Roi, place: Sequence[int], device: torch.device) -> SamplingGrid:
        """The places of the p in `box`, on `device`; they count from the voxel that lies at -`place`."""
        if self.rest is None:
            raise ValueError("a turn alone needs no places")
        image, lattice = self.turn.image(box), self.rest.lattice
        added = self.rest.axes(image, place)
        vectors, weights = np.zeros((3, 1, 1, 1)), [np.zeros((size, 1)) for size in image.shape]
        if lattice:
            first = image.begin - lattice.box.begin
            parts = zip(lattice.weights, first, image.shape, strict=True)
            vectors, weights = lattice.vectors, [matrix[begin : begin + size] for matrix, begin, size in parts]
        order, mirrored = self.turn.axes
        turned = [(added[q][:, ::-1], weights[q][::-1]) if flip else (added[q], weights[q])
                  for q, flip in zip(order, mirrored, strict=True)]  # fmt: skip
        vectors = vectors.transpose(0, *(q + 1 for q in order))
        return sampling_grid([along for along, _ in turned], vectors, [spread for _, spread in turned], device)


def _affine_after(first: Step, then: Step) -> Step:
    lattice, slides = first.lattice, first.slides
    if lattice:
        turned = np.tensordot(then.matrix, lattice.vectors, axes=1).astype(np.float32)
        lattice = replace(lattice, vectors=turned)
    if slides:
        slides = replace(slides, vectors=(slides.vectors @ then.matrix.T).astype(np.float32))
    return Step(then.matrix @ first.matrix, then.matrix @ first.offset + then.offset, lattice, slides)
