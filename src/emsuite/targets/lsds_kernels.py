"""The kernels of `lsds_triton`.

The sums over a window go along x, then y, then z, where the samples of a column share all sums over x and y. They are
float64, as on the CPU. Along x the powers of t need neither tables nor products. With w_n the weights where the label
matches, the running sums A += w, B += A, C += B end as the sums of w, u w and u (u + 1) w / 2, where u counts from the
end of the row.

Names that the kernels share:

    labels         (B, depth, height, width) integers, the voxels to describe; 0 is background
    result         (B, 10, depth, height, width) float32
    entries        int32, voxels, as indices into `labels`; `count` of them
    samples        (B, planes, rows, columns), the samples within zeros: wide enough for all windows
    z, y, x table  (steps, 3) float64, g(t) t^p for p = 0, 1, 2
    scales         (6) float64, the least variance in sigma^2, z y x, and the distance of samples in sigmas, z y x
    n, mz ... yx   sums of weights, of z y x (m), and of their products in pairs
    STEP           voxels from sample to sample;  DEEP  samples of a column along z
    SPLIT          planes that are summed at once;  ENTRIES  entries of a block;  UNROLL  samples of a row per turn
    Z, Y, X REACH  samples from the middle of a window to its end;  LENGTH  samples of a row, with those of weight 0
"""
# mypy: disallow-untyped-defs=False

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["total", "depth", "height", "width"], do_not_specialize_on_alignment=["labels"])
def list_entries(
    labels, result, entries, count, total, depth, height, width,
    STEP: tl.constexpr, DEEP: tl.constexpr, LISTED: tl.constexpr,
):  # fmt: skip
    """Append to `entries` the voxels that are the first of their label in their column; write 0 to the background."""
    voxel = tl.program_id(0) * LISTED + tl.arange(0, LISTED)
    is_inside = voxel < total
    label = tl.load(labels + voxel, mask=is_inside, other=0)
    is_background = label == 0
    x, y, z = voxel % width, voxel // width % height, voxel // (width * height) % depth
    x_in, y_in, z_in = x % STEP, y % STEP, z % (DEEP * STEP)
    corner = voxel - (z_in * height + y_in) * width - x_in
    is_later = is_background
    for place in range(0, DEEP * STEP * STEP * STEP):
        z_other, y_other, x_other = place // (STEP * STEP), place // STEP % STEP, place % STEP
        other = corner + (z_other * height + y_other) * width + x_other
        in_column = (other < voxel) & (y - y_in + y_other < height) & (x - x_in + x_other < width) & is_inside
        is_later = is_later | (tl.load(labels + other, mask=in_column, other=0) == label)
    found = tl.where(is_later, 0, 1)
    begin = tl.atomic_add(count, tl.sum(found, 0))
    tl.store(entries + begin + tl.cumsum(found, 0) - found, voxel, mask=found == 1)
    volume = (depth * height * width).to(tl.int64)
    channel = result + voxel + 9 * (voxel // (depth * height * width)) * volume
    for number in range(0, 10):
        tl.store(channel + number * volume, 0.0, mask=is_inside & is_background)


_SHAPES = [
    "depth", "height", "width", "planes", "rows", "columns", "z_first", "y_first", "z_end", "y_end",
    "z_origin", "y_origin", "x_origin",
]  # fmt: skip


@triton.jit(do_not_specialize=_SHAPES, do_not_specialize_on_alignment=["labels"])
def describe(
    labels, samples, result, entries, count, z_table, y_table, x_table, scales, depth, height, width,
    planes, rows, columns, z_first, y_first, z_end, y_end, z_origin, y_origin, x_origin,
    STEP: tl.constexpr, DEEP: tl.constexpr, SPLIT: tl.constexpr, ENTRIES: tl.constexpr, UNROLL: tl.constexpr,
    Z_REACH: tl.constexpr, Y_REACH: tl.constexpr, X_REACH: tl.constexpr, LENGTH: tl.constexpr,
):  # fmt: skip
    """Write the descriptors of all entries.

    `samples` (B, planes, rows, columns) hold zeros before and behind z_first ... z_end, y_first ... y_end.
    """
    total = tl.load(count)
    for block in range(tl.program_id(0), tl.cdiv(total, ENTRIES), tl.num_programs(0)):
        entry = block * ENTRIES + tl.arange(0, ENTRIES)
        is_entry = entry < total
        voxel = tl.load(entries + entry, mask=is_entry, other=0)
        label = tl.load(labels + voxel)
        x, y = voxel % width // STEP, voxel // width % height // STEP
        z = voxel // (width * height) % depth // (STEP * DEEP) * DEEP
        batch = voxel // (width * height) // depth
        # Rows and planes that lie outside the array for all entries of the block are left out. Whatever entries share
        # a block, the same warp takes the same planes of a window: each run rounds alike.
        z_from = tl.maximum(z_first - tl.max(tl.where(is_entry, z, 0), 0), 0) // SPLIT * SPLIT
        z_to = tl.minimum(z_end - tl.min(tl.where(is_entry, z, planes), 0), 2 * Z_REACH + DEEP)
        y_from = tl.maximum(y_first - tl.max(tl.where(is_entry, y, 0), 0), 0)
        y_to = tl.minimum(y_end - tl.min(tl.where(is_entry, y, rows), 0), 2 * Y_REACH + 1)
        first_sample = samples + ((batch * planes + z) * rows + y) * columns + x
        n, mz, my, mx, zz, yy, xx, zy, zx, yx = _window_sums(
            first_sample, label, z_table, y_table, x_table, rows, columns, z_from, z_to, y_from, y_to,
            DEEP, SPLIT, ENTRIES, UNROLL, Z_REACH, Y_REACH, X_REACH, LENGTH,
        )  # fmt: skip
        cell = z[None, :] + tl.arange(0, DEEP)[:, None]
        n, mz, my, mx, zz, yy, xx, zy, zx, yx = _normalized(
            n, mz, my, mx, zz, yy, xx, zy, zx, yx, scales, cell + z_origin, y[None, :] + y_origin, x[None, :] + x_origin
        )
        volume = (depth * height * width).to(tl.int64)
        for place in range(0, STEP * STEP * STEP):
            vz = cell * STEP + place // (STEP * STEP)
            vy, vx = (y * STEP + place // STEP % STEP)[None, :], (x * STEP + place % STEP)[None, :]
            is_inside = (vz < depth) & (vy < height) & (vx < width) & is_entry[None, :]
            at = ((batch[None, :] * depth + vz) * height + vy) * width + vx
            writes = is_inside & (tl.load(labels + at, mask=is_inside, other=0) == label[None, :])
            _write(result + at + 9 * batch[None, :] * volume, volume, mz, my, mx, zz, yy, xx, zy, zx, yx, n, writes)


@triton.jit
def _normalized(n, mz, my, mx, zz, yy, xx, zy, zx, yx, scales, z, y, x):
    """Return the channels, before they are clipped, of sums over a window whose middle is the sample z, y, x."""
    z_spacing, y_spacing, x_spacing = tl.load(scales + 3), tl.load(scales + 4), tl.load(scales + 5)
    is_empty = n == 0  # no sample of the label within reach
    n = tl.where(is_empty, 1.0, n)
    mz, my, mx = mz / n, my / n, mx * x_spacing / n
    zz = tl.maximum(zz / n - mz * mz, tl.load(scales))
    yy = tl.maximum(yy / n - my * my, tl.load(scales + 1))
    xx = tl.maximum(xx * (x_spacing * x_spacing) / n - mx * mx, tl.load(scales + 2))
    zy = (zy / n - mz * my) / tl.sqrt(zz * yy) * 0.5 + 0.5
    zx = (zx * x_spacing / n - mz * mx) / tl.sqrt(zz * xx) * 0.5 + 0.5
    yx = (yx * x_spacing / n - my * mx) / tl.sqrt(yy * xx) * 0.5 + 0.5
    mz = tl.where(is_empty, z * -z_spacing, mz) * 0.5 + 0.5
    my = tl.where(is_empty, y * -y_spacing, my) * 0.5 + 0.5
    mx = tl.where(is_empty, x * -x_spacing, mx) * 0.5 + 0.5
    return n, mz, my, mx, zz, yy, xx, zy, zx, yx


@triton.jit
def _write(channel, volume, mz, my, mx, zz, yy, xx, zy, zx, yx, n, writes):
    """Write ten channels, each `volume` behind the last."""
    _write_one(channel, mz, writes)
    _write_one(channel + volume, my, writes)
    _write_one(channel + 2 * volume, mx, writes)
    _write_one(channel + 3 * volume, zz, writes)
    _write_one(channel + 4 * volume, yy, writes)
    _write_one(channel + 5 * volume, xx, writes)
    _write_one(channel + 6 * volume, zy, writes)
    _write_one(channel + 7 * volume, zx, writes)
    _write_one(channel + 8 * volume, yx, writes)
    _write_one(channel + 9 * volume, n, writes)


@triton.jit
def _write_one(channel, value, writes):
    tl.store(channel, tl.minimum(tl.maximum(value, 0.0), 1.0).to(tl.float32), mask=writes)


@triton.jit
def _window_sums(
    first_sample, label, z_table, y_table, x_table, rows, columns, z_from, z_to, y_from, y_to,
    DEEP: tl.constexpr, SPLIT: tl.constexpr, ENTRIES: tl.constexpr, UNROLL: tl.constexpr,
    Z_REACH: tl.constexpr, Y_REACH: tl.constexpr, X_REACH: tl.constexpr, LENGTH: tl.constexpr,
):  # fmt: skip
    """Return ten sums over the window of each sample of the columns, float64 (DEEP, ENTRIES)."""
    n = tl.zeros([DEEP, SPLIT, ENTRIES], tl.float64)
    mz, my, mx, zz, yy, xx, zy, zx, yx = n, n, n, n, n, n, n, n, n
    sample_of_column = tl.arange(0, DEEP)[:, None, None]
    for turn in range(z_from, z_to, SPLIT):
        plane = turn + tl.arange(0, SPLIT)
        offset = tl.minimum(plane, 2 * Z_REACH + DEEP - 1) * rows * columns
        p, py, px, pyy, pyx, pxx = _plane_sums(
            first_sample[None, :] + offset[:, None], label, y_table, x_table, columns, y_from, y_to,
            SPLIT, ENTRIES, UNROLL, Y_REACH, X_REACH, LENGTH,
        )  # fmt: skip
        step = plane[None, :, None] - sample_of_column + tl.zeros([DEEP, SPLIT, ENTRIES], tl.int32)
        is_within = (step >= 0) & (step <= 2 * Z_REACH)
        weight = tl.load(z_table + 3 * step, mask=is_within, other=0.0)
        weight_z = tl.load(z_table + 3 * step + 1, mask=is_within, other=0.0)
        weight_zz = tl.load(z_table + 3 * step + 2, mask=is_within, other=0.0)
        n += weight * p[None, :, :]
        my += weight * py[None, :, :]
        mx += weight * px[None, :, :]
        yy += weight * pyy[None, :, :]
        yx += weight * pyx[None, :, :]
        xx += weight * pxx[None, :, :]
        mz += weight_z * p[None, :, :]
        zy += weight_z * py[None, :, :]
        zx += weight_z * px[None, :, :]
        zz += weight_zz * p[None, :, :]
    return (
        tl.sum(n, 1), tl.sum(mz, 1), tl.sum(my, 1), tl.sum(mx, 1), tl.sum(zz, 1),
        tl.sum(yy, 1), tl.sum(xx, 1), tl.sum(zy, 1), tl.sum(zx, 1), tl.sum(yx, 1),
    )  # fmt: skip


@triton.jit
def _plane_sums(
    first_sample, label, y_table, x_table, columns, y_from, y_to,
    SPLIT: tl.constexpr, ENTRIES: tl.constexpr, UNROLL: tl.constexpr,
    Y_REACH: tl.constexpr, X_REACH: tl.constexpr, LENGTH: tl.constexpr,
):  # fmt: skip
    """Return the sums of 1, y, x, yy, yx, xx over a plane of the window, float64 (SPLIT, ENTRIES); x in samples."""
    p = tl.zeros([SPLIT, ENTRIES], tl.float64)
    py, px, pyy, pyx, pxx = p, p, p, p, p
    for row in range(y_from, y_to):
        a = tl.zeros([SPLIT, ENTRIES], tl.float64)
        b, c = a, a
        begin = first_sample + row * columns
        for turn in range(0, LENGTH, UNROLL):
            for more in tl.static_range(UNROLL):
                matches = tl.load(begin + (turn + more)) == label[None, :]
                a += tl.where(matches, tl.load(x_table + 3 * (turn + more)), 0.0)
                b += a
                c += b
        # x counts from the middle of the window, u from the end of the row
        bx = (LENGTH - X_REACH) * a - b
        bxx = (LENGTH - X_REACH) * ((LENGTH - X_REACH) * a - 2 * b) - b + 2 * c
        weight = tl.load(y_table + 3 * row)
        weight_y = tl.load(y_table + 3 * row + 1)
        p += weight * a
        px += weight * bx
        pxx += weight * bxx
        py += weight_y * a
        pyx += weight_y * bx
        pyy += tl.load(y_table + 3 * row + 2) * a
    return p, py, px, pyy, pyx, pxx
