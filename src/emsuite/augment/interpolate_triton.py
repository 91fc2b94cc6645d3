"""The kernels that read the samples of a batch on a GPU: linear for raw, the nearest voxel for labels and mask.

They read volumes where they lie, by address and strides, at coordinates that they compute from the parameters of
`emsuite.augment.read_table`, and write every sample into its place in the batch. Coordinates are those of a
`SamplingGrid`; they are never stored. `spread` first contracts the control vectors along z and x, so that each voxel
sums over the control points along y alone.

Arguments that the kernels share:

    table         int64 (rows, WORDS), what to read, a row for each sample; then float32 arrays, which rows point into
    rows          rows of the table
    first         the row of the first sample
    vectors       float32 (samples, Z, 3, points, X), what `spread` writes
    points        control points along y for which there is room
    Z, Y, X       the shape of the boxes
"""

import torch
import triton
import triton.language as tl

from emsuite.augment.read_table import WORDS, Word

_WORDS = tl.constexpr(WORDS)
_SOURCE, _MASK, _SHAPE = (tl.constexpr(int(word)) for word in (Word.SOURCE, Word.MASK, Word.SHAPE))
_STRIDES, _MASK_STRIDES = (tl.constexpr(int(word)) for word in (Word.STRIDES, Word.MASK_STRIDES))
_IS_BYTES, _TERMS, _POINTS = (tl.constexpr(int(word)) for word in (Word.IS_BYTES, Word.TERMS, Word.POINTS))
_COUNTS, _VECTORS, _STEPS = (tl.constexpr(int(word)) for word in (Word.COUNTS, Word.VECTORS, Word.STEPS))
_WEIGHTS, _WEIGHT_STEPS = (tl.constexpr(int(word)) for word in (Word.WEIGHTS, Word.WEIGHT_STEPS))
_BLOCK_Y, _BLOCK_X = 16, 32  # voxels that one program reads
_SPREAD_X, _SPREAD_POINTS = 128, 16


