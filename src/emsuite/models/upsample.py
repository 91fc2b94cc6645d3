"""Transposed convolution with kernel = stride, as one matrix product and a rearrangement of voxels.

    each voxel of the coarse grid  ->  its own block of `factor` voxels of the fine grid

PyTorch's transposed convolution gives the same numbers, but takes 3 to 10 times as long on a CPU.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from emsuite.models.aligned import aligned
from emsuite.models.crop import arrange


class Upsample(nn.Module):
    """Upsample `(N, in, *shape)` float to `(N, out, *shape * factor)` float, with any number of axes.

    The parameters are those of `nn.ConvTranspose3d`: weight `(in, out, *factor)`, bias `(out,)`.
    """

    def __init__(self, in_channels: int, out_channels: int, factor: Sequence[int]):
        super().__init__()
        self.factor = tuple(factor)
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, *self.factor))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        # each output voxel is a sum over the input's channels only, so the factor does not enter the deviation
        nn.init.normal_(self.weight, std=(2.0 / in_channels) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the upsampled features, channels last in memory."""
        return arrange(self.blocks(x), self.factor)

    def blocks(self, x: Tensor, pads: bool = False) -> Tensor:
        """Return the upsampled features block by block: `(N, *shape, voxels of a block * out)`.

        Args:
            x: as for `forward`; its channels may be padded with zeros.
            pads: whether to pad the channels of the result, as `emsuite.models.aligned` does.
        """
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        behind = (0, aligned(len(bias)) - len(bias)) if pads else (0, 0)
        if pads:
            weight = functional.pad(weight, (0, 0) * len(self.factor) + behind + (0, x.shape[1] - len(weight)))
            bias = functional.pad(bias, behind)
        # weight as (block voxels * out, in): the voxels of a block first, then their channels
        rows = weight.flatten(2).permute(2, 1, 0).flatten(0, 1)
        return functional.linear(x.movedim(1, -1), rows, bias.repeat(len(rows) // len(bias)))
