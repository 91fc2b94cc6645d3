"""Reading a volume through a warp: linearly for raw, the nearest voxel for labels and masks; 0 outside the volume."""

from collections.abc import Callable, Sequence

import torch
from funlib.geometry import Roi

from emsuite.interpolate import linear, nearest
from emsuite.warp import Warp


def read_linear(source: torch.Tensor, warp: Warp, box: Roi, place: Sequence[int]) -> torch.Tensor:
    """`source` (Z, Y, X) over the sample's `box` (voxels), interpolated linearly: float32, values as in the source.

    `place` is the voxel of `source` that the warp's coordinates count from.
    """
    return _read([source], [torch.float32], warp, box, place, linear)[0]


def read_nearest(
    sources: Sequence[torch.Tensor], warp: Warp, box: Roi, place: Sequence[int]
) -> tuple[torch.Tensor, ...]:
    """As `read_linear`, the nearest voxels of several volumes on one grid, each in its own type."""
    return _read(sources, [source.dtype for source in sources], warp, box, place, nearest)


def crop(source: torch.Tensor, begin: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
    """`shape` voxels of `source` from `begin` on; where these lie outside, 0. A view where none do."""
    low = [min(max(b, 0), n) for b, n in zip(begin, source.shape, strict=True)]
    high = [min(max(b + s, 0), n) for b, s, n in zip(begin, shape, source.shape, strict=True)]
    inside = source[tuple(slice(a, z) for a, z in zip(low, high, strict=True))]
    if tuple(inside.shape) == tuple(shape):
        return inside
    padded = source.new_zeros(tuple(shape))
    if inside.numel():
        padded[tuple(slice(a - b, z - b) for a, z, b in zip(low, high, begin, strict=True))] = inside
    return padded


def _read(
    sources: Sequence[torch.Tensor],
    dtypes: Sequence[torch.dtype],
    warp: Warp,
    box: Roi,
    place: Sequence[int],
    interpolate: Callable,
) -> tuple[torch.Tensor, ...]:
    image = warp.turn.image(box)
    found = [torch.empty(image.shape, dtype=dtype, device=sources[0].device) for dtype in dtypes]
    if warp.rest is None:
        begin = [p + b for p, b in zip(place, image.begin, strict=True)]
        for source, voxels in zip(sources, found, strict=True):
            voxels.copy_(crop(source, begin, image.shape))
    else:
        for part, places in warp.slabs(image, place, sources[0].device):
            for source, voxels in zip(sources, found, strict=True):
                interpolate(source, places, voxels[part])
    return tuple(warp.turn.apply(voxels).contiguous() for voxels in found)
