"""The loops of `boundary`, compiled: one pass over the volume for each step, where torch takes six."""

import numba


@numba.njit(nogil=True, cache=True)
def only_known(values, known, most, out):  # type: ignore[no-untyped-def]
    """The values (N), but `most` where `known` (N) is 0, into `out`."""
    for i in range(values.size):
        out[i] = values[i] if known[i] else most


@numba.njit(nogil=True, cache=True)
def spread_lowest(values, in_plane, out):  # type: ignore[no-untyped-def]
    """The lowest of each voxel and its neighbours along the axes; both (Z, Y, X).

    In z there are no neighbours if `in_plane`, and nowhere beyond the border.
    """
    depth, height, width = values.shape
    for z in range(depth):
        above = z if in_plane else max(z - 1, 0)
        below = z if in_plane else min(z + 1, depth - 1)
        for y in range(height):
            left, right = max(y - 1, 0), min(y + 1, height - 1)
            a, b, c, d, e = values[z, y], values[above, y], values[below, y], values[z, left], values[z, right]
            row = out[z, y]
            for x in range(width):
                row[x] = min(min(min(a[x], b[x]), min(c[x], d[x])), e[x])
            for x in range(1, width):
                row[x] = min(row[x], a[x - 1])
            for x in range(width - 1):
                row[x] = min(row[x], a[x + 1])


@numba.njit(nogil=True, cache=True)
def keep(labels, lowest, highest, out):  # type: ignore[no-untyped-def]
    """The labels (N) where lowest >= highest and not both are 0, else 0, into `out`."""
    for i in range(labels.size):
        one = (lowest[i] >= highest[i]) & ((lowest[i] | highest[i]) != 0)
        out[i] = labels[i] if one else 0
