"""The augmentations by name. A new one is a settings class and a function, named here."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from funlib.geometry import Roi
from pydantic import AfterValidator, Field

from emsuite.augment.blur import Blur, blur
from emsuite.augment.elastic import Elastic, draw_elastic
from emsuite.augment.intensity import Intensity, change_intensity
from emsuite.augment.mirror import MirrorTranspose, draw_mirror_transpose
from emsuite.augment.missing_sections import MissingSections, lose_sections
from emsuite.augment.noise import Noise, add_noise
from emsuite.augment.warp import Step, Warp

Augmentation = Annotated[
    Elastic | MirrorTranspose | Intensity | Noise | Blur | MissingSections, Field(discriminator="name")
]

# how each moves voxels: (settings, box, centre, random) -> a step of the warp
GEOMETRIC: dict[type, Callable[[Any, Roi, np.ndarray, np.random.Generator], Step]] = {
    Elastic: draw_elastic,
    MirrorTranspose: draw_mirror_transpose,
}
# how each changes the values of raw, in place: (settings, raw, random)
VALUES: dict[type, Callable[[Any, torch.Tensor, np.random.Generator], None]] = {
    Intensity: change_intensity,
    Noise: add_noise,
    Blur: blur,
    MissingSections: lose_sections,
}


def check_order(steps: tuple[Augmentation, ...]) -> tuple[Augmentation, ...]:
    """Raises ValueError where the steps, in this order, cannot be composed into one reading of the volume."""
    kinds = [type(step) in GEOMETRIC for step in steps]
    if kinds != sorted(kinds, reverse=True):
        late = next(step for step in reversed(steps) if type(step) in GEOMETRIC)
        raise ValueError(f"'{late.name}' moves voxels, expected it before all steps that change their values")
    elastic = [step for step in steps if isinstance(step, Elastic)]
    if any(any(step.jitter_sigma) or step.slip or step.shift for step in elastic[:-1]):
        raise ValueError("only the last 'elastic' may jitter, slip or shift; those before it can rotate")
    return steps


Augmentations = Annotated[tuple[Augmentation, ...], AfterValidator(check_order)]


def draw_warp(steps: Sequence[Augmentation], box: Roi, centre: np.ndarray, random: np.random.Generator) -> Warp:
    """The geometric ones of `steps`, drawn and composed: what is asked for is `box` (voxels), turned about `centre`."""
    warp = Warp()
    for settings in reversed(steps):
        if type(settings) in GEOMETRIC:
            warp = warp.then(GEOMETRIC[type(settings)](settings, warp.turn.image(box), centre, random))
    return warp


def change_values(steps: Sequence[Augmentation], raw: torch.Tensor, random: np.random.Generator) -> None:
    """Apply those of `steps` that change values to `raw` (Z, Y, X) float32 0 to 1, in place and in order."""
    for settings in steps:
        if type(settings) in VALUES:
            VALUES[type(settings)](settings, raw, random)
