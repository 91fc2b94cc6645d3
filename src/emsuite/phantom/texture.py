"""Grey values of the phantom's tissue: cytoplasm, organelles, membranes.

Levels, widths and textures were fitted to FIB-25 (Drosophila medulla, FIB-SEM, 8 nm): the grey value as a function of
the distance from the membrane, the band-passed texture inside neurites, the histogram and the power spectrum.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from emsuite.phantom.organelles import DENSE_CORED
from emsuite.phantom.smooth_noise import smooth_noise
from emsuite.phantom.tubes import TubeField, Tubes

_MEMBRANE, _MITOCHONDRION, _SYNAPSE = 60.0, 76.0, 56.0  # grey values before the blur


@dataclass(frozen=True)
class Tissue:
    """Neurons on a fine grid, and the organelles inside them as tubes."""

    labels: np.ndarray
    """(Z, Y, X) int32."""
    depth: np.ndarray
    """(Z, Y, X) float32 nm, the distance to the neurite's surface."""
    spacing: np.ndarray
    """(3,) nm per voxel."""
    mitochondria: Tubes
    vesicles: Tubes
    reticulum: Tubes
    microtubules: Tubes

    def field(self, tubes: Tubes, reach: float) -> TubeField:
        """Return the field of `tubes` on the tissue's grid, up to `reach` nm from their surface."""
        field = TubeField.empty(self.labels.shape, self.spacing / 2, self.spacing, reach)
        field.add(tubes, reach)
        return field

    def noise(self, rng: np.random.Generator) -> Callable[[float], np.ndarray]:
        """Return a function from a length in nm to smooth noise of this length on the tissue's grid."""
        return lambda nanometres: smooth_noise(self.labels.shape, nanometres / self.spacing, rng)


def render(tissue: Tissue, rng: np.random.Generator) -> np.ndarray:
    """Return grey values (Z, Y, X) float32, about 50 to 200, before the blur and noise of the microscope."""

    # a generator for each part, so that a change of one does not change the others
    for_cytoplasm, for_mitochondria, for_membranes = rng.spawn(3)
    grey = _cytoplasm(tissue, for_cytoplasm)
    _draw_lines_and_vesicles(grey, tissue)
    _draw_mitochondria(grey, tissue, for_mitochondria)
    _draw_membranes(grey, tissue, for_membranes)
    return grey


def _cytoplasm(tissue: Tissue, rng: np.random.Generator) -> np.ndarray:
    labels, noise = tissue.labels, tissue.noise(rng)
    count = int(labels.max()) + 1
    dark = rng.random(count) < 0.12
    level = np.where(dark, rng.normal(140, 7, count), rng.normal(181, 11, count)).astype(np.float32)
    grain, mottle = rng.uniform(7, 16, count).astype(np.float32), rng.uniform(8, 30, count).astype(np.float32)
    grey = level[labels]
    grey += grain[labels] * noise(10)
    grey -= mottle[labels] * np.abs(noise(20))
    grey += 7 * noise(45)
    return grey


def _draw_lines_and_vesicles(grey: np.ndarray, tissue: Tissue) -> None:
    inside = _ramp(tissue.depth, 14, 30)
    grey -= 26 * inside * _ramp(tissue.field(tissue.microtubules, 20).phi, 16, 6)
    vesicles = tissue.field(tissue.vesicles, 20)
    cores = vesicles.owner == DENSE_CORED
    grey -= inside * np.where(cores, 55 * _ramp(vesicles.phi, 2, -8), 38 * _ramp(np.abs(vesicles.phi + 3), 10, 3))
    lumen = tissue.field(tissue.reticulum, 20).phi
    grey += inside * (12 * _ramp(lumen, 0, -10) - 45 * _ramp(np.abs(lumen + 2), 11, 4))


def _draw_mitochondria(grey: np.ndarray, tissue: Tissue, rng: np.random.Generator) -> None:
    noise, field = tissue.noise(rng), tissue.field(tissue.mitochondria, 40)
    near = np.nonzero(field.phi < 40)
    depth, owner = tissue.depth[near], field.owner[near]
    # a mitochondrion that would leave its neurite is pressed flat
    distance = np.maximum(field.phi[near] + 9 * noise(70)[near], 26 - depth)
    count = int(field.owner.max()) + 1
    across = rng.normal(size=(count, 3)).astype(np.float32)
    across *= 1 / (np.linalg.norm(across, axis=1, keepdims=True) * rng.uniform(34, 60, (count, 1))).astype(np.float32)
    position_nm = np.stack(near, 1).astype(np.float32) * tissue.spacing.astype(np.float32)
    phase = (across[owner] * position_nm).sum(1) + 0.45 * noise(45)[near]
    cristae = _ramp(np.cos(2 * np.pi * phase), 0.2, 1) * _ramp(distance, -14, -26)
    matrix = rng.normal(_MITOCHONDRION, 5, count)[owner] + rng.uniform(4, 28, count)[owner] * cristae
    matrix -= 12 * _ramp(np.abs(distance + 5), 8, 2)
    values = grey[near] + 10 * _ramp(np.abs(distance - 14), 12, 2) * _ramp(depth, 20, 40)
    grey[near] = values + _ramp(distance, 5, -5) * (matrix + 0.25 * (values - 150) - values)


def _draw_membranes(grey: np.ndarray, tissue: Tissue, rng: np.random.Generator) -> None:
    depth, noise = tissue.depth, tissue.noise(rng)
    half = 10 * (1 + 0.25 * np.clip(noise(50), -2, 2))
    strength = np.clip(0.84 + 0.11 * noise(40), 0.25, 1)
    grey += _ramp(depth - half, 6, -6) * strength * (_MEMBRANE - grey)
    active = _ramp(noise(60), 1.7, 2.3) * np.exp(-((depth / 32) ** 2))
    grey += active * (_SYNAPSE - grey)


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return 0 at `low` and beyond, 1 at `high` and beyond, linear between. `high` can be less than `low`."""
    return np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