@triton.jit
def _spread(table, rows, first, vectors, points, Z, X, BLOCK_X: tl.constexpr, BLOCK_K: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write vectors[sample, z, c, j, x] = sum over i, k of weights_z[z, i] vectors[c, i, j, k] weights_x[x, k]."""
    blocks = tl.cdiv(X, BLOCK_X)
    block, program = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    j, program = program % points, program // points
    axis, program = program % 3, program // 3
    z, sample = program % Z, program // Z
    row, floats = table + (first + sample) * _WORDS, (table + rows * _WORDS).to(tl.pointer_type(tl.float32))
    if j < tl.load(row + _POINTS + axis):
        count_i, count_k = tl.load(row + _COUNTS), tl.load(row + _COUNTS + 2)
        step_i, step_k = tl.load(row + _STEPS + 1), tl.load(row + _STEPS + 3)
        control = floats + tl.load(row + _VECTORS) + axis * tl.load(row + _STEPS) + j * tl.load(row + _STEPS + 2)
        weights_z = floats + tl.load(row + _WEIGHTS) + z * tl.load(row + _WEIGHT_STEPS)
        x, some = block * BLOCK_X + tl.arange(0, BLOCK_X), tl.arange(0, BLOCK_K)
        weights_x = floats + tl.load(row + _WEIGHTS + 2) + x * tl.load(row + _WEIGHT_STEPS + 2)
        total = tl.zeros((BLOCK_X,), dtype=tl.float32)
        for begin in range(0, count_k, BLOCK_K):
            k = begin + some
            along_z = tl.zeros((BLOCK_K,), dtype=tl.float32)
            for begin_i in range(0, count_i, BLOCK_K):
                i = begin_i + some
                known = (i < count_i)[:, None] & (k < count_k)[None, :]
                vector = tl.load(control + i[:, None] * step_i + k[None, :] * step_k, mask=known, other=0.0)
                along_z += tl.sum(tl.load(weights_z + i, mask=i < count_i, other=0.0)[:, None] * vector, axis=0)
            inside = (x < X)[:, None] & (k < count_k)[None, :]
            weight = tl.load(weights_x[:, None] + k[None, :], mask=inside, other=0.0)
            total += tl.sum(weight * along_z[None, :], axis=1)
        place = ((sample.to(tl.int64) * Z + z) * 3 + axis) * points + j
        tl.store(vectors + place * X + x, total, mask=x < X)


@triton.jit
def _coordinate(row, floats, vectors, axis: tl.constexpr, z, y, x, Z, Y, X, BLOCK_Y: tl.constexpr,  # type: ignore[no-untyped-def]
                BLOCK_X: tl.constexpr):  # fmt: skip
    """Return one component of the coordinates of a tile, (BLOCK_Y, BLOCK_X), as `SamplingGrid` defines them."""
    moved = tl.zeros((BLOCK_Y, BLOCK_X), dtype=tl.float32)
    weights = floats + tl.load(row + _WEIGHTS + 1) + y * tl.load(row + _WEIGHT_STEPS + 1)
    for j in range(tl.load(row + _POINTS + axis)):
        vector = tl.load(vectors + j * X + x, mask=x < X, other=0.0)
        weight = tl.load(weights + j, mask=y < Y, other=0.0)
        moved += weight[:, None] * vector[None, :]
    terms = floats + tl.load(row + _TERMS)
    term_z = tl.load(terms + axis * Z + z)
    term_y = tl.load(terms + 3 * Z + axis * Y + y, mask=y < Y, other=0.0)
    term_x = tl.load(terms + 3 * (Z + Y) + axis * X + x, mask=x < X, other=0.0)
    return moved + ((term_z + term_y)[:, None] + term_x[None, :])


@triton.jit
def _tile(Z, Y, X, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the sample, the section, the rows and the columns of this program's tile."""
    blocks_y, blocks_x = tl.cdiv(Y, BLOCK_Y), tl.cdiv(X, BLOCK_X)
    block_x, program = tl.program_id(0) % blocks_x, tl.program_id(0) // blocks_x
    block_y, program = program % blocks_y, program // blocks_y
    y, x = block_y * BLOCK_Y + tl.arange(0, BLOCK_Y), block_x * BLOCK_X + tl.arange(0, BLOCK_X)
    return program // Z, program % Z, y, x


@triton.jit
def _linear(table, rows, first, vectors, points, out, Z, Y, X, IS_BYTES: tl.constexpr,  # type: ignore[no-untyped-def]
            BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):  # fmt: skip
    """Interpolate volumes linearly, into `out` (samples, Z, Y, X) float32; bytes become 0 to 1.

    Samples of volumes of another type are left.
    """
    sample, z, y, x = _tile(Z, Y, X, BLOCK_Y, BLOCK_X)
    row, floats = table + (first + sample) * _WORDS, (table + rows * _WORDS).to(tl.pointer_type(tl.float32))
    if tl.load(row + _IS_BYTES) == IS_BYTES:
        section = sample.to(tl.int64) * Z + z
        along_y = vectors + section * 3 * points * X
        at_z = _coordinate(row, floats, along_y, 0, z, y, x, Z, Y, X, BLOCK_Y, BLOCK_X)
        at_y = _coordinate(row, floats, along_y + points * X, 1, z, y, x, Z, Y, X, BLOCK_Y, BLOCK_X)
        at_x = _coordinate(row, floats, along_y + 2 * points * X, 2, z, y, x, Z, Y, X, BLOCK_Y, BLOCK_X)
        low_z, low_y, low_x = tl.floor(at_z), tl.floor(at_y), tl.floor(at_x)
        source = tl.load(row + _SOURCE).to(tl.pointer_type(tl.uint8 if IS_BYTES else tl.float32))
        shape_z, shape_y, shape_x = tl.load(row + _SHAPE), tl.load(row + _SHAPE + 1), tl.load(row + _SHAPE + 2)
        step_z, step_y, step_x = tl.load(row + _STRIDES), tl.load(row + _STRIDES + 1), tl.load(row + _STRIDES + 2)
        inside = (y < Y)[:, None] & (x < X)[None, :]
        total = tl.zeros((BLOCK_Y, BLOCK_X), dtype=tl.float32)
        for dz in tl.static_range(2):
            for dy in tl.static_range(2):
                for dx in tl.static_range(2):
                    i, j, k = low_z.to(tl.int64) + dz, low_y.to(tl.int64) + dy, low_x.to(tl.int64) + dx
                    weight = (at_z - low_z) if dz else 1.0 - (at_z - low_z)
                    weight *= (at_y - low_y) if dy else 1.0 - (at_y - low_y)
                    weight *= (at_x - low_x) if dx else 1.0 - (at_x - low_x)
                    held = inside & (i >= 0) & (i < shape_z) & (j >= 0) & (j < shape_y) & (k >= 0) & (k < shape_x)
                    value = tl.load(source + (i * step_z + j * step_y + k * step_x), mask=held, other=0)
                    total += weight * value.to(tl.float32)
        if IS_BYTES:
            total = total / 255.0
        tl.store(out + (section * Y + y[:, None]) * X + x[None, :], total, mask=inside)


@triton.jit
def _nearest(table, rows, first, vectors, points, labels, mask, Z, Y, X,  # type: ignore[no-untyped-def]
             BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):  # fmt: skip
    """Read the voxels that are nearest, into `labels` int32 and `mask` uint8, (samples, Z, Y, X) each."""
    sample, z, y, x = _tile(Z, Y, X, BLOCK_Y, BLOCK_X)
    row, floats = table + (first + sample) * _WORDS, (table + rows * _WORDS).to(tl.pointer_type(tl.float32))
    section = sample.to(tl.int64) * Z + z
    along_y = vectors + section * 3 * points * X
    at_z = _coordinate(row, floats, along_y, 0, z, y, x, Z, Y, X, BLOCK_Y, BLOCK_X)
    at_y = _coordinate(row, floats, along_y + points * X, 1, z, y, x, Z, Y, X, BLOCK_Y, BLOCK_X)
    at_x = _coordinate(row, floats, along_y + 2 * points * X, 2, z, y, x, Z, Y, X, BLOCK_Y, BLOCK_X)
    i, j = tl.floor(at_z + 0.5).to(tl.int64), tl.floor(at_y + 0.5).to(tl.int64)
    k = tl.floor(at_x + 0.5).to(tl.int64)
    inside = (y < Y)[:, None] & (x < X)[None, :]
    held = inside & (i >= 0) & (i < tl.load(row + _SHAPE)) & (j >= 0) & (j < tl.load(row + _SHAPE + 1))
    held = held & (k >= 0) & (k < tl.load(row + _SHAPE + 2))
    offset = i * tl.load(row + _STRIDES) + j * tl.load(row + _STRIDES + 1) + k * tl.load(row + _STRIDES + 2)
    label = tl.load(tl.load(row + _SOURCE).to(tl.pointer_type(tl.int32)) + offset, mask=held, other=0)
    place = (section * Y + y[:, None]) * X + x[None, :]
    tl.store(labels + place, label, mask=inside)
    address = tl.load(row + _MASK)  # 0: the mask is 1 throughout
    offset = i * tl.load(row + _MASK_STRIDES) + j * tl.load(row + _MASK_STRIDES + 1)
    offset += k * tl.load(row + _MASK_STRIDES + 2)
    masked_in = tl.load(address.to(tl.pointer_type(tl.uint8)) + offset, mask=held & (address != 0), other=1)
    tl.store(mask + place, tl.where(held, masked_in, 0).to(tl.uint8), mask=inside)


def spread(table: torch.Tensor, rows: int, first: int, points: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the contracted control vectors of a batch of boxes of `shape` (samples, Z, Y, X); arguments as above."""
    samples, sections, _, columns = shape
    vectors = torch.empty(samples * sections * 3 * points * columns, dtype=torch.float32, device=table.device)
    if points:
        grid = (triton.cdiv(columns, _SPREAD_X) * points * 3 * sections * samples,)
        _spread[grid](table, rows, first, vectors, points, sections, columns, _SPREAD_X, _SPREAD_POINTS, num_warps=2)
    return vectors


def read_linear(table: torch.Tensor, rows: int, first: int, points: int, is_bytes: bool, out: torch.Tensor) -> None:
    """Interpolate the samples whose volume is of bytes, or of float32, into `out` (samples, Z, Y, X) float32."""
    vectors = spread(table, rows, first, points, tuple(out.shape))
    _linear[_grid(out)](table, rows, first, vectors, points, out, *out.shape[1:], is_bytes, _BLOCK_Y, _BLOCK_X)


def read_nearest(
    table: torch.Tensor, rows: int, first: int, points: int, labels: torch.Tensor, mask: torch.Tensor
) -> None:
    """Read the nearest voxels into `labels` int32 and `mask` uint8, (samples, Z, Y, X) each."""
    vectors = spread(table, rows, first, points, tuple(labels.shape))
    _nearest[_grid(labels)](table, rows, first, vectors, points, labels, mask, *labels.shape[1:], _BLOCK_Y, _BLOCK_X)


def _grid(out: torch.Tensor) -> tuple[int]:
    samples, sections, rows, columns = out.shape
    return (triton.cdiv(columns, _BLOCK_X) * triton.cdiv(rows, _BLOCK_Y) * sections * samples,)
