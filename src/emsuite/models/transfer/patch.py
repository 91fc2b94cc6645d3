"""PatchGAN: a discriminator whose every logit judges one of many overlapping patches.

    conv4/2  ->  conv4/2, norm  ->  conv4/2, norm  ->  conv4/1, norm  ->  conv4/1      LeakyReLU 0.2 between, padding 1

With 3 layers a patch is 70 pixels wide, and patches lie 8 apart. In 3-D the first layer has kernel 1x4x4 and strides
(1, 2, 2), all others 4 along each axis: a patch is 34 sections deep, and an input has at least 12 sections.

Source: Isola et al. 2017 (junyanz/pytorch-CycleGAN-and-pix2pix); in 3-D Lauenburg/og_cysgan_dev.
"""

from torch import Tensor, nn
from torch.nn import functional

from emsuite.common.arrays import Shape
from emsuite.common.errors import BadInput
from emsuite.models.transfer.extent import Extent
from emsuite.models.transfer.layers import as_images, as_volume, convolution, draw_normal_weights, normalize
from emsuite.models.transfer.settings import PatchSettings

_SLOPE = 0.2
_KERNEL = 4


class PatchDiscriminator(nn.Module):
    """PatchGAN, 2-D or 3-D."""

    def __init__(self, settings: PatchSettings, in_channels: int = 1):
        """Build the layers with fresh weights from torch's random state.

        Args:
            settings: the architecture.
            in_channels: channels of the input.
        """
        super().__init__()
        self.settings = settings
        dims, count = settings.dims, settings.layers
        widths = [in_channels, *(settings.width * min(2**index, 8) for index in range(count + 1)), 1]
        self.layers = nn.ModuleList()
        for index in range(count + 2):
            kernel, stride, padding = zip(*(self._along(index, axis) for axis in range(3 - dims, 3)), strict=True)
            before, behind = widths[index : index + 2]
            self.layers.append(convolution(dims, before, behind, kernel, stride=stride, padding=padding))
        draw_normal_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 1, Z', Y', X') for (N, C, Z, Y, X), above 0 for real.

        Raises:
            BadInput: the input is too small for a single patch.
        """
        self.output_shape(tuple(x.shape[2:]))
        dims, last = self.settings.dims, len(self.layers) - 1
        y = as_images(x, dims)
        for index, layer in enumerate(self.layers):
            y = layer(y)
            if index < last:
                y = functional.leaky_relu(normalize(y, self.settings.norm) if index else y, _SLOPE)
        return as_volume(y, dims, len(x))

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the number of logits, z y x, for the voxels of an input; raise BadInput where it is too small."""
        out = tuple(self._extent(axis, n).size for axis, n in enumerate(input_shape))
        if min(out) < 1:
            least = tuple(next(n for n in range(1, 4096) if self._extent(axis, n).size > 0) for axis in range(3))
            raise BadInput(f"discriminator: an input of {tuple(input_shape)} voxels, expected at least {least}")
        return out

    def _extent(self, axis: int, size: int) -> Extent:
        x = Extent(size)
        if axis == 0 and self.settings.dims == 2:
            return x
        for index in range(len(self.layers)):
            x = x.convolved(*self._along(index, axis))
        return x

    def _along(self, index: int, axis: int) -> Shape:
        """Return the kernel, the stride and the padding of a layer along z, y or x."""
        if index == 0 and axis == 0:
            return 1, 1, 0
        return _KERNEL, 2 if index < self.settings.layers else 1, 1
