"""Sizes along one axis on their way through a network, and how far the padding of its layers reaches in.

convolved(3, padding=1)            p|x x x x|p   ->    y y y y        the first and the last y depend on a p
transposed(4, stride=2, padding=1)    x x        ->    y y y y        the first and the last y lack an x
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Extent:
    """Voxels along one axis behind a layer."""

    size: int
    before: int = 0
    """How many of the first voxels would differ if the input went on beyond its border."""
    behind: int = 0
    """How many of the last ones would."""

    def convolved(self, kernel: int, stride: int = 1, padding: int = 0) -> "Extent":
        """Return the extent behind a convolution; `size` is 0 or less where the input is too small."""
        size = (self.size + 2 * padding - kernel) // stride + 1
        # voxel j reads `kernel` voxels from stride * j - padding on
        before = max(0, -(-(self.before + padding) // stride))
        right = (self.size - self.behind + padding - kernel) // stride + 1
        return Extent(size, before, max(0, size - right))

    def transposed(self, kernel: int, stride: int, padding: int, more: int = 0) -> "Extent":
        """Return the extent behind a transposed convolution, `more` voxels longer at its end (`output_padding`)."""
        size = (self.size - 1) * stride - 2 * padding + kernel + more
        # voxel o reads the inputs i with stride * i - padding <= o < stride * i - padding + kernel
        before = max(0, stride * (self.before - 1) + kernel - padding)
        right = stride * (self.size - self.behind) - padding
        return Extent(size, before, max(0, size - right))

    def repeated(self, factor: int) -> "Extent":
        """Return the extent behind a repetition of each voxel."""
        return Extent(self.size * factor, self.before * factor, self.behind * factor)

    def interpolated(self, factor: int) -> "Extent":
        """Return the extent behind an interpolation that keeps the first and the last voxel in their places."""
        return Extent((self.size - 1) * factor + 1, self.before * factor, self.behind * factor)

    def joined(self, skip: "Extent") -> "Extent":
        """Return the extent of these voxels with the centre of `skip`, which is as large or larger, beside them."""
        cut = (skip.size - self.size) // 2
        rest = skip.size - self.size - cut
        return Extent(self.size, max(self.before, skip.before - cut), max(self.behind, skip.behind - rest))
