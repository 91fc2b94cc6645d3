"""Statistics against NumPy on all values at once, and tables that come back."""

from pathlib import Path

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.plates.statistics import (
    GreyScale,
    Histogram,
    Moments,
    Row,
    Where,
    exact_percentiles,
    grey_scale,
    grey_scales,
    measure,
    read_statistics,
    write_statistics,
)

NEAR = (2.0, 98.0)
VOLUMES = {
    Where(position, time, channel): np.random.default_rng((p, time, channel)).normal(
        100 * channel + 10 * p, 5, (3, 8, 9)
    )
    for p, position in enumerate(("A/1/0", "A/1/1"))
    for time in range(2)
    for channel in range(2)
}
for where, voxels in VOLUMES.items():
    if where.position == "A/1/1" and where.time == 1:
        voxels[1] = 0
DARK = Where("A/1/2", 0, 0), Where("A/1/2", 0, 1)
VOLUMES |= {where: np.full((3, 8, 9), 4.0) for where in DARK}


def run(function, volumes):
    return [function(where) for where in volumes]


def values(**where: object) -> np.ndarray:
    """All values of the chosen volumes, without the sections that have no light."""
    chosen = [v for w, v in VOLUMES.items() if all(getattr(w, key) == value for key, value in where.items())]
    return np.concatenate([section.ravel() for volume in chosen for section in volume if section.min() < section.max()])


def check(row: Row, expected: np.ndarray, tolerance: float) -> None:
    assert row.voxels == expected.size
    assert row.mean == pytest.approx(expected.mean())
    assert row.std == pytest.approx(expected.std())
    low, high = np.percentile(expected, NEAR)
    assert row.low == pytest.approx(low, abs=tolerance)
    assert row.high == pytest.approx(high, abs=tolerance)


def test_every_scope_is_that_of_all_its_values_at_once() -> None:
    rows = measure(list(VOLUMES), VOLUMES.__getitem__, NEAR, run)
    assert len(rows) == 2 + 6 + 10
    for row in rows:
        if row.position == "A/1/2":
            assert (row.voxels, row.mean, row.std, row.low, row.high, row.empty) == (0, 0, 0, 0, 0, 3)
        elif row.scope == "dataset":
            check(row, values(channel=row.channel), 0.2)
            assert row.empty == 4
        elif row.scope == "position":
            check(row, values(channel=row.channel, position=row.position), 0.5)
        else:
            check(row, values(channel=row.channel, position=row.position, time=row.time), 1e-9)


def test_moments_of_parts_are_those_of_the_whole() -> None:
    whole = np.random.default_rng(3).normal(1e6, 1, (8, 5, 5))
    merged = Moments.of(whole[:3]).merge(Moments.of(whole[3:])).merge(Moments.of(np.zeros((2, 5, 5))))
    assert merged.mean == pytest.approx(whole.mean(), rel=1e-12)
    assert merged.deviation == pytest.approx(whole.std(), rel=1e-9)
    assert merged.range == (whole.min(), whole.max())
    assert merged.empty == 2
    assert Moments().merge(Moments()).range == (0, 1)


def test_percentiles_of_a_histogram_are_exact_to_a_bin() -> None:
    grey = np.random.default_rng(4).integers(0, 4096, (4, 100, 100))
    histogram, other = Histogram(0, 4095), Histogram(0, 4095)
    histogram.add(grey[:2])
    other.add(grey[2:])
    histogram.merge(other)
    assert histogram.percentiles((5, 95)) == pytest.approx(np.percentile(grey, (5, 95)), abs=1.0)
    assert Histogram(0, 1).percentiles(NEAR) == (0, 0)
    assert exact_percentiles(np.ones((2, 3, 3)), NEAR) == (0, 0)


def test_tables_come_back(tmp_path: Path) -> None:
    rows = measure(list(VOLUMES), VOLUMES.__getitem__, NEAR, run)
    rows.append(rows[-1]._replace(scope="tile", z=0, y=16, x=3, foreground=0.25))
    write_statistics(tmp_path / "statistics.csv", rows)
    assert read_statistics(tmp_path / "statistics.csv") == rows
    with pytest.raises(BadInput, match="no such file"):
        read_statistics(tmp_path / "other.csv")
    (tmp_path / "odd.csv").write_text("scope,position\ndataset,a\n")
    with pytest.raises(BadInput, match="cannot be read as statistics"):
        read_statistics(tmp_path / "odd.csv")


def test_volumes_are_normalized_by_the_scope() -> None:
    rows = measure(list(VOLUMES), VOLUMES.__getitem__, NEAR, run)
    for scope, keys in (("dataset", ()), ("position", ("position",)), ("volume", ("position", "time"))):
        scales = grey_scales(rows, "z_score", scope)
        assert scales.keys() == VOLUMES.keys()
        for where, scale in scales.items():
            if where not in DARK:
                near = values(channel=where.channel, **{key: getattr(where, key) for key in keys})
                assert scale.shift == pytest.approx(near.mean())
                assert scale.scale == pytest.approx(near.std())
    assert grey_scales(rows, "z_score", "position")[DARK[0]] == GreyScale(0, 1)


def test_grey_scales() -> None:
    voxels = values(position="A/1/0", channel=1)
    row = Row("position", "A/1/0", channel=1, voxels=voxels.size, mean=float(voxels.mean()), std=float(voxels.std()),
              low=90.0, high=120.0)  # fmt: skip
    scored = grey_scale(row, "z_score").apply(voxels)
    assert scored.dtype == np.float32
    assert np.allclose(scored, (voxels - voxels.mean()) / (voxels.std() + 2.2e-16), atol=1e-6)
    assert grey_scale(row, "percentile").apply(np.array([90, 105, 120])).tolist() == [-1, 0, 1]
    assert grey_scale(row, "none") == GreyScale(0, 1)
    assert grey_scale(Row("volume"), "z_score") == GreyScale(0, 1)
    assert np.allclose(grey_scale(row, "z_score").undo(scored), voxels, rtol=1e-5)


def test_who_judged_before_says_what_is_empty() -> None:
    """A section that a clip made flat counts; one that was empty does not, whatever became of it."""
    volume = np.stack([np.full((4, 4), 0.1), np.arange(16.0).reshape(4, 4)])
    where, empty = Where("A/1/0", 0, 0), np.array([False, True])
    for row in measure([where], lambda _: volume, (0, 100), lambda f, some: [f(one) for one in some], {where: empty}):
        assert (row.voxels, row.mean, row.std, row.empty) == (16, 0.1, 0, 1)
        assert (row.low, row.high) == pytest.approx((0.1, 0.1), abs=1e-4)


def test_the_highest_percentile_of_a_position_is_its_own() -> None:
    """Not that of the data set, whose range its histogram has."""
    volumes = {Where(p, 0, 0): np.arange(16.0).reshape(1, 4, 4) * factor for p, factor in (("A/1/0", 1), ("A/1/1", 9))}
    rows = measure([*volumes], volumes.get, (0, 100), lambda f, some: [f(one) for one in some])
    found = {row.position: (row.low, row.high) for row in rows if row.scope == "position"}
    assert found == {"A/1/0": pytest.approx((0, 15), abs=0.01), "A/1/1": pytest.approx((0, 135), abs=0.01)}
