"""transfer_em's generator and discriminator: convolutions without padding, LeakyReLU of slope 0.3, no norms.

    74   first 72   conv 70 --------------- crop 13 ---------------> 44 concatenate 42, 40
                        | strided 34   conv 32 -- crop 3 --> 26 concatenate 24   conv 22 ^ transposed
                                           | strided 15   conv 13 ^ transposed

Sizes are voxels along each axis. A transposed convolution doubles them: its border voxels lack a neighbour, which
reaches 3 voxels into the output. So n voxels give n - 34, of which n - 40 have all their context.

Source: janelia-flyem/transfer_em. The original admits 74 voxels alone; every n = 2 (mod 4) from 38 on is exact. Its 2-D
discriminator throws away what its first strided block computes and reads the input in its place; this one does not.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from emsuite.common.arrays import Shape
from emsuite.common.errors import BadInput
from emsuite.models.crop import centre_crop
from emsuite.models.transfer.extent import Extent
from emsuite.models.transfer.generator import Generator
from emsuite.models.transfer.layers import as_images, as_volume, convolution, draw_normal_weights, transposed
from emsuite.models.transfer.prior import FrozenPrior
from emsuite.models.transfer.settings import ValidDiscriminatorSettings, ValidUNetSettings

_SLOPE = 0.3
_JUDGED = 40
"""Voxels along each axis that one logit of the discriminator is computed from."""


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, _SLOPE)


class ValidUNet(Generator):
    """transfer_em's generator, with one last convolution per head."""

    def __init__(self, settings: ValidUNetSettings, heads: Mapping[str, int]):
        """Build the layers with fresh weights from torch's random state.

        Args:
            settings: the architecture.
            heads: channels of each head, by name.
        """
        super().__init__()
        self.dims, self.dropout, width = settings.dims, settings.dropout, settings.width
        flat = self.dims == 2
        self.stride, self.smallest = (1 if flat else 4, 4, 4), (1 if flat else 38, 38, 38)

        def conv(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Module:
            return convolution(self.dims, in_channels, out_channels, kernel, stride=stride, bias=False)

        self.first = conv(1, width)
        self.down = nn.ModuleList([conv(width, width), conv(width, 2 * width)])
        self.strided = nn.ModuleList([conv(width, width, 4, 2), conv(2 * width, 2 * width, 4, 2)])
        self.up = nn.ModuleList([conv(2 * width, 4 * width), conv(4 * width, 2 * width)])
        self.doubled = nn.ModuleList([
            transposed(self.dims, 4 * width, 2 * width, 4, bias=False),
            transposed(self.dims, 2 * width, width, 4, bias=False),
        ])  # fmt: skip
        self.joined = nn.ModuleList([conv(4 * width, 4 * width), conv(2 * width, 2 * width)])
        self.heads = nn.ModuleDict({name: conv(2 * width, channels) for name, channels in heads.items()})
        draw_normal_weights(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """See `Generator.forward`: 34 voxels less along each axis, z as it is in 2-D. The image is linear, no tanh."""
        samples, skips = len(x), []
        x = _leaky(self.first(as_images(x, self.dims)))
        for conv, strided in zip(self.down, self.strided, strict=True):
            x = _leaky(conv(x))
            skips.append(x)
            x = _leaky(strided(x))
        for conv, doubled, joined in zip(self.up, self.doubled, self.joined, strict=True):
            x = doubled(_leaky(conv(x)))
            x = _leaky(functional.dropout(x, self.dropout, self.training))
            x = _leaky(joined(torch.cat([x, centre_crop(skips.pop(), x.shape[2:])], 1)))
        return {name: as_volume(head(x), self.dims, samples) for name, head in self.heads.items()}

    def extent(self, axis: int, size: int) -> Extent:
        """See `Generator.extent`."""
        x = Extent(size)
        if axis == 0 and self.dims == 2:
            return x
        x, skips = x.convolved(3), []
        for _ in self.down:
            x = x.convolved(3)
            skips.append(x)
            x = x.convolved(4, 2)
        for _ in self.up:
            x = x.convolved(3).transposed(4, 2, 1).joined(skips.pop()).convolved(3)
        return x.convolved(3)


class ValidDiscriminator(nn.Module):
    """transfer_em's discriminator, with or without the features of a frozen network beside its own."""

    def __init__(self, settings: ValidDiscriminatorSettings, in_channels: int = 1, prior: FrozenPrior | None = None):
        """Build the layers with fresh weights from torch's random state.

        Args:
            settings: the architecture.
            in_channels: channels of the input.
            prior: the frozen network, whose features are read beside the own ones.

        Raises:
            BadInput: the features of the prior have other channels than the settings say, or do not fit in size.
        """
        super().__init__()
        self.dims, width = settings.dims, settings.width
        self.prior = prior

        def conv(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Module:
            return convolution(self.dims, in_channels, out_channels, kernel, stride=stride, bias=False)

        self.down = nn.ModuleList([
            conv(in_channels, width), conv(width, width, 4, 2),
            conv(width, 2 * width), conv(2 * width, 4 * width), conv(4 * width, 4 * width, 4, 2),
        ])  # fmt: skip
        more = prior.channels if prior else 0
        self.judge = nn.ModuleList([
            conv(4 * width + more, 4 * width), conv(4 * width, 4 * width, 4, 2), conv(4 * width, 4 * width, 1),
        ])  # fmt: skip
        self.last = convolution(self.dims, 4 * width, 1, 1)
        draw_normal_weights(self)
        if prior:
            sections = 1 if self.dims == 2 else _JUDGED
            prior.check((sections, _JUDGED, _JUDGED), (sections if self.dims == 2 else 6, 6, 6), in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 1, Z', Y', X') for (N, C, Z, Y, X), above 0 for real: one of every 8 voxels, each of 40.

        Raises:
            BadInput: the input has less than 40 voxels along an axis, or the prior's features do not fit.
        """
        sizes = x.shape[2:] if self.dims == 3 else x.shape[3:]
        if min(sizes) < _JUDGED:
            raise BadInput(f"discriminator: an input of {tuple(x.shape[2:])} voxels, expected at least {_JUDGED} each")
        y = as_images(x, self.dims)
        for layer in self.down:
            y = _leaky(layer(y))
        y = _leaky(y)  # once more, as the original
        if self.prior:
            shape: Shape = tuple(y.shape[2:]) if self.dims == 3 else (x.shape[2], *y.shape[2:])
            y = torch.cat([y, as_images(self.prior(x, shape), self.dims)], 1)
        for layer in self.judge:
            y = _leaky(layer(y))
        return as_volume(self.last(y), self.dims, len(x))


def output_sizes(sizes: Sequence[int]) -> Shape:
    """Return the logits along axes of these sizes."""
    return tuple(Extent(n).convolved(3).convolved(4, 2).convolved(3).convolved(3).convolved(4, 2).convolved(3)
                 .convolved(4, 2).size for n in sizes)  # fmt: skip
