"""Differences of volumes, by closed forms."""

from pathlib import Path

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.evaluation.image_metrics import mae, mse
from emsuite.evaluation.images.volume_difference import differences
from emsuite.io.volume import create_volume

SHAPE = (70, 9, 11)


def write(path: Path, voxels: np.ndarray, offset: tuple = (0, 0, 0), voxel_size: tuple = (8, 4, 4)) -> Path:
    create_volume(path, voxels.shape, voxels.dtype, voxel_size, offset).array[...] = voxels
    return path


def random(seed: int, shape: tuple = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_differences_are_shares_of_the_range_of_grey_values(tmp_path: Path) -> None:
    target = write(tmp_path / "a.zarr/raw", np.full(SHAPE, 51, np.uint8))
    brighter = write(tmp_path / "b.zarr/raw", np.full(SHAPE, 102, np.uint8))
    floats = write(tmp_path / "c.zarr/raw", np.full(SHAPE, 0.1, np.float32))
    deep = write(tmp_path / "d.zarr/raw", np.full(SHAPE, 13107, np.uint16))
    (one, two, three), region = differences(target, [brighter, floats, deep])
    assert (one.rmse, one.mae, one.mean_difference, one.voxels) == pytest.approx((0.2, 0.2, 0.2, np.prod(SHAPE)))
    assert (two.rmse, two.mae, two.mean_difference) == pytest.approx((0.1, 0.1, -0.1))
    assert three.rmse == pytest.approx(0)
    assert region == "0:560,0:36,0:44"


def test_they_are_those_of_the_metrics_of_images(tmp_path: Path) -> None:
    a, b = random(0), random(1)
    (found,), _ = differences(write(tmp_path / "a.zarr/raw", a), [write(tmp_path / "b.zarr/raw", b)])
    x, y, all_of = a / 255, b / 255, np.ones(SHAPE, bool)
    assert found.rmse == pytest.approx(np.sqrt(mse(x, y, all_of)), abs=1e-12)
    assert found.mae == pytest.approx(mae(x, y, all_of), abs=1e-12)
    assert found.as_dict()["rmse"] == found.rmse


def test_all_are_compared_over_the_region_that_all_cover(tmp_path: Path) -> None:
    """A transferred image is smaller by what a valid network cuts, and may have an axis of one channel."""
    a, b = random(0), random(1)
    target, before = write(tmp_path / "a.zarr/raw", a), write(tmp_path / "b.zarr/raw", b)
    after = write(tmp_path / "c.zarr/image", a[None, 5:60, 2:8, 1:10], (40, 8, 4))
    (first, second), region = differences(target, [before, after])
    assert region == "40:480,8:32,4:40"
    assert second.rmse == 0
    inner = np.s_[5:60, 2:8, 1:10]
    assert first.rmse == pytest.approx(np.sqrt(np.square((b[inner].astype(float) - a[inner]) / 255).mean()))
    (part,), told = differences(target, [before], "80:160,:,:")
    assert told == "80:160,0:36,0:44"
    assert part.rmse == pytest.approx(np.sqrt(np.square((b[10:20].astype(float) - a[10:20]) / 255).mean()))


def test_volumes_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    target = write(tmp_path / "a.zarr/raw", random(0))
    for name, voxels, grid, message in (
        ("b", random(1), {"voxel_size": (8, 4, 5)}, "expected the target's"),
        ("c", random(1), {"offset": (4, 0, 0)}, "not whole voxels from the target's"),
        ("d", random(1), {"offset": (800, 0, 0)}, "expected it to overlap"),
        ("e", random(1, (2, *SHAPE)), {}, "expected images"),
        ("f", random(1).astype(np.uint64), {}, "expected images"),
        ("g", np.full(SHAPE, 2, np.float32), {}, "expected floats in"),
    ):
        other = write(tmp_path / f"{name}.zarr/raw", voxels, **grid)
        with pytest.raises(BadInput, match=message):
            differences(target, [other])
    small = write(tmp_path / "h.zarr/raw", random(1, (9, 9, 9)))
    with pytest.raises(BadInput, match=r"covers .* was asked for"):
        differences(target, [small], "0:560,:,:")
