"""How a network is trained and predicts: `training` and `prediction` of network.yaml, with the parts of both."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from emsuite.augment.registry import Augmentations
from emsuite.common.device import Precision
from emsuite.common.settings import Settings
from emsuite.config.parts import Parts
from emsuite.data.sampler import SamplingSettings
from emsuite.targets.boundary import GrowBoundary

_Size = Annotated[int, Field(gt=0, le=10**9)]
Triple = tuple[_Size, _Size, _Size]
_MOST_VOXELS = 2**40
"""Of a batch, or of a tile."""

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


class Training(Settings):
    """How the network is trained."""

    iterations: PositiveInt = Field(description="trained to here unless told otherwise")
    split: str | None = Field(None, description="name of the data set's split to train on (default: its first)")
    input_shape: Triple = Field(description="voxels of raw per sample, z y x")
    batch_size: int = Field(1, gt=0, le=2**20, description="samples per iteration, shared out among all GPUs")
    accumulate: PositiveInt = Field(
        1, description="passes per iteration, each with its part of the batch: saves memory"
    )
    compile: bool = Field(False, description="have torch compile the network: minutes at the start")
    cuda_graph: bool = Field(True, description="on a GPU, replay the iteration as one CUDA graph where it can be one")
    deterministic: bool = Field(False, description="the same bytes on the same GPU, at the cost of speed")
    stream: bool | None = Field(
        None, description="read volumes from disk as samples need them (default: if memory does not hold them twice)"
    )
    precision: Precision = Field("float32", description="of convolutions; weights are float32")
    initial_weights: Literal["he", "glorot"] = Field(
        "he", description="he: normal (He et al. 2015); glorot: uniform, all biases 0 (Glorot and Bengio 2010)"
    )
    start_from: StartFrom | None = Field(None, description="begin with weights of a checkpoint, not with random ones")
    optimizer: Optimizer = Optimizer()
    validation: Validation | None = Field(None, description="the loss on held-out samples, every so many iterations")
    average: float | None = Field(None, gt=0, lt=1, description="decay of an average of the weights, used to predict")
    sampling: SamplingSettings = SamplingSettings()
    augment: Augmentations = ()
    grow_boundary: GrowBoundary | None = None
    renumber_components_from: PositiveInt | None = Field(
        None, description="after this iteration connected components get labels of their own, behind the grown boundary"
    )
    checkpoint_every: PositiveInt = 10_000
    checkpoint_every_minutes: float = Field(
        15, gt=0, description="minutes between interim checkpoints, of which the newest is kept, for going on alone"
    )
    snapshot_every: PositiveInt = 1_000
    snapshot_format: Literal["zarr", "hdf5"] = Field("zarr", description="hdf5: one file for each snapshot")
    log_every: PositiveInt = 10
    profile_every: NonNegativeInt = Field(0, description="iterations between tables of what each part takes; 0: none")

    @model_validator(mode="after")
    def _countable(self) -> "Training":
        _check_voxels(self.input_shape, self.batch_size)
        return self


Margin = Literal["half", "whole"]


class Prediction(Settings):
    """How the network predicts."""

    input_shape: Triple = Field(description="voxels of raw per tile on a GPU, z y x; smaller tiles serve elsewhere")
    precision: Precision = Field("float32", description="of convolutions")
    heads: tuple[str, ...] | None = Field(None, description="heads to write (default: all)")
    original_margin: Margin = Field(
        "half", description="with --tile original, context that is left out on either side of a volume"
    )

    @model_validator(mode="after")
    def _countable(self) -> "Prediction":
        _check_voxels(self.input_shape)
        return self


def _check_voxels(input_shape: Sequence[int], samples: int = 1) -> None:
    if (voxels := math.prod(input_shape) * samples) > _MOST_VOXELS:
        raise ValueError(
            f"input_shape {list(input_shape)} of {samples} samples: {voxels} voxels, expected at most 2^40"
        )
