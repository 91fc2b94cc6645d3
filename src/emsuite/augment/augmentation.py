"""The two kinds of augmentations: one moves voxels, the other changes the values of raw.

An augmentation is a class of settings with one method that applies them. Its `name` is the tag by which a yaml file
chooses it. `emsuite.augment.registry` says how to add one.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch

from emsuite.augment.warp import WarpStep
from emsuite.common.geometry import Roi
from emsuite.common.settings import Settings


class GeometricAugmentation(Settings):
    """Moves voxels. All geometric augmentations of a sample are composed into one warp, see `emsuite.augment.warp`."""

    only_permutes_axes: ClassVar[bool] = False
    """Whether every drawn step mirrors and transposes axes and does nothing else."""

    name: str

    @property
    def displaces(self) -> bool:
        """Whether a drawn step can hold more than an affine map: a displacement or section shifts."""
        return False

    @abstractmethod
    def draw(self, box: Roi, centre: np.ndarray, random: np.random.Generator) -> WarpStep:
        """Draw the backward map of one sample.

        Args:
            box: the voxels that the step must cover, z y x. Voxel 0 is the first one of the sample's output.
            centre: (3,) float64, the fixed point of rotations and mirrorings, voxels, in the frame of `box`.
            random: the sample's generator. The step depends on nothing else.
        """


class ValueAugmentation(Settings):
    """Changes the values of raw, after the volume has been read through the warp."""

    name: str

    @abstractmethod
    def apply(self, raw: torch.Tensor, random: np.random.Generator) -> None:
        """Change `raw` in place.

        Args:
            raw: (Z, Y, X) float32 in [0, 1], on any device. The values must stay in this range.
            random: the sample's generator. The change depends on nothing else.
        """

    def apply_to_batch(self, raw: torch.Tensor, randoms: Sequence[np.random.Generator]) -> None:
        """Change all samples of a batch in place, as `apply` changes each: by default one after the other.

        Args:
            raw: (B, Z, Y, X) float32 in [0, 1].
            randoms: the generator of each sample, which draws what it draws in `apply`.
        """
        for sample, random in zip(raw, randoms, strict=True):
            self.apply(sample, random)
