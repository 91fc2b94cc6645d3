"""What all generators of domain transfer answer: logits by head, legal sizes, and how their tiles fit together."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from emsuite.common.arrays import Shape
from emsuite.common.errors import BadInput
from emsuite.models.receptive_field import ReceptiveField
from emsuite.models.transfer.extent import Extent

IMAGE = "image"
"""The head of the image."""
_STRIDES = 200
"""Of the input that shows how far padding reaches."""


class Generator(nn.Module):
    """A network from one volume to the logits of its heads, `image` first.

    2-D networks take sections one by one. Sizes along axes are legal if they are `smallest`, or larger by multiples of
    `stride`.
    """

    stride: Shape
    """Smallest shift of the input, z y x, that shifts the output by the same amount and does nothing else."""
    smallest: Shape
    """The smallest legal input, z y x."""
    margin: Shape | None = None
    """Voxels at each border of a tile that are not used, z y x; None: all that padding reaches."""
    is_local: bool = True
    """Whether a voxel depends on the voxels around it alone, so that tiles can meet without a seam.

    Behind instance norms it depends on the mean and the variance of its whole tile, whatever the context.
    """

    heads: nn.ModuleDict
    """The last convolution of each head, where each has one of its own."""

    @property
    def finest_width(self) -> int:
        """The number of feature maps that the heads read, as many as at any finest layer."""
        weight = next(self.heads[IMAGE].parameters())
        return max(weight.shape[:2])

    @abstractmethod
    def extent(self, axis: int, size: int) -> Extent:
        """Return the extent of the output along z, y or x for a legal size of the input."""

    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the logits of each head, (N, channels, Z', Y', X'), for an input (N, 1, Z, Y, X)."""

    def output_shape(self, input_shape: Sequence[int]) -> Shape:
        """Return the voxels of the output for those of the input, z y x; raise BadInput if the input is not legal."""
        if len(input_shape) != 3:
            raise BadInput(f"input shape {tuple(input_shape)}: expected 3 axes")
        for axis, (n, least, step) in enumerate(zip(input_shape, self.smallest, self.stride, strict=True)):
            if n < least or (n - least) % step:
                below = least + (n - least) // step * step
                nearest = f"{below} and {below + step}" if n > least else f"none below and {least}"
                raise BadInput(
                    f"input shape {tuple(input_shape)}: {n} along axis {axis} does not fit the generator; the nearest "
                    f"that do are {nearest} (steps of {step})"
                )
        return tuple(self.extent(axis, n).size for axis, n in enumerate(input_shape))

    @property
    def receptive_field(self) -> ReceptiveField:
        """How tiles of this network fit together: the context is all that any padding of its layers reaches."""
        axes = [self._margin(axis) for axis in range(3)]
        context = tuple(2 * margin for margin in axes)
        smallest = []
        for least, step, around in zip(self.smallest, self.stride, context, strict=True):
            smallest.append(least + step * -(-max(0, around + step - least) // step))
        return ReceptiveField(tuple(smallest), self.stride, context, tuple(axes))

    def _margin(self, axis: int) -> int:
        """Return the voxels at either end of an input for which no output comes out right.

        They are whole strides where the output is as large as the input.
        """
        if self.margin:
            return self.margin[axis]
        step = self.stride[axis]
        size = self.smallest[axis] + _STRIDES * step
        out = self.extent(axis, size)
        lost = size - out.size
        margin = lost // 2 + max(out.before, out.behind)
        return margin if lost else -(-margin // step) * step
