"""The augmentations by name, the order in which they may stand, and their application to a sample.

To add an augmentation, two things are needed:

1. A new module `emsuite/augment/X.py` with one class, derived from `GeometricAugmentation` or `ValueAugmentation`
   (`emsuite.augment.augmentation`). Its `name: Literal["..."]` is the name in yaml, its fields are the keys, and its
   method `draw` or `apply` does the work.
2. One line here: the module's name in `MODULES`.

The schema of network.yaml, its messages and the sampler then know the augmentation. `tests/house/test_docs.py` asks for
a table of its keys in `docs/add_a_network.md`.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Union

import numpy as np
import torch
from pydantic import AfterValidator, Field

from emsuite.augment.augmentation import GeometricAugmentation, ValueAugmentation
from emsuite.augment.warp import Warp
from emsuite.common.geometry import Roi
from emsuite.common.profile import timed

MODULES = (
    "elastic",
    "mirror",
    "intensity",
    "noise",
    "blur",
    "missing_sections",
)
"""Modules of this package that define one augmentation each."""


def _augmentation_class(module_name: str) -> type[GeometricAugmentation] | type[ValueAugmentation]:
    module = import_module(f"emsuite.augment.{module_name}")
    kinds = (GeometricAugmentation, ValueAugmentation)
    classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, kinds)]
    (defined_here,) = [kind for kind in classes if kind.__module__ == module.__name__]
    return defined_here


AUGMENTATIONS = tuple(map(_augmentation_class, MODULES))
if TYPE_CHECKING:
    Augmentation = GeometricAugmentation | ValueAugmentation
else:
    Augmentation = Annotated[Union[AUGMENTATIONS], Field(discriminator="name")]  # noqa: UP007 (a union of a tuple)


def check_order(augmentations: tuple[Augmentation, ...]) -> tuple[Augmentation, ...]:
    """Return `augmentations`; raise ValueError if they cannot be composed in this order into one read of the volume."""
    is_geometric = [isinstance(augmentation, GeometricAugmentation) for augmentation in augmentations]
    if is_geometric != sorted(is_geometric, reverse=True):
        late = next(step for step in reversed(augmentations) if isinstance(step, GeometricAugmentation))
        raise ValueError(f"'{late.name}' moves voxels, expected it before all steps that change their values")
    resampled = [step for step in augmentations if isinstance(step, GeometricAugmentation)]
    resampled = [step for step in resampled if not step.only_permutes_axes]
    if any(step.displaces for step in resampled[:-1]):
        names = " or ".join(dict.fromkeys(f"'{step.name}'" for step in resampled))
        raise ValueError(f"only the last {names} may jitter, slip or shift; those before it can rotate")
    return augmentations


Augmentations = Annotated[tuple[Augmentation, ...], AfterValidator(check_order)]


def draw_warp(
    augmentations: Sequence[Augmentation], box_sample_vx: Roi, centre_sample_vx: np.ndarray, random: np.random.Generator
) -> Warp:
    """Draw the geometric augmentations of one sample and compose them.

    Args:
        augmentations: in the order of their application. Those that change values are skipped.
        box_sample_vx: all voxels that will be read through the warp.
        centre_sample_vx: (3,) float64, the fixed point of rotations and mirrorings.
        random: the sample's generator.
    """
    warp = Warp()
    for augmentation in reversed(augmentations):
        if isinstance(augmentation, GeometricAugmentation):
            box_permuted_vx = warp.permutation.image(box_sample_vx)
            warp = warp.with_upstream(augmentation.draw(box_permuted_vx, centre_sample_vx, random))
    return warp


def change_values(augmentations: Sequence[Augmentation], raw: torch.Tensor, random: np.random.Generator) -> None:
    """Apply the augmentations that change values to `raw` (Z, Y, X) float32 in [0, 1], in place and in order."""
    for augmentation in augmentations:
        if isinstance(augmentation, ValueAugmentation):
            with timed(augmentation.name, raw.device):
                augmentation.apply(raw, random)


def change_values_of_batch(
    augmentations: Sequence[Augmentation], raw: torch.Tensor, randoms: Sequence[np.random.Generator]
) -> None:
    """Do the same to all samples of a batch `raw` (B, Z, Y, X); sample b changes by what `randoms[b]` draws."""
    for augmentation in augmentations:
        if isinstance(augmentation, ValueAugmentation):
            with timed(augmentation.name, raw.device):
                augmentation.apply_to_batch(raw, randoms)
