"""A voxel size that the user states: taken where the file says none, refused where it says another."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.common.process import environment_with
from emsuite.io.volume import StatedOtherwise, open_volume, stated_grid


def put(path: Path, shape: tuple[int, ...] = (2, 3, 4), **attributes: object) -> Path:
    with h5py.File(path, "a") as file:
        for name in ("raw", "labels"):
            file[name] = np.zeros(shape, np.uint8)
            file[name].attrs.update(attributes)
    return path


def grid(path: Path, *stated: object) -> tuple[tuple[float, ...], tuple[float, ...]]:
    volume = open_volume(path, "r", *stated)  # type: ignore[arg-type]
    return tuple(volume.voxel_size), tuple(volume.offset)


def test_a_file_that_says_none(tmp_path: Path) -> None:
    path = put(tmp_path / "a.h5") / "raw"
    with pytest.raises(BadInput, match=r"no attribute 'resolution' or 'voxel_size'; .* or the option --voxel-size"):
        open_volume(path)
    assert grid(path, (40, 4, 4)) == ((40, 4, 4), (0, 0, 0))
    assert grid(path, (40, 4, 4), (80, -4, 8)) == ((40, 4, 4), (80, -4, 8))
    with pytest.raises(BadInput, match="--voxel-size"):
        open_volume(path, offset=(0, 0, 0))


def test_units_of_a_file_that_says_no_lengths_mean_nothing(tmp_path: Path) -> None:
    path = put(tmp_path / "a.h5", units="pixel") / "raw"
    assert grid(path, (40, 4, 4), (80, 0, 8)) == ((40, 4, 4), (80, 0, 8))


def test_channels_have_no_size(tmp_path: Path) -> None:
    path = put(tmp_path / "a.h5", (3, 2, 3, 4)) / "raw"
    assert open_volume(path, voxel_size=(40, 4, 4)).channels == 3


def test_an_offset_is_taken_where_the_file_says_a_size_alone(tmp_path: Path) -> None:
    path = put(tmp_path / "a.h5", resolution=[0.04, 0.004, 0.004], units="um") / "raw"
    assert grid(path, None, (80, -4, 8)) == ((40, 4, 4), (80, -4, 8)), "nm, whatever the unit of the file"
    assert grid(path, (40, 4, 4.0001), None) == ((40, 4, 4), (0, 0, 0)), "rounded"


@pytest.mark.parametrize(
    ("size", "offset", "message"),
    [
        ((40, 4, 5), None, "its file says a voxel size of 40,4,4 nm, but --voxel-size says 40,4,5 nm"),
        ((4, 4), None, "its file says a voxel size of 40,4,4 nm, but --voxel-size says 4,4 nm"),
        (None, (1, 2, 3), "its file says a offset of 80,0,8 nm, but --offset says 1,2,3 nm"),
        ((40, 4, 4), (0, 0, 0), "its file says a offset of 80,0,8 nm"),
    ],
)
def test_a_file_that_says_otherwise(tmp_path: Path, size: object, offset: object, message: str) -> None:
    path = put(tmp_path / "a.h5", resolution=[40, 4, 4], offset=[80, 0, 8]) / "raw"
    with pytest.raises(StatedOtherwise, match=message):
        grid(path, size, offset)
    assert grid(path, (40, 4, 4), (80, 0, 8)) == ((40, 4, 4), (80, 0, 8))


def test_odd_lengths_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "a.h5") / "raw"
    for size in ((0, 4, 4), (-4, 4, 4), (float("nan"), 4, 4), (float("inf"), 4, 4)):
        with pytest.raises(BadInput):
            grid(path, size)


def test_what_is_stated_holds_for_the_arrays_below_and_within_the_block(tmp_path: Path) -> None:
    path, other = put(tmp_path / "a.h5"), put(tmp_path / "b.h5")
    (tmp_path / "link.h5").symlink_to(path)
    with (
        environment_with(*stated_grid([path], (40, 4, 4), None)),
        environment_with(*stated_grid([path / "labels", other], None, (80, 0, 0))),
    ):
        assert grid(path / "raw") == ((40, 4, 4), (0, 0, 0))
        assert grid(tmp_path / "link.h5/raw") == ((40, 4, 4), (0, 0, 0))
        with pytest.raises(BadInput, match="--voxel-size"):
            open_volume(other / "raw")
    for array in (path / "raw", path / "labels"):
        with pytest.raises(BadInput, match="--voxel-size"):
            open_volume(array)
    assert not any("STATED" in name for name in os.environ)


def test_processes_inherit_it(tmp_path: Path) -> None:
    path = put(tmp_path / "a ü.h5")
    program = "import sys; from emsuite.io.volume import open_volume; print(open_volume(sys.argv[1]).offset)"
    with environment_with(*stated_grid([path], (40, 4, 4), (80, 0, 8))):
        done = subprocess.run([sys.executable, "-c", program, path / "raw"], capture_output=True, text=True, check=True)
    assert "80, 0, 8" in done.stdout
