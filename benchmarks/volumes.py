"""Volumes for measurements: real ones or random cells, and crops that are mirrored to any shape."""

import os
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import zarr
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

from emsuite.common.errors import BadInput
from emsuite.io.volume import open_volume

_DATA = Path(os.environ.get("EMSUITE_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SLAB = _DATA / "fib25/training/trvol-250-2.zarr"
CUBE = _DATA / "fib25/testing/trvol-250-1.zarr"

volume = click.option(
    "--volume",
    type=click.Path(path_type=Path),
    default=SLAB,
    metavar="ZARR",
    show_default="FIB-25 below ../shared/data or EMSUITE_TEST_DATA",
    help="Volume with raw and dense labels.",
)
synthetic = click.option("--synthetic", is_flag=True, help="Use random cells instead of a volume.")


def read(path: Path, synthetic: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return raw (Z, Y, X) uint8 and labels (Z, Y, X) int64 of a volume, or of random cells of about its size."""
    if synthetic:
        return random_cells((160, 250, 250))
    if not path.is_dir():
        raise BadInput(f"{path}: no such volume; set EMSUITE_TEST_DATA, name one with --volume, or take --synthetic")
    return (
        open_volume(path / "volumes/raw").read(),
        open_volume(path / "volumes/labels/neuron_ids").read().astype(np.int64),
    )


def random_cells(shape: Sequence[int], number: int = 175) -> tuple[np.ndarray, np.ndarray]:
    """Return raw and labels in the form of `read`: convex cells with dark borders and noise."""
    random = np.random.default_rng(0)
    centres = random.uniform(0, shape, (number, 3))
    distance, nearest = KDTree(centres).query(np.stack(np.indices(shape), -1), k=2, workers=-1)
    grey = 1 / (1 + np.exp(2 - (distance[..., 1] - distance[..., 0]) / 2))
    raw = 60 + 120 * gaussian_filter(grey, 1) + random.normal(0, 12, shape)
    return raw.clip(0, 255).astype(np.uint8), nearest[..., 0].astype(np.int64) + 1


def mirrored(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the first `shape` voxels of `array`, mirrored at its end if `shape` is larger."""
    padded = np.pad(array, [(0, max(0, n - m)) for n, m in zip(shape, array.shape, strict=True)], "symmetric")
    return np.ascontiguousarray(padded[tuple(slice(n) for n in shape)])


def write(path: Path, raw: np.ndarray, labels: np.ndarray | None, voxel_size: Sequence[int]) -> Path:
    """Write a volume in zarr format 2, which the peers read too; its labels mask is 1 everywhere. Return the path."""
    arrays = {"volumes/raw": raw}
    if labels is not None:
        arrays["volumes/labels/neuron_ids"] = labels.astype(np.uint64)
        arrays["volumes/labels/labels_mask"] = np.ones(labels.shape, np.uint8)
    container = zarr.create_group(path, zarr_format=2, overwrite=True)
    for name, data in arrays.items():
        array = container.create_array(name, shape=data.shape, dtype=data.dtype, chunks=(64, 64, 64))
        array[:] = data
        array.attrs.update({"resolution": list(voxel_size), "offset": [0, 0, 0]})
    return path
