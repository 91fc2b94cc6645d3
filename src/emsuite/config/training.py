"""Parts of network.yaml: Adam and its learning rate, the first weights, a frozen network, validation."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from emsuite.common.settings import Settings
from emsuite.config.parts import Parts

Decay = Annotated[float, Field(ge=0, lt=1)]


class Cycle(Settings):
    """A learning rate that rises and falls in straight lines, again and again (Smith 2017)."""

    lowest_rate: float = Field(ge=0, description="where each cycle begins and ends")
    half: PositiveInt = Field(description="iterations of the rise, and of the fall")
    gamma: float = Field(1.0, gt=0, le=1, description="factor of a cycle's height, for each cycle or iteration before")
    gamma_by: Literal["cycle", "iteration"] = "cycle"


class Optimizer(Settings):
    """Adam (Kingma and Ba 2015), with an optional warm-up and decay of the learning rate."""

    learning_rate: float = Field(0.5e-4, gt=0)
    betas: tuple[Decay, Decay] = (0.95, 0.999)
    eps: float = Field(1e-8, gt=0)
    clip_norm: float | None = Field(None, gt=0, description="longer gradients are scaled down to this norm")
    schedule: Literal["constant", "linear", "cosine", "cyclic"] = Field(
        "constant", description="linear and cosine fall to 0 at `iterations`"
    )
    warm_up: int = Field(0, ge=0, description="iterations over which the rate rises linearly from 0")
    cycle: Cycle | None = Field(None, description="of the cyclic schedule; `learning_rate` is its highest rate")

    @model_validator(mode="after")
    def _consistent(self) -> "Optimizer":
        if (self.schedule == "cyclic") != (self.cycle is not None):
            raise ValueError(f"schedule {self.schedule}, expected `cycle` with the schedule cyclic, and with no other")
        if self.cycle and self.cycle.lowest_rate >= self.learning_rate:
            raise ValueError(
                f"cycle.lowest_rate holds {self.cycle.lowest_rate:g}, expected less than learning_rate, "
                f"{self.learning_rate:g}"
            )
        return self

    @property
    def ends(self) -> bool:
        """Whether the rate falls towards the last iteration."""
        return self.schedule in ("linear", "cosine")


class StartFrom(Settings):
    """Weights of another network's checkpoint that training begins with, in the place of random ones."""

    checkpoint: str = Field(
        min_length=1, description="file, or folder of a network, whose newest one it is; as seen from this network's"
    )
    prefixes: tuple[str, ...] = Field((), description="weights to take, by how their names begin (default: all)")
    frozen: tuple[str, ...] = Field((), description="weights that training leaves as they are, by how names begin")


class Autocontext(Settings):
    """A frozen network whose LSDs this one reads, inside the same step from raw (Sheridan et al. 2022)."""

    network: str = Field(description="name of the frozen network's folder beside this one's")
    iteration: PositiveInt | None = Field(
        None, description="its checkpoint; that of its `training.iterations` if left out"
    )
    with_raw: bool = Field(description="whether the cropped raw is read beside the LSDs, as first channel")


class Validation(Settings):
    """The loss on samples that training never sees; the best checkpoint is kept, and training may end early."""

    every: PositiveInt = Field(description="iterations from one validation to the next")
    samples: PositiveInt = Field(16, description="samples, the same each time")
    patience: PositiveInt | None = Field(
        None, description="validations in a row without a lower loss, after which training ends (default: never)"
    )
    least_change: float = Field(0.0, ge=0, description="by how much the loss must be lower to be better")
    data: Parts = Field((), description="held-out volumes, or parts of them (default: those of the data set's split)")
