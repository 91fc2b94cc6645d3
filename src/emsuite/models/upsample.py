"""Transposed convolution with kernel = stride, as one matrix product and a rearrangement of voxels.

    each voxel of the coarse grid  ->  its own block of `factor` voxels of the fine grid

PyTorch's transposed convolution gives the same numbers, but takes 3 to 10 times as long on a CPU.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from emsuite.models.aligned import aligned


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

    def forward(self, x: Tensor, pads: bool = False) -> Tensor:
        """Return the upsampled features, channels last in memory; channels are padded if `pads`, as in `aligned`."""
        n, channels, *shape = x.shape
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        out = weight.shape[1]
        if pads:
            out = aligned(out)
            behind = (0, out - len(bias))
            weight = functional.pad(weight, (0, 0) * len(shape) + behind + (0, channels - len(weight)))
            bias = functional.pad(bias, behind)
        # weight as (block voxels * out, in): the voxels of a block first, then their channels
        weight = weight.flatten(2).permute(2, 1, 0).flatten(0, 1)
        blocks = functional.linear(x.movedim(1, -1), weight, bias.repeat(weight.shape[0] // out))
        dims = len(shape)
        blocks = blocks.view(n, *shape, *self.factor, out)
        order = [
            0,
            *(axis for pair in zip(range(1, dims + 1), range(dims + 1, 2 * dims + 1), strict=True) for axis in pair),
        ]
        fine = [length * factor for length, factor in zip(shape, self.factor, strict=True)]
        return blocks.permute(*order, 2 * dims + 1).reshape(n, *fine, out).movedim(-1, 1)
