"""From foreground, contours and distances to instances, in memory.

    foreground high, contour low, distance high  ->  components  ->  small ones dropped  ->  seeds
    foreground or distance, from high to low     ->  flooded from the seeds, in the mask ->  small ones dropped

Source: PyTorch Connectomics (zudi-lin/pytorch_connectomics), BC and BCD watershed; Lin et al. 2021, arXiv 2112.05754.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from emsuite.segmentation.instances.flood import flood
from emsuite.segmentation.instances.settings import Decoding

FOREGROUND, CONTOUR, DISTANCE = "foreground", "contour", "distance"
Predictions = Mapping[str, np.ndarray]
"""(Z, Y, X) uint8 by `FOREGROUND`, `CONTOUR` and `DISTANCE`: 0 to 255 stands for 0 to 1, of distances for -1 to 1."""

_VALUES = np.arange(256)
_DISTANCES = _VALUES / 255.0 * 2.0 - 1.0


@dataclass(frozen=True)
class Landscape:
    """What is flooded: `height` (uint8), and where it is `flooded` and `kept` (bool); all (Z, Y, X)."""

    height: np.ndarray
    flooded: np.ndarray
    kept: np.ndarray


def decode(predictions: Predictions, decoding: Decoding) -> np.ndarray:
    """Return instances.

    Args:
        predictions: Foreground and contour, and the distance if the decoding needs one.
        decoding: The thresholds.

    Returns:
        (Z, Y, X) uint64: 1, 2, 3 ... in the order of the first voxel of their seeds; 0 is background.
    """
    components = seed_components(predictions, decoding)
    is_seed = np.bincount(components.ravel()) >= max(1, decoding.smallest_seed)
    is_seed[0] = False
    seeds = np.where(is_seed[components], components, 0).astype(np.uint64)
    land = landscape(predictions, decoding)
    labels, _ = flood(land.height, land.flooded, seeds)
    labels = np.where(land.kept, labels, np.uint64(0)).astype(np.int64)
    is_instance = np.bincount(labels.ravel()) >= max(1, decoding.smallest_instance)
    is_instance[0] = False
    return np.where(is_instance, np.cumsum(is_instance), 0).astype(np.uint64)[labels]


def seed_components(predictions: Predictions, decoding: Decoding) -> np.ndarray:
    """Return the components of what can be seeds, over faces, edges and corners of voxels: (Z, Y, X) uint32.

    They are numbered 1, 2, 3 ... in the order of their first voxels.
    """
    import cc3d

    parts = _thresholds(decoding, decoding.seed_foreground, decoding.seed_contour, decoding.seed_distance)
    return cc3d.connected_components(_all_of(predictions, parts), connectivity=26, out_dtype=np.uint32)


def landscape(predictions: Predictions, decoding: Decoding) -> Landscape:
    """Return what is flooded from seeds, and where."""
    kept = _all_of(
        predictions, _thresholds(decoding, decoding.mask_foreground, decoding.mask_contour, decoding.mask_distance)
    )
    if decoding.flood_on == "foreground":
        height = 255 - predictions[FOREGROUND]
    else:  # distances below 0 are equally high: 127 stands for -1 / 255, 128 for 1 / 255
        height = 255 - np.maximum(predictions[DISTANCE], 127)
    return Landscape(height, np.ones_like(kept) if decoding.masked_afterwards else kept, kept)


def _thresholds(
    decoding: Decoding, foreground: float, contour: float | None, distance: float | None
) -> dict[str, np.ndarray]:
    """Return which of the 256 values of each prediction pass, bool (256,), but for those that do not decide."""

    def level(share: float) -> float:
        return int(255 * share) if decoding.rounded else 255 * share

    passing = {FOREGROUND: level(foreground) < _VALUES}
    if contour is not None:
        passing[CONTOUR] = level(contour) > _VALUES
    if distance is not None:
        passing[DISTANCE] = distance < _DISTANCES
    return passing


def _all_of(predictions: Predictions, passing: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.logical_and.reduce([table[predictions[name]] for name, table in passing.items()])
