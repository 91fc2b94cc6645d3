"""Training samples: a random place in a random volume, augmented, the same for the same seed and iteration."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field, NonNegativeInt

from emsuite.augment import Augmentation
from emsuite.augment_ranges import NonNegative, Probability
from emsuite.settings import Settings
from emsuite.training_volume import TrainingVolume


class SamplingSettings(Settings):
    """Where samples are taken from."""

    label_padding: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = (0, 0, 0)
    """How far the output may reach beyond the labels, nm, z y x; there labels and mask are 0."""
    min_masked: Probability = 0.5
    """Least share of the output, before augmentation, in which the mask is set."""
    probabilities: tuple[NonNegative, ...] | None = Field(default=None, min_length=1)
    """How often each volume is drawn, in the order of the volumes; all alike by default."""
    seed: NonNegativeInt = 0
    """The same seed gives the same samples, on any number of workers and across a resume."""


@dataclass(frozen=True)
class Sample:
    """One training input with the labels that its targets need."""

    raw: torch.Tensor
    """(Z, Y, X) float32 of the input shape, 0 to 1; 0 outside the volume."""
    labels: torch.Tensor
    """(Z, Y, X) int64 over the output and its label context; 0 outside the labels."""
    mask: torch.Tensor
    """(Z, Y, X) uint8 {0, 1}, as `labels`."""
    volume: int
    """Which of the sampler's volumes."""
    origin: tuple[int, int, int]
    """Where the output begins before augmentation, nm."""


class Sampler:
    """Draws samples; every draw is a function of the seed, the iteration and the index in the batch alone."""

    def __init__(
        self,
        volumes: Sequence[TrainingVolume],
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        label_context: tuple[Sequence[int], Sequence[int]] = ((0, 0, 0), (0, 0, 0)),
        augmentations: Sequence[Augmentation] = (),
        settings: SamplingSettings | None = None,
    ):
        """Shapes and context in voxels, z y x; the output lies in the middle of the input.

        `label_context` is how many voxels of labels the targets need (before, behind) the output.
        Raises BadInput for volumes without a place to sample, and for settings that do not fit the volumes.
        """

    def draw(self, iteration: int, index: int = 0) -> Sample:
        """The sample `index` of the batch of `iteration`."""
        raise NotImplementedError

    def batch(self, iteration: int, size: int, first: int = 0) -> Sample:
        """`size` samples from index `first` on, stacked: every tensor has a leading axis (B, Z, Y, X)."""
        raise NotImplementedError
