"""How foreground, contours and distances become instances: the published decodings, and the keys that change them."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt

from emsuite.common.settings import Settings

Flood = Literal["foreground", "distance"]
DecodingName = Literal["bc", "bcd", "bcd_2026", "cysgan"]
_Share = Annotated[float, Field(ge=-1, le=2)]
_Distance = Annotated[float, Field(ge=-1, le=1)]


@dataclass(frozen=True)
class Decoding:
    """All numbers of a decoding.

    A voxel is part of a seed where the foreground is above `seed_foreground`, the contour below `seed_contour` and the
    distance above `seed_distance`; it is part of an instance where they are above `mask_foreground`, below
    `mask_contour` and above `mask_distance`. None: the head does not decide.
    """

    seed_foreground: float
    seed_contour: float
    seed_distance: float | None
    smallest_seed: int
    """In voxels; smaller seeds are dropped."""
    mask_foreground: float
    mask_contour: float | None
    mask_distance: float | None
    flood_on: Flood
    """What the watershed floods, from high to low."""
    smallest_instance: int
    """In voxels; smaller instances are dropped."""
    rounded: bool = True
    """Whether thresholds of foreground and contour are rounded down to whole steps of 1 / 255."""
    masked_afterwards: bool = False
    """Whether the flood goes everywhere, and what is no part of an instance is removed behind it."""

    @property
    def needs_distance(self) -> bool:
        """Whether it reads a distance."""
        return self.seed_distance is not None or self.mask_distance is not None or self.flood_on == "distance"


_BC = Decoding(0.9, 0.8, None, 32, 0.85, None, None, "foreground", 128)
_BCD = replace(_BC, seed_distance=0.5, mask_distance=0.0)
DECODINGS: dict[str, Decoding] = {
    "bc": _BC,
    "bcd": _BCD,
    "bcd_2026": replace(
        _BCD, mask_contour=1.1, flood_on="distance", smallest_instance=0, rounded=False, masked_afterwards=True
    ),
    "cysgan": Decoding(0.9, 0.2, 0.5, 32, 0.7, None, -0.1, "foreground", 256),
}
"""The published decodings. Sources: PyTorch Connectomics (zudi-lin/pytorch_connectomics), `bc_watershed` of v0.20 to
v1.0, `bcd_watershed` of v0.22 to v1.0, and of its master branch of August 2026; CySGAN's configuration of v1.0."""


class InstanceSettings(Settings):
    """How instances are decoded: a published decoding, and what differs from it."""

    decoding: DecodingName | None = Field(
        None,
        description="Published thresholds to begin with: of foreground and contour (bc), of a distance as well "
        "(bcd, and that of 2026), or CySGAN's. [default: bcd with a distance, else bc]",
    )  # fmt: skip
    seed_foreground: _Share | None = Field(None, description="Seeds: the foreground is above it. [published: 0.9]")
    seed_contour: _Share | None = Field(
        None, description="Seeds: the contour is below it. [published: 0.8; cysgan: 0.2]"
    )
    seed_distance: _Distance | None = Field(None, description="Seeds: the distance is above it. [published: 0.5]")
    smallest_seed: NonNegativeInt | None = Field(None, description="Drop smaller seeds, voxels. [published: 32]")
    mask_foreground: _Share | None = Field(
        None, description="Instances: the foreground is above it; -1: everywhere. [published: 0.85; cysgan: 0.7]"
    )
    mask_contour: _Share | None = Field(
        None, description="Instances: the contour is below it. [published: any; bcd_2026: 1.1]"
    )
    mask_distance: _Distance | None = Field(
        None, description="Instances: the distance is above it. [published: 0; cysgan: -0.1]"
    )
    flood_on: Flood | None = Field(
        None, description="What the watershed floods. [published: foreground; bcd_2026: distance]"
    )
    smallest_instance: NonNegativeInt | None = Field(
        None, description="Drop smaller instances, voxels. [published: 128; cysgan: 256; bcd_2026: 0]"
    )

    def resolve(self, has_distance: bool) -> Decoding:
        """Return all numbers, for predictions with or without a distance."""
        named = DECODINGS[self.decoding or ("bcd" if has_distance else "bc")]
        chosen: dict[str, Any] = {key: value for key, value in self if key != "decoding" and value is not None}
        return Decoding(**asdict(named) | chosen)
