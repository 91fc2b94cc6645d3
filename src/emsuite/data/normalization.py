"""From stored grey values to the range that a network reads, and back.

stored        uint8, or floats in [0, 1]; other types in a range, see `grey_values.py`
unit range    float32 in [0, 1]: samples and augmentations
normalized    unit range * gain + shift: what the network reads
"""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from emsuite.augment.resample import Source
from emsuite.common.settings import Settings

_SECTIONS = 32  # sections of a volume that its statistics are measured on
_PIXELS = 2**24  # the longest tensor that torch.quantile takes


class GreyScale(NamedTuple):
    """normalized = unit range * gain + shift; numbers, or tensors that broadcast over a batch."""

    gain: float | Tensor
    shift: float | Tensor

    def apply(self, unit: Tensor) -> Tensor:
        """Return the normalized values of values in [0, 1]."""
        return unit * self.gain + self.shift

    def undo(self, normalized: Tensor) -> Tensor:
        """Return the values in [0, 1] of normalized values."""
        return (normalized - self.shift) / self.gain


_FIXED = {"unit_range": GreyScale(1.0, 0.0), "signed_unit_range": GreyScale(2.0, -1.0)}
_Percent = Annotated[float, Field(ge=0, le=100)]
_Grey = Annotated[float, Field(allow_inf_nan=False)]


class Normalization(Settings):
    """How grey values become the input of the network."""

    method: Literal["signed_unit_range", "unit_range", "z_score", "percentile"] = Field(
        "signed_unit_range",
        description="signed_unit_range: [-1, 1], as the published networks; unit_range: [0, 1]; z_score: mean 0, "
        "standard deviation 1; percentile: -1 and 1 at two percentiles",
    )
    scope: Literal["dataset", "volume", "tile"] = Field(
        "dataset",
        description="statistics of z_score and percentile, from all training volumes together (recorded in the "
        "checkpoint), from each volume (a field of view), or from each sample and tile",
    )
    percentiles: tuple[_Percent, _Percent] = Field((1.0, 99.0), description="lower and upper, of percentile")
    grey_range: Literal["dtype", "percentiles"] | tuple[_Grey, _Grey] = Field(
        "dtype",
        description="grey values that become 0 and 1, before `method`: dtype: the range of the type of integers, "
        "floats as they are; percentiles: measured on all training volumes, recorded in the checkpoint; or [low, high]",
    )

    @model_validator(mode="after")
    def _ascending(self) -> "Normalization":
        if isinstance(self.grey_range, tuple) and not self.grey_range[0] < self.grey_range[1]:
            raise ValueError(f"grey_range: {list(self.grey_range)}, expected the lower value first")
        if self.percentiles[0] >= self.percentiles[1]:
            raise ValueError(f"percentiles: {list(self.percentiles)}, expected the lower one first")
        return self

    @property
    def fixed(self) -> GreyScale | None:
        """The grey scale of methods that measure nothing; None for others."""
        return _FIXED.get(self.method)

    def measure(self, unit: Tensor) -> GreyScale:
        """Return the grey scale that suits values in [0, 1] (any shape)."""
        if self.fixed:
            return self.fixed
        values = unit.detach().flatten().float()
        if self.method == "z_score":
            deviation, mean = torch.std_mean(values.double(), correction=0)
            gain = 1.0 / max(float(deviation), 1e-6)
            return GreyScale(gain, -float(mean) * gain)
        values = values[:: -(-values.numel() // _PIXELS)]
        low, high = (float(torch.quantile(values, percent / 100.0)) for percent in self.percentiles)
        gain = 2.0 / max(high - low, 1e-6)
        return GreyScale(gain, -1.0 - low * gain)

    def measure_volumes(self, volumes: Sequence[Source]) -> GreyScale:
        """Return the grey scale of volumes together, from up to 32 sections of each, evenly spaced."""
        return self.fixed or self.measure(torch.cat([_some_sections(volume).flatten() for volume in volumes]))

    def measure_samples(self, unit: Tensor) -> GreyScale:
        """Return a grey scale for each sample of a batch `(B, C, Z, Y, X)`, to broadcast over the batch."""
        if self.fixed:
            return self.fixed
        return stack_scales([self.measure(sample) for sample in unit], unit)


def stack_scales(scales: Sequence[GreyScale], batch: Tensor) -> GreyScale:
    """Return one grey scale for a batch, a number per sample, on the batch's device."""
    shape = (-1, *(1,) * (batch.ndim - 1))
    gain, shift = (torch.tensor(numbers, dtype=torch.float32) for numbers in zip(*scales, strict=True))
    return GreyScale(gain.view(shape).to(batch.device), shift.view(shape).to(batch.device))


def to_unit_range(raw: Tensor) -> Tensor:
    """Return uint8 as float32 in [0, 1]; floats, which lie in [0, 1] already, as float32."""
    return raw.float().div_(255.0) if raw.dtype == torch.uint8 else raw.float()


def normalized(raw: Tensor, scale: GreyScale = _FIXED["signed_unit_range"]) -> Tensor:
    """Return uint8, or floats in [0, 1], as float32 in the range that the network reads, in one new tensor."""
    voxels = raw.to(torch.float32, copy=True)
    return (voxels.div_(255.0) if raw.dtype == torch.uint8 else voxels).mul_(scale.gain).add_(scale.shift)


def _some_sections(volume: Source) -> Tensor:
    sections = volume.shape[0]
    step = max(1, sections // _SECTIONS)
    return torch.cat([to_unit_range(volume[z : z + 1, :, :]) for z in range(step // 2, sections, step)])
