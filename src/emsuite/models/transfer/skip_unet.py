"""pix2pix's generator: strided convolutions down to a single voxel, transposed ones up, a skip at every level.

    conv4/2  ->  LeakyReLU, conv4/2, norm  ->  ...  ->  LeakyReLU, conv4/2  ->  ReLU, transposed 4/2, norm  ->  ...
       |                  |                                                                   |
       +------------------+------------- the input of a level beside what comes up -----------+ ReLU, transposed: logits

The innermost and the outermost convolution have no norm. Channels double up to 8 times the width. Where dropout is on,
it follows the norms on the way up of the levels behind the fourth, but not of the innermost one.

Each voxel of the output sees more than the image that the network was published for. So tiles as large as that image
have no voxel with all its context: set `tile_margin` and blend, or take large tiles.

Source: Isola et al. 2017 (junyanz/pytorch-CycleGAN-and-pix2pix, unet_128 and unet_256).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from emsuite.models.transfer.extent import Extent
from emsuite.models.transfer.generator import Generator
from emsuite.models.transfer.layers import (
    as_images,
    as_volume,
    convolution,
    draw_normal_weights,
    normalize,
    transposed,
)
from emsuite.models.transfer.settings import SkipUNetSettings

_SLOPE = 0.2
_FIRST_DROPPED = 4
"""The first level whose values drop out."""


class SkipUNet(Generator):
    """Generator with a skip connection at every level, and one last transposed convolution per head."""

    def __init__(self, settings: SkipUNetSettings, heads: Mapping[str, int]):
        """Build the layers with fresh weights from torch's random state.

        Args:
            settings: the architecture.
            heads: channels of each head, by name.
        """
        super().__init__()
        self.settings, self.margin, self.is_local = settings, settings.tile_margin, settings.norm == "none"
        dims, levels = settings.dims, settings.levels
        whole = 2**levels
        self.stride = self.smallest = (1 if dims == 2 else whole, whole, whole)
        widths = [settings.width * min(2**level, 8) for level in range(levels)]
        self.down = nn.ModuleList(
            convolution(dims, before, behind, 4, stride=2, padding=1)
            for before, behind in zip([1, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            transposed(dims, widths[level] * (1 if level == levels - 1 else 2), widths[level - 1], 4)
            for level in reversed(range(1, levels))
        )
        self.heads = nn.ModuleDict({name: transposed(dims, 2 * widths[0], n, 4) for name, n in heads.items()})
        draw_normal_weights(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """See `Generator.forward`."""
        settings, samples, last = self.settings, len(x), self.settings.levels - 1
        x = self.down[0](as_images(x, settings.dims))
        skips = [x]
        for level in range(1, settings.levels):
            x = self.down[level](functional.leaky_relu(x, _SLOPE))
            if level < last:
                x = normalize(x, settings.norm)
                skips.append(x)
        for level, layer in zip(reversed(range(1, settings.levels)), self.up, strict=True):
            x = normalize(layer(functional.relu(x)), settings.norm)
            if _FIRST_DROPPED <= level < last:
                x = functional.dropout(x, settings.dropout, self.training)
            x = torch.cat([skips.pop(), x], 1)
        x = functional.relu(x)
        return {name: as_volume(head(x), settings.dims, samples) for name, head in self.heads.items()}

    def extent(self, axis: int, size: int) -> Extent:
        """See `Generator.extent`."""
        x, skips = Extent(size), list[Extent]()
        if axis == 0 and self.settings.dims == 2:
            return x
        for _ in range(self.settings.levels):
            x = x.convolved(4, 2, 1)
            skips.append(x)
        for _ in range(self.settings.levels):
            x = x.joined(skips.pop()).transposed(4, 2, 1)
        return x
