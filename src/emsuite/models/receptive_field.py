"""Which shapes fit a U-Net, on paper: legal inputs, outputs, context and stride, in voxels.

    input   |<------------------ n ------------------->|
    output          |<---- n - context ---->|             the context is cut in equal halves

A legal input is one at which no pooling step leaves a rest: only then is the output of a shifted input the shifted
output (for shifts by the stride), so that tiles meet without a seam.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from emsuite.common.arrays import Shape
from emsuite.common.errors import BadInput
from emsuite.models.unet import UNetSettings


@dataclass(frozen=True)
class ReceptiveField:
    """How tiles of a network fit together, voxels per axis.

    Legal inputs are `smallest` plus multiples of `stride`; of an input of n voxels, n - `context` come out right,
    the first of them belonging to input voxel `offset`.
    """

    smallest: Shape
    stride: Shape
    context: Shape
    offset: Shape

    def input_for(self, output: Sequence[int]) -> Shape:
        """The smallest legal input of which at least `output` voxels come out right."""
        rows = zip(self.smallest, self.stride, self.context, output, strict=True)
        return tuple(s + d * -(-max(0, wanted + c - s) // d) for s, d, c, wanted in rows)

    def largest_within(self, shape: Sequence[int]) -> Shape:
        """The largest legal input that is nowhere larger than `shape`, but at least the smallest there is."""
        rows = zip(self.smallest, self.stride, shape, strict=True)
        return tuple(s + d * max(0, (n - s) // d) for s, d, n in rows)

    def step(self, input_shape: Sequence[int]) -> Shape:
        """By how much tiles of that input advance: the largest multiple of the stride that their output covers.

        A network whose legal outputs all are smaller than its stride cannot be tiled; none of the suite's is.
        """
        rows = zip(input_shape, self.context, self.stride, strict=True)
        return tuple((n - c) // d * d for n, c, d in rows)

    def then(self, second: "ReceptiveField") -> "ReceptiveField":
        """This network, its output cropped at the centre to the next legal input of `second`, then `second`.

        Both must have the same stride, so that the crop is the same for every input.
        """
        if self.stride != second.stride:
            raise BadInput(f"autocontext: strides {self.stride} and {second.stride} differ, expected the same")
        smallest = self.input_for(second.smallest)
        first_out = [n - c for n, c in zip(smallest, self.context, strict=True)]
        crop = [n - m for n, m in zip(first_out, second.smallest, strict=True)]
        context = tuple(a + b + c for a, b, c in zip(self.context, crop, second.context, strict=True))
        offset = tuple(a + b // 2 + c for a, b, c in zip(self.offset, crop, second.offset, strict=True))
        return ReceptiveField(smallest, self.stride, context, offset)


def receptive_field(settings: UNetSettings) -> ReceptiveField:
    """The reach of a U-Net."""
    around = context(settings)
    smallest = smallest_input(settings)
    if settings.padding == "same":
        smallest = tuple(c + s for c, s in zip(around, settings.stride, strict=True))
    return ReceptiveField(smallest, settings.stride, around, tuple(c // 2 for c in around))


def output_shape(settings: UNetSettings, input_shape: Sequence[int]) -> Shape:
    """The output for an input of that shape; raises BadInput naming the nearest legal shapes if it does not fit."""
    if len(input_shape) != settings.dims:
        raise BadInput(f"input shape {tuple(input_shape)}: expected {settings.dims} axes")
    out = []
    for axis, n in enumerate(input_shape):
        length = _trace(settings, axis, n)
        if length is None:
            below, above = _neighbours(settings, axis, n)
            raise BadInput(
                f"input shape {tuple(input_shape)}: {n} along axis {axis} does not fit the network; "
                f"the nearest that do are {below or 'none below'} and {above} (steps of {settings.stride[axis]})"
            )
        out.append(length)
    return tuple(out)


def smallest_input(settings: UNetSettings) -> Shape:
    """The smallest legal input; all others are this plus multiples of the stride."""
    return tuple(_neighbours(settings, axis, 0)[1] for axis in range(settings.dims))


def context(settings: UNetSettings) -> Shape:
    """How many voxels a legal input is larger than the part of its output that is right: the receptive field less 1.

    For valid networks, input less output. For same ones, where zeros leak in from the border: half of that and the rest
    of a stride on each side, as a voxel may lie anywhere in its voxel of the coarsest level, rounded up to strides.
    """
    valid = settings.model_copy(update={"padding": "valid"})
    smallest = smallest_input(valid)
    shrink = [n - m for n, m in zip(smallest, output_shape(valid, smallest), strict=True)]
    if settings.padding == "valid":
        return tuple(shrink)
    return tuple(
        2 * stride * -(-(s // 2 + stride - 1) // stride) for s, stride in zip(shrink, settings.stride, strict=True)
    )


def _trace(settings: UNetSettings, axis: int, n: int) -> int | None:
    def shrink(kernels: Sequence[Shape]) -> int:
        return sum(kernel[axis] - 1 for kernel in kernels) if settings.padding == "valid" else 0

    skips = []
    stem = settings.stem
    if stem:
        n -= stem.kernel[axis] - stem.factor[axis] if settings.padding == "valid" else 0
        if n <= 0 or n % stem.factor[axis]:
            return None
        n //= stem.factor[axis]
    for level in range(settings.levels):
        n -= shrink(settings.kernels_down(level))
        if level < settings.levels - 1:
            skips.append(n)
            factor = settings.downsample_factors[level][axis]
            if n <= 0 or n % factor:
                return None
            n //= factor
    for level in reversed(range(settings.levels - 1)):
        n *= settings.downsample_factors[level][axis]
        if n > skips[level]:
            return None
        n -= shrink(settings.kernels_up(level))
    n *= stem.factor[axis] if stem else 1
    return n if n > 0 else None


def _neighbours(settings: UNetSettings, axis: int, n: int) -> tuple[int | None, int]:
    below = next((m for m in range(n, 0, -1) if _trace(settings, axis, m) is not None), None)
    above = n
    while _trace(settings, axis, above) is None:
        above += 1
    return below, above
