"""What a network predicts: one head per target, with its loss and the voxels that count."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from emsuite.common.settings import Settings
from emsuite.losses.registry import ONLY_AFFINITIES, check_name

Offset = tuple[int, int, int]


LossName = Annotated[str, AfterValidator(check_name)]
AffinityWeights = Literal["balance", "mask"]


class LossSwitch(Settings):
    """From an iteration on, another loss on other voxels, with a fresh optimizer."""

    iteration: int = Field(gt=0, description="the first loss is used up to this iteration")
    loss: LossName
    weights: AffinityWeights = "mask"


class AffinitiesHead(Settings):
    """Affinities to the voxels at `neighborhood`: 1 where both ends carry the same label (Turaga et al. 2010)."""

    target: Literal["affinities"]
    neighborhood: tuple[Offset, ...] = Field(min_length=1, description="offsets in voxels, z y x, one channel each")
    loss: LossName = "weighted_mse"
    loss_weight: float = Field(1.0, ge=0, description="factor of this head's loss in the sum over heads")
    weights: AffinityWeights = Field(
        "balance", description="balance: both classes alike, all channels together; mask: both ends in the labels mask"
    )
    then: LossSwitch | None = Field(None, description="another loss later on")

    def at(self, iteration: int) -> "AffinitiesHead":
        """The head as it is for the step that ends at `iteration` (the first step ends at 1)."""
        if self.then is None or iteration <= self.then.iteration:
            return self
        return self.model_copy(update={"loss": self.then.loss, "weights": self.then.weights})

    @property
    def channels(self) -> int:
        """One per offset."""
        return len(self.neighborhood)


class LsdsHead(Settings):
    """Local shape descriptors, ten channels (Sheridan et al. 2022)."""

    target: Literal["lsds"]
    loss: LossName = "weighted_mse"
    loss_weight: float = Field(1.0, ge=0, description="factor of this head's loss in the sum over heads")
    sigma: float = Field(gt=0, description="of the Gaussian window, nm")
    downsample: int = Field(2, gt=0, description="compute on every n-th voxel")
    weights: Literal["mask", "labelled", "labelled_or_unmasked"] = Field(
        "mask", description="voxels that count: in the labels mask, labelled, or labelled or outside the mask"
    )

    @model_validator(mode="after")
    def _loss_fits(self) -> "LsdsHead":
        if self.loss in ONLY_AFFINITIES:
            raise ValueError(f"the loss '{self.loss}' is one of affinities, expected another for LSDs")
        return self

    @property
    def channels(self) -> int:
        """Mean offset 3, variance 3, Pearson 3, size 1."""
        return 10

    def at(self, _iteration: int) -> "LsdsHead":
        """The head as it is for the step that ends at that iteration: always the same."""
        return self


Head = Annotated[AffinitiesHead | LsdsHead, Field(discriminator="target")]

Heads = Annotated[dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Head], Field(min_length=1)]
