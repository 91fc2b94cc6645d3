"""The augmentations by name. A new one is a settings class and a function, named here."""

from typing import Annotated

from pydantic import AfterValidator, Field

from emsuite.augment_blur import Blur
from emsuite.augment_defects import MissingSections
from emsuite.augment_elastic import Elastic
from emsuite.augment_intensity import Intensity
from emsuite.augment_mirror import MirrorTranspose
from emsuite.augment_noise import Noise

GEOMETRIC = (Elastic, MirrorTranspose)

Augmentation = Annotated[
    Elastic | MirrorTranspose | Intensity | Noise | Blur | MissingSections, Field(discriminator="name")
]


def _in_order(steps: tuple[Augmentation, ...]) -> tuple[Augmentation, ...]:
    geometric = [isinstance(step, GEOMETRIC) for step in steps]
    if geometric != sorted(geometric, reverse=True):
        late = steps[len(geometric) - 1 - geometric[::-1].index(True)].name
        raise ValueError(f"'{late}' moves voxels, expected it before all steps that change their values")
    return steps


Augmentations = Annotated[tuple[Augmentation, ...], AfterValidator(_in_order)]
