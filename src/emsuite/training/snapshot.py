"""Snapshots of training: one sample with its targets and predictions, as a zarr container."""

from pathlib import Path

import numpy as np
from torch import Tensor

from emsuite.common.files import naming, remove
from emsuite.config.network import NetworkConfig
from emsuite.io.volume import create_volume
from emsuite.losses.target import Target


def snapshot_path(folder: Path, iteration: int) -> Path:
    """Return the path of the snapshot of an iteration in the folder of a network."""
    return Path(folder) / "snapshots" / f"batch_{iteration}.zarr"


def save_snapshot(
    path: Path, config: NetworkConfig, raw: Tensor, targets: dict[str, Target], predictions: dict[str, Tensor]
) -> None:
    """Write the first sample of a batch: raw, labels, and target, weights and prediction of each head.

    Outputs lie in the middle of raw, in nm. The snapshot is written beside its final name and renamed, so that a
    snapshot under its final name is whole.

    Args:
        path: the zarr container to write.
        config: names the voxel size.
        raw: (B, Z, Y, X) in [0, 1].
        targets: of each head.
        predictions: of each head, (B, C, Z, Y, X) in [0, 1].
    """
    unfinished = path.with_name(f".{path.stem}.part.zarr")
    remove(unfinished)
    arrays = {"raw": raw[0], "labels": next(iter(targets.values())).labels[0]}
    for name, target in targets.items():
        arrays |= {f"targets/{name}": target.values[0], f"weights/{name}": target.weights[0]}
        arrays |= {f"predictions/{name}": predictions[name][0]}
    with naming(path):
        for name, voxels in arrays.items():
            _write(unfinished / name, voxels, raw.shape[1:], config.voxel_size)
    remove(path)
    unfinished.rename(path)


def _write(path: Path, voxels: Tensor, around: tuple[int, ...], voxel_size: tuple[int, ...]) -> None:
    array = voxels.detach().cpu().numpy()
    array = array.astype(np.uint64) if path.name == "labels" else array.astype(np.float32)
    offset = [(n - m) // 2 * size for n, m, size in zip(around, array.shape[-3:], voxel_size, strict=True)]
    create_volume(path, array.shape, array.dtype, voxel_size, offset).array[...] = array
