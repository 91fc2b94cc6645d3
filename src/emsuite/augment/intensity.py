"""Changed brightness and contrast."""

from collections.abc import Sequence
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
        scale, shift = to_device(torch.from_numpy(self._draw(len(raw), random)), raw.device)[..., None, None]
        mean = raw.mean(dim=(1, 2) if self.per_section else (0, 1, 2), keepdim=True)
        raw.mul_(scale).add_(mean * (1 - scale) + shift).clamp_(0, 1)

    def apply_to_batch(self, raw: torch.Tensor, randoms: Sequence[np.random.Generator]) -> None:
        """See `ValueAugmentation.apply_to_batch`: few operations for all samples, as a GPU's host pays for each."""
        draws = np.stack([self._draw(raw.shape[1], random) for random in randoms], axis=1)
        numbers = np.concatenate([draws, 1 - draws[:1]])
        scale, shift, rest = to_device(torch.from_numpy(numbers), raw.device)[..., None, None].unbind()
        mean = raw.mean(dim=(2, 3) if self.per_section else (1, 2, 3), keepdim=True)
        torch.addcmul(torch.addcmul(shift, mean, rest), raw, scale, out=raw).clamp_(0, 1)

    def _draw(self, sections: int, random: np.random.Generator) -> np.ndarray:
        """Return scale and shift, (2, draws) float32."""
        draws = sections if self.per_section else 1
        return np.stack([random.uniform(*self.scale, draws), random.uniform(*self.shift, draws)]).astype(np.float32)
