"""Changed brightness and contrast."""

from typing import Literal

import numpy as np
import torch

from emsuite.augment.augmentation import ValueAugmentation
from emsuite.common.arrays import to_device
from emsuite.common.settings import Range


class Intensity(ValueAugmentation):
    """mean + (raw - mean) * scale + shift, clipped to [0, 1]. The same as gunpowder's IntensityAugment."""

    name: Literal["intensity"]
    scale: Range = (0.9, 1.1)
    """[lowest, highest] factor of the contrast, drawn uniformly."""
    shift: Range = (-0.1, 0.1)
    """[lowest, highest] change of the brightness, for raw in [0, 1], drawn uniformly."""
    per_section: bool = False
    """Draw for each z-section separately and use its own mean. Default: one draw and one mean for the whole input."""

    def apply(self, raw: torch.Tensor, random: np.random.Generator) -> None:
        """Change `raw` (Z, Y, X) float32 in [0, 1] in place."""
        draws = raw.shape[0] if self.per_section else 1
        scale = _column(random.uniform(*self.scale, draws), raw)
        shift = _column(random.uniform(*self.shift, draws), raw)
        mean = raw.mean(dim=(1, 2) if self.per_section else (0, 1, 2), keepdim=True)
        raw.mul_(scale).add_(mean * (1 - scale) + shift).clamp_(0, 1)


def _column(numbers: np.ndarray, raw: torch.Tensor) -> torch.Tensor:
    """Return `numbers` (n,) as (n, 1, 1) float32 on the device of `raw`."""
    return to_device(torch.from_numpy(numbers.astype(np.float32)), raw.device)[:, None, None]
