"""CySGAN's generator: a residual U-Net whose steps down are strided convolutions, and whose skips are added.

    conv5 -> conv, block -> conv/2, block -> ... -> (non-local) -> conv, up, + skip (+ coarsest), block -> ... -> conv5
    block: act(x + squeeze(norm(conv3(act(norm(conv3(x)))))))        its kernels are flat: 1x3x3
    squeeze: each channel times sigmoid(linear(act(linear(the mean of all channels over the tile))))

A norm and an activation follow each convolution but the last one. Borders are repeated, not filled with zeros. A step
down by 2 leaves n of 2n - 1 voxels, on which every second one lies exactly; the way up is linear between them.

`non_local` (UNetPlus3D) adds two things: each voxel of the coarsest level becomes a mean of all of its level, weighted
by likeness (Wang et al. 2018), and this level is added at all others. The original pads the 1x1x1 convolution of
this path by one voxel, so that these features are shrunk a little; so does this one.

Source: zudi-lin/pytorch_connectomics v1.0, UNet3D and UNetPlus3D with `residual_se` (Hu et al. 2018, squeeze and
excitation) and group norms (Wu & He 2018); Lauenburg et al. 2023.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from emsuite.models.layers import elu
from emsuite.models.transfer.extent import Extent
from emsuite.models.transfer.generator import Generator
from emsuite.models.transfer.layers import convolution, interpolated, repeat_border
from emsuite.models.transfer.settings import ResidualUNetSettings

_GROUPS, _REDUCTION, _SLOPE = 8, 4, 0.2
_OUTER, _FLAT = (1, 5, 5), (1, 3, 3)
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": partial(elu, inplace=True),
    "relu": functional.relu_,
    "leaky_relu": partial(functional.leaky_relu_, negative_slope=_SLOPE),
}
"""In place: no gradient of the layers before them needs what they return."""


class ResidualUNet(Generator):
    """Generator of residual blocks at all levels; the heads are channels of one last convolution."""

    def __init__(self, settings: ResidualUNetSettings, heads: Mapping[str, int]):
        """Build the layers with fresh weights from torch's random state: orthogonal kernels, as the original's.

        Args:
            settings: the architecture.
            heads: channels of each head, by name.
        """
        super().__init__()
        self.settings, self.margin, self.is_local = settings, settings.tile_margin, settings.is_local
        widths, kernels = settings.widths, settings.kernels
        self.stride = settings.stride
        self.smallest = tuple(step + 1 if step > 1 else 1 for step in self.stride)
        self.first = _Convolved(settings, 1, widths[0], _OUTER)
        self.down, self.up, self.right, self.coarsest = (nn.ModuleList() for _ in range(4))
        for level, width in enumerate(widths):
            stride = settings.downsample_factors[level - 1] if level else 1
            entered = _Convolved(settings, widths[max(0, level - 1)], width, kernels[level], stride)
            self.down.append(nn.Sequential(entered, _Block(settings, width)))
        for level, width in reversed([*enumerate(widths[:-1])]):
            layer = _Convolved(settings, widths[level + 1], width, kernels[level + 1])
            self.up.append(layer)
            self.right.append(_Block(settings, width))
            if settings.non_local:
                self.coarsest.append(_Convolved(settings, widths[-1], width, (1, 1, 1)))
        self.non_local = _NonLocal(settings, widths[-1]) if settings.non_local else nn.Identity()
        self.channels = dict(heads)
        self.last = convolution(3, widths[0], sum(heads.values()), _OUTER)
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.Linear):
                nn.init.orthogonal_(module.weight)

    @property
    def finest_width(self) -> int:
        """See `Generator.finest_width`."""
        return self.settings.widths[0]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """See `Generator.forward`."""
        x, skips = self.first(x), list[Tensor]()
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        x = coarsest = self.non_local(skips.pop())
        for index, (layer, block) in enumerate(zip(self.up, self.right, strict=True)):
            skip = skips.pop()
            x = interpolated(layer(x), skip.shape[2:]) + skip
            if self.settings.non_local:
                # padded, as in the original: see the module
                x = interpolated(self.coarsest[index](repeat_border(coarsest, (1, 1, 1))), skip.shape[2:]) + x
            x = block(x)
        logits = self.last(repeat_border(x, _around(_OUTER)))
        return dict(zip(self.channels, logits.split([*self.channels.values()], 1), strict=True))

    def extent(self, axis: int, size: int) -> Extent:
        """See `Generator.extent`."""
        settings, skips = self.settings, list[Extent]()
        x = Extent(size).convolved(_OUTER[axis], padding=_OUTER[axis] // 2)
        for level, kernel in enumerate(settings.kernels):
            stride = settings.downsample_factors[level - 1][axis] if level else 1
            x = _in_block(x.convolved(kernel[axis], stride, kernel[axis] // 2), axis)
            skips.append(x)
        x = skips.pop()
        for level in reversed(range(len(skips))):
            kernel, factor = settings.kernels[level + 1], settings.downsample_factors[level][axis]
            x = x.convolved(kernel[axis], padding=kernel[axis] // 2).interpolated(factor).joined(skips.pop())
            x = _in_block(x, axis)
        return x.convolved(_OUTER[axis], padding=_OUTER[axis] // 2)


def _in_block(x: Extent, axis: int) -> Extent:
    for _ in range(2):
        x = x.convolved(_FLAT[axis], padding=_FLAT[axis] // 2)
    return x


def _around(kernel: Sequence[int]) -> tuple[int, ...]:
    return tuple(length // 2 for length in kernel)


class _Convolved(nn.Module):
    """A convolution with repeated borders, its norm, and an activation unless `active` is not set."""

    def __init__(self, settings: ResidualUNetSettings, width: int, fmaps: int, kernel: Sequence[int],
                 stride: int | Sequence[int] = 1, active: bool = True):  # fmt: skip
        super().__init__()
        has_norm = settings.norm == "group"
        self.around = _around(kernel)
        self.conv = convolution(3, width, fmaps, kernel, stride=stride, bias=not has_norm)
        self.norm = nn.GroupNorm(_GROUPS, fmaps) if has_norm else nn.Identity()
        self.activate = _ACTIVATIONS[settings.activation] if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(repeat_border(x, self.around))
        # with channels last in memory, a CPU's sums depend on the number of threads
        normed: Tensor = self.norm(x if x.is_cuda else x.contiguous())
        return self.activate(normed)


class _Block(nn.Module):
    """A residual block."""

    def __init__(self, settings: ResidualUNetSettings, width: int):
        super().__init__()
        self.convs = nn.Sequential(
            _Convolved(settings, width, width, _FLAT), _Convolved(settings, width, width, _FLAT, active=False)
        )
        self.squeeze = _Squeeze(settings, width) if settings.squeeze else nn.Identity()
        self.activate = _ACTIVATIONS[settings.activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(self.squeeze(self.convs(x)) + x)


class _Squeeze(nn.Module):
    """Squeeze and excitation: channels are weighted by what their means over the whole tile say."""

    def __init__(self, settings: ResidualUNetSettings, width: int):
        super().__init__()
        self.inner = nn.Linear(width, width // _REDUCTION, bias=False)
        self.outer = nn.Linear(width // _REDUCTION, width, bias=False)
        self.activate = _ACTIVATIONS[settings.activation]

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.outer(self.activate(self.inner(x.mean((2, 3, 4))))))
        return x * weights[:, :, None, None, None]


class _NonLocal(nn.Module):
    """Adds to each voxel a mean of all voxels, weighted by likeness; adds nothing before it is trained."""

    def __init__(self, settings: ResidualUNetSettings, width: int):
        super().__init__()
        inner = width // 2
        self.value, self.query, self.key = (convolution(3, width, inner, 1) for _ in range(3))
        self.back = convolution(3, inner, width, 1)
        self.norm = nn.GroupNorm(_GROUPS, width)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part(x).flatten(2).transpose(1, 2) for part in (self.query, self.key, self.value))
        # torch's fused attention sums in parts that depend on the number of threads
        mean = (query @ key.transpose(1, 2)).softmax(2) @ value
        normed: Tensor = self.norm(self.back(mean.transpose(1, 2).unflatten(2, x.shape[2:])))
        return normed + x
