"""The mutex watershed, which divides a volume into pieces and can use affinities to distant voxels against a merge.

Every affinity becomes an edge between two voxels. It attracts if it is above the bias and repels if it is below; its
strength is the difference from the bias. Edges are processed from the strongest on. An attracting edge merges the
pieces of its two voxels, unless a stronger repelling edge joins the two pieces.

Source: Wolf et al., "The Mutex Watershed and its Objective", 2020; https://github.com/pattonw/mwatershed.
"""

from collections.abc import Sequence

import fastremap
import numpy as np


def mutex_pieces(
    affs: np.ndarray, offsets: Sequence[Sequence[int]], bias: tuple[float, float], debris: int
) -> np.ndarray:
    """Return the pieces of the mutex watershed.

    Args:
        affs: (C, Z, Y, X) uint8, 0 to 255 stands for 0 to 1.
        offsets: The offset of each channel in voxels.
        bias: The affinity (0 to 1) that neither attracts nor repels: between adjacent voxels, and between voxels that
            are farther apart.
        debris: Pieces of fewer voxels become background.

    Returns:
        (Z, Y, X) uint32, pieces from 1 up without gaps. 0 is background, also for voxels that no edge merged.
    """
    import mwatershed

    near = [np.abs(offset).sum() == 1 for offset in offsets]
    weights = np.divide(affs, 255, dtype=np.float64)
    weights -= np.where(near, *bias)[:, None, None, None]
    pieces = mwatershed.agglom(weights, [list(offset) for offset in offsets])
    pieces, _ = fastremap.renumber(pieces, preserve_zero=True)
    too_small = np.bincount(pieces.ravel()) < debris
    pieces[too_small[pieces]] = 0
    return fastremap.renumber(pieces, preserve_zero=True)[0].astype(np.uint32, copy=False)
