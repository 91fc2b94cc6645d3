"""The compiled loops of `interpolate`. For each section they first compute where to read, then read.

Arguments that the loops share:

    memory        flat array, the memory from the first to the last voxel of a volume
    shape         voxels of the volume, z y x
    strides       distance in `memory` from section to section, and from row to row
    grid          the arrays of a `SamplingGrid`: terms of z, y and x, section vectors, weights of y and x
    coordinates   (3, Y * X) float32, the sampling coordinates of one section, in voxels
"""

import math

import numba
import numpy as np

_BORDER, _OUTSIDE = -1, -2  # instead of an index: some, or all, of the eight voxels around a coordinate are outside


@numba.njit(nogil=True, cache=True)
def linear_loop(memory, shape, strides, grid, corner_index, out):  # type: ignore[no-untyped-def]
    """Interpolate a volume linearly, into `out` (Z, Y * X) float32.

    `corner_index` (Y * X) is a buffer. Its type, int32 or int64, must hold every index into `memory`.
    """
    coordinates = np.empty((3, corner_index.size), np.float32)
    fractions = np.empty((3, corner_index.size), np.float32)
    for z in range(out.shape[0]):
        _section_coordinates(grid, z, coordinates)
        _locate_corners(shape, strides, coordinates, corner_index, fractions)
        _interpolate_section(memory, shape, strides, coordinates, corner_index, fractions, out[z])


@numba.njit(nogil=True, cache=True)
def nearest_index(shape, strides, grid, index):  # type: ignore[no-untyped-def]
    """Write the index in memory of the voxel nearest to each coordinate, into `index` (Z, Y * X), -1 outside."""
    coordinates, half = np.empty((3, index.shape[1]), np.float32), np.float32(0.5)
    z, y, x = coordinates[0], coordinates[1], coordinates[2]
    for section_number in range(index.shape[0]):
        _section_coordinates(grid, section_number, coordinates)
        section = index[section_number]
        for i in range(section.size):
            voxel_z, voxel_y = np.int32(math.floor(z[i] + half)), np.int32(math.floor(y[i] + half))
            voxel_x = np.int32(math.floor(x[i] + half))
            inside = (
                (voxel_z >= 0) & (voxel_z < shape[0])
                & (voxel_y >= 0) & (voxel_y < shape[1])
                & (voxel_x >= 0) & (voxel_x < shape[2])
            )  # fmt: skip
            section[i] = voxel_z * strides[0] + voxel_y * strides[1] + voxel_x if inside else -1


@numba.njit(nogil=True, cache=True)
def gather(memory, index, out):  # type: ignore[no-untyped-def]
    """Copy `memory` at `index` (N) into `out` (N); 0 where the index is -1."""
    for i in range(out.size):
        out[i] = memory[index[i]] if index[i] >= 0 else 0


@numba.njit(nogil=True, cache=True)
def _section_coordinates(grid, z, coordinates):  # type: ignore[no-untyped-def]
    # the product is computed for a whole section, so that it is large enough for BLAS: row by row it took twice as long
    terms_z, terms_y, terms_x, section_vectors, weights_y, weights_x = grid
    shape = terms_y.shape[1], terms_x.shape[1]
    for axis in range(3):
        component, term_x = coordinates[axis].reshape(shape), terms_x[axis]
        if section_vectors[z, axis].any():  # an axis without jitter has no displacement
            np.dot(np.dot(weights_y, section_vectors[z, axis]), weights_x, component)
        else:
            component[:] = 0
        for y in range(shape[0]):
            row, term_zy = component[y], terms_z[axis, z] + terms_y[axis, y]
            for x in range(shape[1]):
                row[x] += term_zy + term_x[x]


@numba.njit(nogil=True, cache=True)
def _locate_corners(shape, strides, coordinates, corner_index, fractions):  # type: ignore[no-untyped-def]
    """Write for each coordinate the index of the lowest of the eight voxels around it, and its fractional part."""
    # without a branch and with one expression per condition, so that the compiler vectorises the loop: in parts it took
    # a quarter longer
    z, y, x = coordinates[0], coordinates[1], coordinates[2]
    fraction_z, fraction_y, fraction_x = fractions[0], fractions[1], fractions[2]
    for i in range(corner_index.size):
        low_z, low_y = np.int32(math.floor(z[i])), np.int32(math.floor(y[i]))
        low_x = np.int32(math.floor(x[i]))
        fraction_z[i], fraction_y[i] = z[i] - np.float32(low_z), y[i] - np.float32(low_y)
        fraction_x[i] = x[i] - np.float32(low_x)
        inside = (
            (low_z >= 0) & (low_z < shape[0] - 1)
            & (low_y >= 0) & (low_y < shape[1] - 1)
            & (low_x >= 0) & (low_x < shape[2] - 1)
        )  # fmt: skip
        outside = (
            (low_z < -1) | (low_z >= shape[0]) | (low_y < -1) | (low_y >= shape[1]) | (low_x < -1) | (low_x >= shape[2])
        )
        corner = low_z * strides[0] + low_y * strides[1] + low_x
        corner_index[i] = corner if inside else (_OUTSIDE if outside else _BORDER)


@numba.njit(nogil=True, cache=True)
def _interpolate_section(memory, shape, strides, coordinates, corner_index, fractions, out):  # type: ignore[no-untyped-def]
    z, y, x = coordinates[0], coordinates[1], coordinates[2]
    fraction_z, fraction_y, fraction_x = fractions[0], fractions[1], fractions[2]
    # the two planes are written out: a function of one plane would cost more than its reads, as numba counts references
    # to every array that is passed
    for i in range(out.size):
        k, wz, wy, wx = np.int64(corner_index[i]), fraction_z[i], fraction_y[i], fraction_x[i]
        if k < 0:
            out[i] = _border_value(memory, shape, strides, z[i], y[i], x[i]) if k == _BORDER else 0
            continue
        row = _lerp(memory[k], memory[k + 1], wx)
        next_row = _lerp(memory[k + strides[1]], memory[k + strides[1] + 1], wx)
        value = _lerp(row, next_row, wy)
        if wz != 0:  # sections that only moved within their plane do not need the next section
            k += strides[0]
            row = _lerp(memory[k], memory[k + 1], wx)
            next_row = _lerp(memory[k + strides[1]], memory[k + strides[1] + 1], wx)
            value = _lerp(value, _lerp(row, next_row, wy), wz)
        out[i] = value


@numba.njit(nogil=True, cache=True)
def _lerp(low, high, weight):  # type: ignore[no-untyped-def]
    return np.float32(low) * (np.float32(1) - weight) + np.float32(high) * weight


@numba.njit(nogil=True, cache=True)
def _border_value(memory, shape, strides, z, y, x):  # type: ignore[no-untyped-def]
    """Return the weighted sum of those of the eight voxels around a coordinate that are inside the volume."""
    low_z, low_y, low_x = np.int64(math.floor(z)), np.int64(math.floor(y)), np.int64(math.floor(x))
    total = np.float32(0)
    for voxel_z, weight_z in ((low_z, low_z + 1 - z), (low_z + 1, z - low_z)):
        for voxel_y, weight_y in ((low_y, low_y + 1 - y), (low_y + 1, y - low_y)):
            for voxel_x, weight_x in ((low_x, low_x + 1 - x), (low_x + 1, x - low_x)):
                if 0 <= voxel_z < shape[0] and 0 <= voxel_y < shape[1] and 0 <= voxel_x < shape[2]:
                    value = memory[voxel_z * strides[0] + voxel_y * strides[1] + voxel_x]
                    total += np.float32(weight_z * weight_y * weight_x * value)
    return total
