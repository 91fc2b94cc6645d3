"""The state of files sees every edit; the content of voxels is the same in every copy and format."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from builders import write_array
from emsuite.common.geometry import Roi
from emsuite.io import fingerprint
from emsuite.io.fingerprint import content, state
from emsuite.io.volume import open_volume

VOXELS = np.arange(80 * 70 * 70, dtype=np.uint32).reshape(80, 70, 70)


@pytest.fixture
def array(tmp_path: Path) -> Path:
    write_array(tmp_path / "v.zarr/volumes/raw", VOXELS)
    return tmp_path / "v.zarr/volumes/raw"


def chunk(array: Path) -> Path:
    return max((path for path in array.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_the_state_changes_with_an_edit_within_a_second_and_of_the_same_size(array: Path) -> None:
    before = state(array)
    assert state(array) == before
    about = chunk(array).stat()
    data = bytearray(chunk(array).read_bytes())
    data[-1] ^= 1
    chunk(array).write_bytes(data)
    os.utime(chunk(array), ns=(about.st_mtime_ns, about.st_mtime_ns + 1))
    assert state(array)[0] != before[0]


def test_the_state_changes_with_a_file_that_replaces_another_with_its_time_and_size(array: Path) -> None:
    before = state(array)
    copy = array.parent / "copy"
    shutil.copy2(chunk(array), copy)
    copy.replace(chunk(array))
    assert state(array)[0] != before[0]
    assert state(array)[1] == before[1]


def test_the_state_tells_the_newest_change(array: Path) -> None:
    newest = state(array)[1] + 10**9
    os.utime(chunk(array), ns=(newest, newest))
    assert state(array)[1] == newest


def test_the_state_of_an_array_in_a_file_and_of_nothing(tmp_path: Path) -> None:
    assert state(tmp_path / "v.zarr") == ("missing", 0)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["raw"] = VOXELS
    assert state(tmp_path / "v.h5/raw") == state(tmp_path / "v.h5")
    (tmp_path / "away").symlink_to("nowhere")
    assert state(tmp_path)[0].startswith("state:")


def test_a_volume_of_many_files_is_looked_at_up_to_a_bound(
    array: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    for number in range(30):
        (folder / str(number)).write_text("x")
    (folder / ".zarray").write_text("{}")
    monkeypatch.setattr(fingerprint, "MOST_FILES", 10)
    before = state(folder)
    (folder / "5").write_text("y")  # in place, behind the bound
    assert state(folder) == before
    (folder / "new").write_text("x")
    assert state(folder)[0] != before[0]
    before = state(folder)
    (folder / ".zarray").write_text("[]")
    assert state(folder)[0] != before[0]


def test_the_content_is_that_of_the_voxels(array: Path, tmp_path: Path) -> None:
    volume = open_volume(array)
    told = content(volume)
    shutil.copytree(array.parents[1], tmp_path / "copy.zarr")
    assert content(open_volume(tmp_path / "copy.zarr/volumes/raw")) == told
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["raw"] = VOXELS
        file["raw"].attrs.update(resolution=[8, 8, 8], offset=[0, 0, 0])
    assert content(open_volume(tmp_path / "v.h5/raw")) == told
    half = Roi((0, 0, 0), (320, 560, 560))
    before = content(volume, half)
    open_volume(array, "r+").array[60, 3, 3] = 7
    assert content(open_volume(array)) != told
    assert content(open_volume(array), half) == before


def test_the_content_does_not_depend_on_the_pieces(array: Path) -> None:
    pieces = np.concatenate([VOXELS[:30], VOXELS[30:]])
    write_array(array.parent / "other", pieces)
    assert content(open_volume(array.parent / "other")) == content(open_volume(array))
    assert content(open_volume(array), convert=lambda voxels: voxels > 0) != content(open_volume(array))


def test_of_a_larger_array_the_files_count(array: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "MOST_BYTES", 1000)
    assert content(open_volume(array)).startswith("listing:")
