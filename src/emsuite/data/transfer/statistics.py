"""Mean and standard deviation of a domain: measured once, in a stream; applied to images, and undone.

grey values  --range-->  -1 to 1  --(x - mean) / std-->  normalized  --x * std + mean-->  -1 to 1  -->  uint8
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from emsuite.augment.resample import Source
from emsuite.common.errors import BadInput
from emsuite.data.grey_values import GreyRange
from emsuite.data.normalization import GreyScale, normalized

_VOXELS_AT_ONCE = 2**24


@dataclass(frozen=True)
class DomainStatistics:
    """The scale of a domain's values."""

    mean: float = 0.0
    """Of values from -1 to 1."""
    std: float = 1.0
    """Of values from -1 to 1, above 0."""
    grey_range: GreyRange | None = None
    """The grey values that stand for -1 and 1; None: the range of their type."""

    @property
    def scale(self) -> GreyScale:
        """normalized = values from 0 to 1 * gain + shift."""
        return GreyScale(2.0 / self.std, (-1.0 - self.mean) / self.std)

    def normalized(self, raw: Tensor) -> Tensor:
        """Return uint8, or floats in [0, 1], as normalized float32, any shape."""
        return normalized(raw, self.scale)

    def restored(self, values: Tensor) -> Tensor:
        """Return normalized values as uint8: rounded to the nearest, and clipped, so that nothing wraps around."""
        grey = values.float().mul(self.std).add_(self.mean + 1.0).mul_(127.5)
        return grey.round_().clamp_(0, 255).nan_to_num_().to(torch.uint8)

    def as_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores."""
        return {"mean": self.mean, "std": self.std, "grey_range": self.grey_range and list(self.grey_range)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Return what a checkpoint stores; raise BadInput for anything else."""
        try:
            low_high = stored["grey_range"]
            mean, std = float(stored["mean"]), float(stored["std"])
            grey_range = None if low_high is None else GreyRange(*map(float, low_high))
        except (KeyError, TypeError, ValueError):
            raise BadInput(f"statistics of a domain: {stored!r}, expected mean, std and grey_range") from None
        if not (np.isfinite(mean) and np.isfinite(std) and std > 0):
            raise BadInput(f"statistics of a domain: mean {mean}, std {std}, expected numbers, std above 0")
        return cls(mean, std, grey_range)


class Moments:
    """Mean and variance of values that come in pieces, in float64 (Chan, Golub and LeVeque 1979)."""

    def __init__(self) -> None:
        """Begin without a value."""
        self.number, self.mean, self._squares = 0, 0.0, 0.0

    @property
    def variance(self) -> float:
        """Mean squared distance from the mean."""
        return self._squares / self.number if self.number else 0.0

    def add(self, values: Tensor) -> None:
        """Take in values of any shape."""
        count = values.numel()
        if not count:
            return
        variance, mean = (float(n) for n in torch.var_mean(values.double(), correction=0))
        total, apart = self.number + count, mean - self.mean
        self._squares += variance * count + apart**2 * self.number * count / total
        self.mean += apart * count / total
        self.number = total


def measure_voxels(boxes: Sequence[Source], name: str) -> tuple[float, float]:
    """Return mean and standard deviation of all voxels of boxes together, on the scale of -1 to 1.

    Args:
        boxes: (Z, Y, X) uint8, or float32 in [0, 1]. They are read once, some sections at a time.
        name: of the domain, for the message.

    Raises:
        BadInput: all voxels are alike.
    """
    moments = Moments()
    for box in boxes:
        for slab in _slabs(box):
            moments.add(normalized(slab))
    return moments.mean, _deviation(moments.variance, name)


def measure_samples(boxes: Sequence[Source], shape: Sequence[int], name: str) -> tuple[float, float]:
    """Return the mean of the samples' means, and the root of the mean of their variances, as transfer_em does.

    The variance between samples is missing in it. Samples are the tiles of `shape` that fit into the boxes, from their
    first corner on. Other arguments and errors are those of `measure_voxels`.
    """
    means, variances = list[float](), list[float]()
    for sample in _tiles(boxes, shape):
        variance, mean = torch.var_mean(normalized(sample).double(), correction=0)
        means.append(float(mean))
        variances.append(float(variance))
    if not means:
        raise BadInput(f"{name}: no box holds a sample of {tuple(shape)} voxels, expected one for its statistics")
    return float(np.mean(means)), _deviation(float(np.mean(variances)), name)


def check_varied(boxes: Iterable[Source], name: str) -> None:
    """Raise BadInput if all voxels of all boxes are alike; reads until one differs."""
    seen: float | None = None
    for slab in (slab for box in boxes for slab in _slabs(box)):
        low, high = (float(value) for value in torch.aminmax(slab))
        seen = low if seen is None else seen
        if not low == high == seen:
            return
    raise BadInput(f"{name}: all its voxels are alike, expected images")


def _deviation(variance: float, name: str) -> float:
    if not variance > 0:
        raise BadInput(f"{name}: all its voxels are alike, expected different grey values to standardize")
    return float(np.sqrt(variance))


def _slabs(box: Source) -> Iterator[Tensor]:
    sections = max(1, _VOXELS_AT_ONCE // max(1, int(np.prod(box.shape[1:]))))
    for z in range(0, box.shape[0], sections):
        yield box[z : z + sections, :, :]


def _tiles(boxes: Iterable[Source], shape: Sequence[int]) -> Iterator[Tensor]:
    for box in boxes:
        corners = [range(0, size - length + 1, length) for size, length in zip(box.shape, shape, strict=True)]
        for corner in product(*corners):
            yield box[tuple(slice(begin, begin + n) for begin, n in zip(corner, shape, strict=True))]
