"""Frames as a microscope writes them, for the tests of plates."""

from pathlib import Path

import numpy as np
from PIL import Image

SHAPE = (2, 2, 3, 24, 40)
"""T, C, Z, Y, X of each position."""


def voxels_of(position: int, seed: int = 3) -> np.ndarray:
    """The voxels (T, C, Z, Y, X), uint16, of a position."""
    return np.random.default_rng((seed, position)).integers(0, 60_000, SHAPE).astype(np.uint16)


def write_frames(folder: Path, positions: int = 3, name: str = "im_c{c:03}_z{z:03}_t{t:03}_p{p:03}.png") -> Path:
    """Write the frames of positions 0, 1, ..., one PNG each."""
    folder.mkdir(parents=True, exist_ok=True)
    for p in range(positions):
        voxels = voxels_of(p)
        for t, c, z in np.ndindex(SHAPE[:3]):
            Image.fromarray(voxels[t, c, z]).save(folder / name.format(c=c, z=z, t=t, p=p))
    return folder
