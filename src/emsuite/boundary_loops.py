"""The loops of `boundary`, compiled: one pass over the volume for each step, where torch takes six for each extreme."""

import numba


@numba.njit(nogil=True, cache=True)
def extremes(labels, known, least, most, lowest, highest):  # type: ignore[no-untyped-def]
    """The labels (N) into `lowest` and `highest`, but `most` and `least` there where `known` (N) is 0."""
    for i in range(labels.size):
        lowest[i] = labels[i] if known[i] else most
        highest[i] = labels[i] if known[i] else least


@numba.njit(nogil=True, cache=True)
def spread(lowest, highest, in_plane, lower, higher):  # type: ignore[no-untyped-def]
    """The lowest and the highest of each voxel and its neighbours along the axes, into `lower` and `higher`.

    All (Z, Y, X). In z there are no neighbours if `in_plane`, and nowhere beyond the border.
    """
    depth, height, width = lowest.shape
    for z in range(depth):
        above = z if in_plane else max(z - 1, 0)
        below = z if in_plane else min(z + 1, depth - 1)
        for y in range(height):
            left, right = max(y - 1, 0), min(y + 1, height - 1)
            a, b, c, d, e = lowest[z, y], lowest[above, y], lowest[below, y], lowest[z, left], lowest[z, right]
            row = lower[z, y]
            for x in range(width):
                row[x] = min(min(min(a[x], b[x]), min(c[x], d[x])), e[x])
            for x in range(1, width):
                row[x] = min(row[x], a[x - 1])
            for x in range(width - 1):
                row[x] = min(row[x], a[x + 1])
            a, b, c, d, e = highest[z, y], highest[above, y], highest[below, y], highest[z, left], highest[z, right]
            row = higher[z, y]
            for x in range(width):
                row[x] = max(max(max(a[x], b[x]), max(c[x], d[x])), e[x])
            for x in range(1, width):
                row[x] = max(row[x], a[x - 1])
            for x in range(width - 1):
                row[x] = max(row[x], a[x + 1])


@numba.njit(nogil=True, cache=True)
def keep(labels, lowest, highest, out):  # type: ignore[no-untyped-def]
    """The labels (N) where lowest >= highest and not both are 0, else 0, into `out`."""
    for i in range(labels.size):
        one = (lowest[i] >= highest[i]) & ((lowest[i] | highest[i]) != 0)
        out[i] = labels[i] if one else 0
