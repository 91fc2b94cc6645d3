"""The loops of `balance`, compiled: one reading to count, one writing, where torch takes nine passes over floats."""

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def count(ones, inside):  # type: ignore[no-untyped-def]
    """How many entries are inside, (N) uint8 {0, 1} or None for all, and how many of these are not 0 in `ones` (N)."""
    total, positive = np.int64(0), np.int64(0)
    for i in range(ones.size):
        if inside is None:
            positive += ones[i] != 0
        else:
            total += inside[i]
            positive += (ones[i] != 0) & inside[i]
    return ones.size if inside is None else total, positive


@numba.njit(nogil=True, cache=True)
def weigh(ones, inside, weight_one, weight_zero, out):  # type: ignore[no-untyped-def]
    """The weight of each entry into `out` (N) float32, 0 outside."""
    for i in range(out.size):
        weight = weight_one if ones[i] != 0 else weight_zero
        out[i] = weight if inside is None else np.float32(inside[i]) * weight
