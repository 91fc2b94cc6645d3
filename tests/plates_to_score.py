"""A target plate and predictions of it, small, for the tests of the evaluation of images."""

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from emsuite.plates.plate import create_plate, new_image

SHAPE = (2, 3, 3, 30, 34)
"""T, C, Z, Y, X; channels phase, nuclei, membranes."""
CHANNELS = ("phase", "nuclei", "membranes")


def voxels_of(position: int) -> np.ndarray:
    """The target (T, C, Z, Y, X) float32 of a position; nuclei follow phase, membranes do not."""
    rng = np.random.default_rng((7, position))
    phase, other = (100 * gaussian_filter(rng.normal(size=(2, 3, 30, 34)), (0, 0, 2, 2)) + 200 for _ in range(2))
    return np.stack([phase, 3 * phase - 50, other], axis=1).astype(np.float32)


def write_plate(path: Path, images: dict[str, np.ndarray], channels: tuple[str, ...], mask: bool = False) -> Path:
    """Write images (T, C, Z, Y, X) by position; with masks of the left half in labels/foreground."""
    create_plate(path, list(images))
    for position, voxels in images.items():
        image = new_image(path, position, voxels.shape, voxels.dtype, channels, (500, 100, 100))
        for t, c in np.ndindex(voxels.shape[:2]):
            image.write(t, c, voxels[t, c])
        if mask:
            shape = (voxels.shape[0], 1, *voxels.shape[2:])
            labels = new_image(path, position, shape, np.uint8, ["foreground"], None, "labels/foreground")
            for t in range(shape[0]):
                left = np.zeros(shape[2:], np.uint8)
                left[..., : shape[4] // 2] = 1
                labels.write(t, 0, left)
    return path


def target_and_prediction(folder: Path, positions: int = 4, noise: float = 5.0) -> tuple[Path, Path]:
    """Write target.zarr and predicted.zarr of nuclei and membranes; noise grows with the position's number."""
    targets = {f"A/1/{number}": voxels_of(number) for number in range(positions)}
    predictions = {}
    for number, (name, voxels) in enumerate(targets.items()):
        added = np.random.default_rng((8, number)).normal(0, noise * (number + 1), voxels[:, 1:].shape)
        predictions[name] = (voxels[:, 1:] + added).astype(np.float32)
    write_plate(folder / "target.zarr", targets, CHANNELS, mask=True)
    return folder / "target.zarr", write_plate(folder / "predicted.zarr", predictions, CHANNELS[1:])
