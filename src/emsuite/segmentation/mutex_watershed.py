"""Pieces of a volume by the mutex watershed, which can use affinities to far voxels as evidence against a merge.

Every affinity becomes an edge: above its bias it attracts, below it repels, the more the farther off. The strongest is
taken first; an attracting one merges the pieces of its two voxels, unless one that repels was found between them.

Source: Wolf et al., "The Mutex Watershed and its Objective", 2020; https://github.com/pattonw/mwatershed.
"""

from collections.abc import Sequence

import fastremap
import numpy as np


def mutex_pieces(
    affs: np.ndarray, offsets: Sequence[Sequence[int]], bias: tuple[float, float], debris: int
) -> np.ndarray:
    """Pieces of affinities (C, Z, Y, X; uint8, 0 to 255 stands for 0 to 1) as (Z, Y, X) uint32, numbered from 1 up.

    `offsets` in voxels, one per channel; `bias` (0 to 1): the affinity that neither attracts nor repels, between
    neighbours and between voxels farther apart. Pieces of fewer than `debris` voxels are 0, as all that is alone.
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
