"""Where images of domain transfer lie in each other: generators without padding lose voxels on each side.

    a       |<------------- n ------------->|
    fake        |<--------- m --------->|             what a generator makes of it, in its middle
    none          |<------- m' ------->|              the largest size within m that fits the other generator
    result           |<---- r ---->|                  what that makes of it
    context 0000|<--------- m --------->|0000         or m with zeros around, n again, which gives m;
    result              |<- 2m - n ->|                its middle is compared

Where the output is as large as the input, n = m = r, and nothing is cropped.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from emsuite.common.arrays import Shape
from emsuite.common.errors import BadInput
from emsuite.models.crop import centre_crop
from emsuite.models.network import Network
from emsuite.models.transfer.generator import Generator


@dataclass(frozen=True)
class Geometry:
    """The sizes of images on their way through both generators, voxels z y x."""

    sample: Shape
    fake: Shape
    """What a generator makes of a sample."""
    onward: Shape
    """What the other generator reads of it."""
    compared: Shape
    """The part of the reconstruction that is compared with the sample."""

    def real(self, x: Tensor) -> Tensor:
        """Return the part (..., *fake) of (..., *sample) in whose place a transferred image lies."""
        return centre_crop(x, self.fake)

    def read(self, fake: Tensor) -> Tensor:
        """Return what the second generator reads: the middle of (..., *fake), or zeros around it."""
        if all(n <= m for n, m in zip(self.onward, self.fake, strict=True)):
            return centre_crop(fake, self.onward)
        margins = [(n - m, (n - m) // 2) for n, m in zip(self.onward, self.fake, strict=True)]
        sides = [(before, whole - before) for whole, before in reversed(margins)]
        return functional.pad(fake, [side for pair in sides for side in pair])

    def reconstructed(self, x: Tensor) -> Tensor:
        """Return the part of a reconstruction, or of one of its heads, that is compared."""
        return centre_crop(x, self.compared)

    def again(self, real: Tensor) -> Tensor:
        """Return the part (..., *compared) of (..., *fake), as `real` gives it, that a reconstruction stands for."""
        middle = [min(n, m) for n, m in zip(self.onward, self.fake, strict=True)]
        return centre_crop(centre_crop(real, middle), self.compared)


def make_geometry(generator: Network | Generator, sample: Shape, padding: str) -> Geometry:
    """Return the sizes for samples of a shape.

    Args:
        generator: either one; both have one architecture.
        sample: voxels, z y x.
        padding: `none` or `context`, see the module.

    Raises:
        BadInput: the shape does not fit the generator, or is too small for a reconstruction.
    """
    fake = generator.output_shape(sample)
    if padding == "context":
        onward = sample
        compared = tuple(2 * m - n for m, n in zip(fake, sample, strict=True))
    else:
        onward = tuple(_largest(generator, sample, axis, m) for axis, m in enumerate(fake))
        compared = generator.output_shape(onward) if min(onward) > 0 else onward
    if min(compared) < 1:
        raise BadInput(
            f"training.input_shape {list(sample)}: {list(fake)} voxels are transferred, and none of them is left on "
            "the way back; expected larger samples"
        )
    return Geometry(tuple(sample), fake, onward, compared)


def _largest(generator: Network | Generator, sample: Sequence[int], axis: int, most: int) -> int:
    """Return the largest size along an axis, up to `most`, that fits the generator; 0 if none does."""
    shape = list(sample)
    for size in range(most, 0, -1):
        shape[axis] = size
        with suppress(BadInput):
            generator.output_shape(shape)
            return size
    return 0
