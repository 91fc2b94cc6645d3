"""The shapes that fit a U-Net, computed from its settings: legal inputs, outputs, context and stride, in voxels.

    input   |<------------------ n ------------------->|
    output          |<---- n - context ---->|             half of the context is cut from each side

An input is legal if every pooling step divides it without remainder. Only then does a shift of the input by the stride
shift the output and change nothing else, so that tiles meet without a seam.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from emsuite.common.arrays import Shape
from emsuite.common.errors import BadInput
from emsuite.models.unet_settings import UNetSettings, trace


@dataclass(frozen=True)
class ReceptiveField:
    """The arithmetic of a network's inputs and outputs, voxels per axis."""

    smallest: Shape
    """The smallest legal input. All others are larger by multiples of `stride`."""
    stride: Shape
    context: Shape
    """An input of n voxels has n - `context` voxels of output that depend on real input only."""
    offset: Shape
    """The input voxel that the first of these output voxels belongs to."""

    def input_for(self, output: Sequence[int]) -> Shape:
        """Return the smallest legal input with at least `output` voxels of output, context excluded."""
        rows = zip(self.smallest, self.stride, self.context, output, strict=True)
        return tuple(s + d * -(-max(0, n + c - s) // d) for s, d, c, n in rows)

    def largest_within(self, shape: Sequence[int]) -> Shape:
        """Return the largest legal input that fits into `shape`; the smallest one along axes that are too short."""
        rows = zip(self.smallest, self.stride, shape, strict=True)
        return tuple(s + d * max(0, (n - s) // d) for s, d, n in rows)

    def step(self, input_shape: Sequence[int]) -> Shape:
        """Return the distance between tiles of `input_shape`: the largest multiple of the stride within their output.

        A network whose legal outputs are all smaller than its stride cannot be tiled. The suite has none.
        """
        rows = zip(input_shape, self.context, self.stride, strict=True)
        return tuple((n - c) // d * d for n, c, d in rows)

    def followed_by(self, second: "ReceptiveField") -> "ReceptiveField":
        """Return the receptive field of this network followed by `second`.

        The output of this network is cropped at its centre to the largest legal input of `second`.

        Raises:
            BadInput: the strides differ, so that the crop would not be the same for every input.
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
    """Return the receptive field of a U-Net."""
    around = context(settings)
    axes = zip(smallest_input(settings), around, settings.stride, settings.pads, strict=True)
    smallest = tuple(c + s if pads else n for n, c, s, pads in axes)
    return ReceptiveField(smallest, settings.stride, around, tuple(c // 2 for c in around))


def output_shape(settings: UNetSettings, input_shape: Sequence[int]) -> Shape:
    """Return the shape of the output, context included for same padding.

    Raises:
        BadInput: the network cannot take an input of this shape. The message names the nearest legal sizes.
    """
    if len(input_shape) != settings.dims:
        raise BadInput(f"input shape {tuple(input_shape)}: expected {settings.dims} axes")
    out = []
    for axis, n in enumerate(input_shape):
        sizes = trace(settings, axis, n)
        if sizes is None:
            below, above = _neighbours(settings, axis, n)
            raise BadInput(
                f"input shape {tuple(input_shape)}: {n} along axis {axis} does not fit the network; "
                f"the nearest that do are {below or 'none below'} and {above} (steps of {settings.stride[axis]})"
            )
        out.append(sizes[-1])
    return tuple(out)


def smallest_input(settings: UNetSettings) -> Shape:
    """Return the smallest input that the network can take. All others are larger by multiples of the stride."""
    return tuple(_neighbours(settings, axis, 0)[1] for axis in range(settings.dims))


def context(settings: UNetSettings) -> Shape:
    """Return the number of voxels that a legal input has more than the part of its output that sees no border.

    For valid padding it is input minus output, the receptive field minus 1. For same padding, zeros leak in from the
    border: on each side the context is half of that number plus stride - 1, rounded up to strides, because a voxel can
    lie anywhere in its voxel of the coarsest level.
    """
    valid = settings.model_copy(update={"padding": "valid"})
    smallest = smallest_input(valid)
    shrink = [n - m for n, m in zip(smallest, output_shape(valid, smallest), strict=True)]
    return tuple(
        2 * stride * -(-(s // 2 + stride - 1) // stride) if pads else s
        for s, stride, pads in zip(shrink, settings.stride, settings.pads, strict=True)
    )


def _neighbours(settings: UNetSettings, axis: int, n: int) -> tuple[int | None, int]:
    """Return the largest size up to n that fits, None if there is none, and the smallest size from n on that fits."""
    below = next((m for m in range(n, 0, -1) if trace(settings, axis, m) is not None), None)
    above = n
    while trace(settings, axis, above) is None:
        above += 1
    return below, above
