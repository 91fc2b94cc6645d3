"""CycleGAN's generator: two steps down, residual blocks, two steps up, as large an output as the input.

    reflect 3, conv7  ->  conv3/2  ->  conv3/2  ->  blocks  ->  up  ->  up  ->  reflect 3, conv7
    block: x + norm(conv3(reflect(dropout(relu(norm(conv3(reflect(x))))))))        no ReLU behind the sum

A norm and ReLU follow each convolution outside the blocks but the last one, which gives logits: tanh is the head's.

Source: Zhu et al. 2017 and Johnson et al. 2016 (junyanz/pytorch-CycleGAN-and-pix2pix); in 3-D every axis is treated
like those of a section, or as `downsample_factors` say. `upsample: resize` is Odena et al. 2016.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from emsuite.common.arrays import Shape
from emsuite.models.transfer.extent import Extent
from emsuite.models.transfer.generator import Generator
from emsuite.models.transfer.layers import (
    as_images,
    as_volume,
    convolution,
    draw_normal_weights,
    normalize,
    reflect,
    transposed,
)
from emsuite.models.transfer.settings import ResNetSettings
from emsuite.models.upsample import repeated

_OUTER = 7
"""The kernel of the first and the last layer."""


class ResNet(Generator):
    """Generator of residual blocks, with one last convolution per head."""

    def __init__(self, settings: ResNetSettings, heads: Mapping[str, int]):
        """Build the layers with fresh weights from torch's random state.

        Args:
            settings: the architecture.
            heads: channels of each head, by name.
        """
        super().__init__()
        self.settings, self.margin, self.is_local = settings, settings.tile_margin, settings.norm == "none"
        dims, width, factors = settings.dims, settings.width, settings.factors
        self.stride = self._stride()
        # two voxels of the coarsest grid for the blocks, four of the finest for the outer layers: reflection needs them
        self.smallest = tuple(max(2 * s, -(-(_OUTER // 2 + 1) // s) * s) for s in self.stride)
        if dims == 2:
            self.smallest = (1, *self.smallest[1:])
        self.first = convolution(dims, 1, width, _OUTER, padding=self._zeros(_OUTER))
        self.down = nn.ModuleList(
            convolution(dims, width << step, width << step + 1, 3, stride=factor, padding=1)
            for step, factor in enumerate(factors)
        )
        widest = width << len(factors)
        self.blocks = nn.ModuleList(_Block(settings, widest) for _ in range(settings.blocks))
        self.up = nn.ModuleList(
            self._upsampling(width << step + 1, width << step, factors[step]) for step in reversed(range(len(factors)))
        )
        self.heads = nn.ModuleDict({
            name: convolution(dims, width, channels, _OUTER, padding=self._zeros(_OUTER))
            for name, channels in heads.items()
        })  # fmt: skip
        draw_normal_weights(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """See `Generator.forward`."""
        dims, samples = self.settings.dims, len(x)
        x = self._followed(self.first(self._padded(as_images(x, dims), _OUTER)))
        for layer in self.down:
            x = self._followed(layer(x))
        for block in self.blocks:
            x = block(x)
        for layer, factor in zip(self.up, reversed(self.settings.factors), strict=True):
            if self.settings.upsample == "resize":
                for axis, times in enumerate(factor, start=2):
                    x = repeated(x, axis, times) if times > 1 else x
                x = self._padded(x, 3)
            x = self._followed(layer(x))
        x = self._padded(x, _OUTER)
        return {name: as_volume(head(x), dims, samples) for name, head in self.heads.items()}

    def extent(self, axis: int, size: int) -> Extent:
        """See `Generator.extent`."""
        x, settings = Extent(size), self.settings
        if axis == 0 and settings.dims == 2:
            return x
        factors = [factor[axis - 3] for factor in settings.factors]  # the last axes are those of a section
        x = x.convolved(_OUTER, padding=_OUTER // 2)
        for factor in factors:
            x = x.convolved(3, factor, 1)
        for _ in range(2 * settings.blocks):
            x = x.convolved(3, padding=1)
        for factor in reversed(factors):
            if settings.upsample == "resize":
                x = x.repeated(factor).convolved(3, padding=1)
            else:
                x = x.transposed(3, factor, 1, factor - 1)
        return x.convolved(_OUTER, padding=_OUTER // 2)

    def _stride(self) -> Shape:
        product = [1] * self.settings.dims
        for factor in self.settings.factors:
            product = [p * f for p, f in zip(product, factor, strict=True)]
        return (1,) * (3 - self.settings.dims) + tuple(product)

    def _upsampling(self, in_channels: int, out_channels: int, factor: Shape) -> nn.Module:
        dims = self.settings.dims
        if self.settings.upsample == "resize":
            return convolution(dims, in_channels, out_channels, 3, padding=self._zeros(3))
        more = [f - 1 for f in factor]
        return transposed(dims, in_channels, out_channels, 3, stride=factor, padding=1, more=more)

    def _zeros(self, kernel: int) -> int:
        return kernel // 2 if self.settings.padding == "zeros" else 0

    def _padded(self, x: Tensor, kernel: int) -> Tensor:
        return reflect(x, kernel // 2, self.settings.dims) if self.settings.padding == "reflect" else x

    def _followed(self, x: Tensor) -> Tensor:
        return functional.relu(normalize(x, self.settings.norm))


class _Block(nn.Module):
    """A residual block."""

    def __init__(self, settings: ResNetSettings, width: int):
        super().__init__()
        self.settings = settings
        padding = 0 if settings.padding == "reflect" else 1
        self.convs = nn.ModuleList(convolution(settings.dims, width, width, 3, padding=padding) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self._convolved(0, x))
        return x + self._convolved(1, functional.dropout(y, self.settings.dropout, self.training))

    def _convolved(self, index: int, x: Tensor) -> Tensor:
        x = reflect(x, 1, self.settings.dims) if self.settings.padding == "reflect" else x
        return normalize(self.convs[index](x), self.settings.norm)
