"""Skeletons: lines of known length, whatever the blocks, their directions and the size of voxels."""

import csv
from pathlib import Path

import numpy as np
import pytest

from builders import write_array
from emsuite.common.geometry import Coordinate
from emsuite.export import runs
from emsuite.export.export import Shapes, export_table
from emsuite.export.mesh import UNITS
from emsuite.export.runs import Mask
from emsuite.export.skeletons import Skeleton, cable_length, skeletonize

SIZE = (8.0, 8.0, 8.0)
ONE = np.ones(3, np.int64)


def along(line: np.ndarray, shape: tuple[int, ...], radius_nm: float, size: tuple[float, ...] = SIZE) -> np.ndarray:
    """The voxels within a radius of the points (N, 3) of a line; both z, y, x and in voxels."""
    inside = np.zeros(shape, np.uint32)
    reach = [int(radius_nm // n) + 1 for n in size]
    ball = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    ball = ball[((ball * size) ** 2).sum(axis=1) <= radius_nm**2]
    for point in np.unique(np.rint(line).astype(int), axis=0):
        places = point + ball
        inside[tuple(places[((places >= 0) & (places < shape)).all(axis=1)].T)] = 1
    return inside


def straight(begin: tuple[float, ...], end: tuple[float, ...]) -> np.ndarray:
    return np.array(begin) + np.linspace(0, 1, 2000)[:, None] * (np.array(end) - begin)


def arc() -> np.ndarray:
    angle = np.linspace(0, np.pi, 2000)
    return np.stack([np.full(2000, 20), 64 + 50 * np.cos(angle), 14 + 50 * np.sin(angle)], axis=1)


def helix() -> np.ndarray:
    angle = np.linspace(0, 4 * np.pi, 4000)
    return np.stack([12 + angle / angle[-1] * 100, 32 + 20 * np.cos(angle), 32 + 20 * np.sin(angle)], axis=1)


LINES = {
    # line, shape, radius nm, voxel size
    "inside": (straight((20, 32, 32), (140, 32, 32)), (160, 64, 64), 64, SIZE),
    "across the region": (straight((0, 30, 30), (160, 30, 30)), (160, 60, 60), 90, SIZE),
    "along an edge of blocks": (straight((0, 40, 40), (160, 40, 40)), (160, 80, 80), 64, SIZE),
    "thick, along a face of blocks": (straight((0, 40, 36), (200, 40, 36)), (200, 72, 72), 240, SIZE),
    "oblique": (straight((10, 14, 20), (120, 80, 53)), (130, 96, 72), 60, SIZE),
    "the worst direction for steps of voxels": (straight((8, 8, 8), (118, 53.6, 43)), (126, 64, 56), 40, SIZE),
    "an arc": (arc(), (40, 128, 80), 40, SIZE),
    "a helix": (helix(), (124, 64, 64), 32, SIZE),
    "flat voxels": (straight((3, 14, 20), (22, 130, 160)), (25, 144, 176), 60, (40, 8, 8)),
}


def cable(path: Path, block: int | None) -> float:
    size = None if block is None else Coordinate(block * n for n in (8, 8, 8))
    out = path.parent.with_name(f"{block}.csv")
    assert export_table(path, out, block_size=size, shapes=Shapes(0, True)) == 1
    with open(out, newline="") as file:
        (row,) = csv.DictReader(file)
    return float(row["cable_length_nm"])


@pytest.mark.parametrize("most", [runs.MOST_VOXELS, 4000])
@pytest.mark.parametrize("name", LINES)
def test_cable_lengths_are_those_of_lines(
    name: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MOST_VOXELS", most)
    line, shape, radius, size = LINES[name]
    labels = along(line, shape, radius, size)
    write_array(tmp_path / "s.zarr/s", labels, size, [3 * n for n in size])
    true = np.linalg.norm(np.diff(line, axis=0) * size, axis=1).sum()
    ends = sum(((at > 0) & (at < np.array(shape) - 1)).all() for at in np.rint(line[[0, -1]]))
    lengths = {cable(tmp_path / "s.zarr/s", block) for block in (None, 40, 25)}
    assert len(lengths) == 1, "of all blocks"
    assert lengths.pop() == pytest.approx(true + ends * radius, rel=0.07), "a free end is a ball that counts"


def test_nodes_lie_at_the_centres_of_coarse_voxels() -> None:
    tube = np.zeros((60, 7, 7), bool)
    tube[1:-1, 2:5, 2:5] = True
    for factors in (ONE, 2 * ONE):
        made = skeletonize(Mask(tube, np.array([4, 0, -1]), factors), SIZE)
        assert (made.nodes % (UNITS * factors) == UNITS * factors // 2).all()
        assert (made.nodes[:, 2].min(), made.nodes[:, 2].max()) == tuple((np.array([5, 62]) + 0.5) * UNITS * factors[0])
        middle = np.abs(made.nodes[:, 2] - made.nodes[:, 2].mean()) < 20 * UNITS
        assert (made.nodes[middle, :2] == (np.array([2, 3]) + 0.5) * UNITS * factors[0]).all()
        assert len(made.edges) == len(made.nodes) - 1
    assert made.radius[middle] == pytest.approx(2 * 16 - 4), "less than half of a coarse voxel around fine ones"


def test_a_single_voxel_has_no_skeleton() -> None:
    made = skeletonize(Mask(np.pad(np.ones((1, 1, 1), bool), 1), 0 * ONE, ONE), SIZE)
    assert (len(made.nodes), len(made.edges), cable_length(made, SIZE)) == (0, 0, 0.0)


def test_lengths_are_those_of_smooth_lines() -> None:
    steps = np.cumsum([[0, 0, 0], *([[1, 0, 0], [1, 1, 0]] * 50)], axis=0) * UNITS
    edges = np.stack([np.arange(100), np.arange(1, 101)], axis=1)
    stairs = Skeleton(steps, np.ones(101, np.float32), edges)
    assert cable_length(stairs, SIZE) == pytest.approx(np.hypot(100, 50) * 8, rel=0.002)
    branched = Skeleton(np.array([[0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9]]) * UNITS, np.ones(4), edges[:3] * [0, 1])
    assert cable_length(branched, (1.0, 2.0, 3.0)) == 9 * 6


@pytest.mark.parametrize("most", [runs.MOST_VOXELS, 4000])
def test_a_fork_has_the_length_of_its_arms(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MOST_VOXELS", most)
    stem, fork = (
        straight((0, 40, 40), (150, 40, 40)),
        [straight((70, 40, 40), (130, 40 + side, 40)) for side in (60, -36)],
    )
    labels = along(np.concatenate([stem, *fork]), (150, 110, 80), 40)
    write_array(tmp_path / "s.zarr/s", labels)
    true = 8 * (150 + np.hypot(60, 60) + np.hypot(60, 36)) + 2 * 40
    (length,) = {cable(tmp_path / "s.zarr/s", block) for block in (None, 40)}
    assert length == pytest.approx(true, rel=0.1)
