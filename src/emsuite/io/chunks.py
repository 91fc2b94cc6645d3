"""The length of chunks: the voxels along an axis that are stored, compressed and read together."""

import math

CHUNK = 64
"""Voxels along each axis, unless an axis or the blocks that are written ask for another length."""


def chunk_length(n: int) -> int:
    """Return the length of chunks along an axis of `n` voxels: `CHUNK`, or `n` if the axis is shorter."""
    return min(CHUNK, max(1, n))


def dividing_chunk_length(n: int) -> int:
    """Return the divisor of `n` whose ratio to `CHUNK` is closest to 1.

    Blocks of `n` voxels then consist of whole chunks, so that no two blocks write into the same chunk.
    """
    divisors = (divisor for divisor in range(1, n + 1) if n % divisor == 0)
    return min(divisors, key=lambda divisor: abs(math.log(divisor / CHUNK)))
