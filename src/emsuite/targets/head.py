"""What every head of a network answers: its settings, channels, activation, loss, label context and target values.

The kinds of heads are in `emsuite.targets.heads` and in the modules beside it.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor

from emsuite.common.arrays import Shape
from emsuite.common.settings import Settings
from emsuite.losses.registry import LOSSES, ONLY_AFFINITIES, ONLY_SIGMOID, check_name
from emsuite.losses.target import HeadOutput, Target

LossName = Annotated[str, AfterValidator(check_name)]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "none": lambda x: x}


@dataclass(frozen=True)
class LabelCrop:
    """The labels of a batch, with label context around the region that the network predicts."""

    labels: Tensor
    """(B, Z, Y, X) int32, 0 is background."""
    mask: Tensor | None
    """(B, Z, Y, X) uint8 {0, 1}, 0 where nobody labelled; None where the mask is 1 throughout."""
    inner: tuple[slice, ...]
    """The region that the network predicts, a slice for each of z, y, x."""
    voxel_size: Sequence[float]
    """nm, z y x."""
    images: Mapping[str, Tensor] = field(default_factory=dict)
    """(B, Z, Y, X) float32, by the names of `emsuite.targets.images`; none in a volume of labels."""


class Head(Settings):
    """The settings that all heads share, and the questions that every head answers."""

    activation: ClassVar[Literal["sigmoid", "tanh", "none"]] = "sigmoid"
    """The function behind the last convolution."""
    stored_as: ClassVar[Literal["uint8", "float32"]] = "uint8"
    """The type of the stored array: uint8 stands for [0, 1] in steps of 1 / 255, float32 for the values themselves."""
    is_normalized: ClassVar[bool] = False
    """Whether the values are grey values in the normalized range of the network's input, as images are.

    The normalization is undone before such a prediction is stored.
    """
    not_architecture: ClassVar[frozenset[str]] = frozenset({"loss", "loss_weight", "weights"})
    """Keys that may change between a checkpoint and the run that loads it."""

    target: str
    loss: LossName = "weighted_mse"
    loss_weight: float = Field(1.0, ge=0, description="factor of this head's loss in the sum over heads")

    @model_validator(mode="after")
    def _loss_fits(self) -> "Head":
        if self.loss in ONLY_AFFINITIES and self.target != "affinities":
            raise ValueError(f"the loss '{self.loss}' is one of affinities, expected another for {self.target}")
        if self.loss in ONLY_SIGMOID and self.activation != "sigmoid":
            raise ValueError(f"the loss '{self.loss}' needs a sigmoid, but {self.target} has {self.activation}")
        return self

    @property
    def loss_names(self) -> frozenset[str]:
        """The losses that the head is trained with."""
        return frozenset({self.loss})

    def compute_loss(self, output: HeadOutput, target: Target) -> Tensor:
        """Return the loss of a prediction, a scalar, before `loss_weight`."""
        return LOSSES[self.loss](output, target)

    @property
    @abstractmethod
    def channels(self) -> int:
        """The number of channels that the head predicts."""

    @abstractmethod
    def label_context(self, voxel_size: Sequence[float]) -> tuple[Shape, Shape]:
        """Return the voxels of labels, z y x, that the target needs before and behind the predicted region."""

    def mask_context(self, voxel_size: Sequence[float]) -> tuple[Shape, Shape]:
        """Return, as `label_context`, how far around the predicted region the target reads the labels mask."""
        nowhere = (0,) * len(voxel_size)
        return nowhere, nowhere

    @abstractmethod
    def make(self, crop: LabelCrop) -> Target:
        """Return the target of a batch of labels over `crop.inner`."""

    def settings_at(self, iteration: int) -> "Head":
        """Return the settings of the training step that ends at `iteration` (the first step ends at 1)."""
        return self

    def array_attributes(self) -> dict[str, Any]:
        """Return the attributes of the array that a prediction of this head is stored in."""
        return {}

    def activate(self, logits: Tensor) -> Tensor:
        """Return the values of the head for its logits, any shape."""
        return ACTIVATIONS[self.activation](logits)

    def to_unit_range(self, values: Tensor) -> Tensor:
        """Return values in [0, 1] for values behind the activation; uint8 arrays hold 255 times these."""
        return (values + 1.0) * 0.5 if self.activation == "tanh" else values

    def architecture(self) -> dict[str, Any]:
        """Return the keys that a checkpoint and its network must agree in."""
        return self.model_dump(mode="json", exclude=set(self.not_architecture))
