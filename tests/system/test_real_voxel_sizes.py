"""Voxels of 29.4 x 4.6 x 4.6 nm give, through every stage, the voxels that whole nanometres give."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import builders
from emsuite.io.volume import open_volume

WHOLE, REAL = (30, 5, 5), (29.4, 4.6, 4.6)
BLOCK = (14, 20, 20)


def nm(voxels: tuple[int, ...], size: tuple[float, ...]) -> str:
    return ",".join(f"{n * s:.10g}" for n, s in zip(voxels, size, strict=True))


def region(voxels: tuple[tuple[int, int], ...], size: tuple[float, ...]) -> str:
    return ",".join(f"{b * s:.10g}:{e * s:.10g}" for (b, e), s in zip(voxels, size, strict=True))


def run_all(call: Callable, folder: Path, size: tuple[float, ...]) -> Path:
    """Train on, predict and segment the same voxels of a size; the volume begins 10 voxels from the world's origin."""
    builders.write_network(folder / "d/n", voxel_size=list(size), training={"sampling": {"label_padding": [
        2 * size[0], 0, 0]}})  # fmt: skip
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((40, 44, 44)), 2)
    labels = ndimage.label(smooth > np.median(smooth))[0].astype(np.uint64)
    grey = np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth))
    for name, voxels in (("raw", grey), ("labels/neuron_ids", labels)):
        builders.write_array(folder / "v.zarr/volumes" / name, voxels, size, [10 * s for s in size])
    volume, options, block = "v.zarr/volumes", ["--workers", 1], nm(BLOCK, size)
    for command in (
        ["02_train/train.py", "d/n", "--data", f"v.zarr@{region(((12, 48), (10, 54), (10, 54)), size)}"],
        ["03_predict/predict.py", "d/n", "--raw", f"{volume}/raw", "--out", "p.zarr", "--roi",
         region(((13, 47), (12, 50), (12, 50)), size)],
        ["04_segment/extract_fragments.py", "--affs", "p.zarr/affs", "--out", ".", "--block-size", block,
         "--context", nm((4, 4, 4), size), *options],
        ["04_segment/agglomerate.py", "--affs", "p.zarr/affs", "--fragments", "fragments.zarr/fragments", "--out",
         "edges", *options],
        ["04_segment/find_segments.py", "--nodes", "graph/nodes", "--edges", "edges", "--out", "lookup",
         "--thresholds", "0.2,0.8,0.2"],
        ["04_segment/evaluate.py", "--fragments", "fragments.zarr/fragments", "--lookup", "lookup", "--out", ".",
         "--labels", f"{volume}/labels/neuron_ids", "--raw", f"{volume}/raw", "--block-size", block, *options],
        ["04_segment/extract_segmentation.py", "--fragments", "fragments.zarr/fragments", "--lookup", "lookup",
         "--scores", "scores.json", "--out", "s.zarr", *options],
    ):  # fmt: skip
        ended = call(*command, cwd=folder)
        assert ended.code == 0, (command, ended.err)
    return folder


@pytest.mark.slow
def test_every_stage_yields_the_voxels_of_whole_nanometres(call_script: Callable, tmp_path: Path) -> None:
    whole, real = (run_all(call_script, tmp_path / str(size[0]), size) for size in (WHOLE, REAL))
    for name in ("p.zarr/affs", "fragments.zarr/fragments", "s.zarr/segmentation"):
        expected, volume = open_volume(whole / name), open_volume(real / name)
        assert np.array_equal(volume.read(), expected.read()), name
        assert volume.voxel_size == (volume.voxel_size * 0 + 1) * (29.4, 4.6, 4.6)
        assert volume.offset == volume.voxel_size * (13, 12, 12)
    assert expected.read().max() > 0
    assert (real / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()
    assert {path.name for path in (real / "sections").iterdir()} != set()
