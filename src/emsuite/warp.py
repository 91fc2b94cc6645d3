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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from funlib.geometry import Coordinate, Roi

from emsuite.tensors import sent

# slabs of this many voxels stay in a CPU's cache from one operation to the next; a GPU takes the whole box
_SLAB_VOXELS = 1 << 18


@dataclass(frozen=True)
class Lattice:
    """A smooth displacement: control vectors, and per axis the weights that spread them over a box."""

    vectors: np.ndarray
    """(3, Kz, Ky, Kx) float32, voxels."""
    weights: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Per axis (voxels of the box, control points) float32."""
    box: Roi


@dataclass(frozen=True)
class Slides:
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
    lattice: Lattice | None = None
    slides: Slides | None = None

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


@dataclass(frozen=True)
class Turn:
    """A permutation of voxels: q = matrix p + offset, every row of the matrix with one entry, 1 or -1."""

    matrix: np.ndarray = field(default_factory=lambda: np.eye(3))
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def image(self, box: Roi) -> Roi:
        """The box of all q of the p in `box`."""
        first = np.array(box.begin)
        last = first + box.shape - 1
        corners = np.stack([self.matrix @ first, self.matrix @ last]) + self.offset
        low, high = corners.min(axis=0), corners.max(axis=0)
        return Roi(_whole(low), _whole(high - low + 1))

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        """Values over the image of a box as values over the box itself, a view."""
        order = [int(axis) for axis in np.abs(self.matrix).argmax(axis=0)]
        mirrored = [axis for axis in range(3) if self.matrix[order[axis], axis] < 0]
        return values.permute(order).flip(mirrored) if mirrored else values.permute(order)

    def after(self, step: Step) -> "Turn":
        """This turn, then the upstream `step`, which turns as well."""
        return Turn(step.matrix @ self.matrix, step.matrix @ self.offset + step.offset)


@dataclass(frozen=True)
class Warp:
    """The map of all steps together."""

    turn: Turn = field(default_factory=Turn)
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

    def slabs(self, box: Roi, place: Sequence[int], device: torch.device) -> Iterator[tuple[slice, torch.Tensor]]:
        """The places of the q in `box`, some sections at a time: (sections in the box, (3, sections, Y, X) float32).

        They count from the voxel that lies at -`place`.
        """
        if self.rest is None:
            raise ValueError("a turn alone needs no coordinates")
        sections = box.shape[0]
        if device.type == "cpu":
            sections = max(1, _SLAB_VOXELS // (box.shape[1] * box.shape[2]))
        places = _Places(self.rest, box, place, device)
        for begin in range(0, box.shape[0], sections):
            part = slice(begin, min(begin + sections, box.shape[0]))
            yield part, places.of(part)


def _affine_after(first: Step, then: Step) -> Step:
    lattice, slides = first.lattice, first.slides
    if lattice:
        turned = np.tensordot(then.matrix, lattice.vectors, axes=1).astype(np.float32)
        lattice = replace(lattice, vectors=turned)
    if slides:
        slides = replace(slides, vectors=(slides.vectors @ then.matrix.T).astype(np.float32))
    return Step(then.matrix @ first.matrix, then.matrix @ first.offset + then.offset, lattice, slides)


class _Places:
    """Evaluates a step over a box."""

    def __init__(self, step: Step, box: Roi, place: Sequence[int], device: torch.device):
        axes = [begin + np.arange(size, dtype=np.float64) for begin, size in zip(box.begin, box.shape, strict=True)]
        along_z = step.matrix[:, :1] * axes[0] + (step.offset + np.array(place))[:, None]
        if step.slides:
            first = box.begin[0] - step.slides.first
            along_z = along_z + step.slides.vectors[first : first + box.shape[0]].T
        planes = step.matrix[:, 1, None, None] * axes[1][:, None] + step.matrix[:, 2, None, None] * axes[2]
        self._along_z = sent(torch.from_numpy(along_z.astype(np.float32)), device)[:, :, None, None]
        self._planes = sent(torch.from_numpy(planes.astype(np.float32)), device)
        self._rows: dict[int, torch.Tensor] = {}
        if step.lattice:
            self._spread(step.lattice, box, device)

    def _spread(self, lattice: Lattice, box: Roi, device: torch.device) -> None:
        weights = []
        for axis, matrix in enumerate(lattice.weights):
            begin = box.begin[axis] - lattice.box.begin[axis]
            weights.append(sent(torch.from_numpy(matrix[begin : begin + box.shape[axis]]), device))
        z, self._y, x = weights
        self._x = x.T.contiguous()
        for axis, vectors in enumerate(lattice.vectors):
            if vectors.any():
                self._rows[axis] = torch.tensordot(z, sent(torch.from_numpy(vectors), device), dims=1)

    def of(self, part: slice) -> torch.Tensor:
        """(3, sections, Y, X) float32 of the sections in `part`."""
        places = self._along_z[:, part] + self._planes[:, None]
        for axis, rows in self._rows.items():
            places[axis] += torch.matmul(torch.matmul(self._y, rows[part]), self._x)
        return places


def _whole(numbers: np.ndarray) -> Coordinate:
    return Coordinate(int(number) for number in np.rint(numbers))
