"""The state of files sees every edit; the content of voxels is the same in every copy and format."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from builders import write_array
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Roi
from emsuite.common.state.origins import Reading
from emsuite.io import fingerprint
from emsuite.io.fingerprint import content, state, state_or_voxels, voxels_or_times
from emsuite.io.volume import fingerprint as fingerprint_of
from emsuite.io.volume import open_volume
from file_server import serve_files

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


def test_edits_in_place_change_what_is_told_of_a_larger_array(array: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert voxels_or_times(open_volume(array)) == content(open_volume(array))
    monkeypatch.setattr(fingerprint, "MOST_BYTES", 1000)
    told = voxels_or_times(open_volume(array))
    assert told.startswith(content(open_volume(array)) + " ")
    assert voxels_or_times(open_volume(array)) == told
    chunk = next(path for path in array.rglob("*") if path.is_file() and path.name[0].isdigit())
    os.utime(chunk, ns=(0, chunk.stat().st_mtime_ns + 1))
    assert voxels_or_times(open_volume(array)) != told


SMALL = VOXELS[:8, :8, :8]


def linked(folder: Path, kind: str) -> Path:
    """An array whose voxels lie in `source.h5`, or a file of bytes."""
    with h5py.File(folder / "source.h5", "w") as file:
        file["raw"] = SMALL
        file["group/raw"] = SMALL
    with h5py.File(folder / "between.h5", "w") as file:
        file["on"] = h5py.ExternalLink("source.h5", "/raw")
    layout = h5py.VirtualLayout(SMALL.shape, SMALL.dtype)
    source, inside = {"virtual": ("source.h5", "raw"), "virtual of link": ("between.h5", "on")}.get(kind, (".", "here"))
    layout[...] = h5py.VirtualSource(source, inside, shape=SMALL.shape)
    with h5py.File(folder / "main.h5", "w") as file:
        if kind == "bytes":
            (folder / "source.h5").write_bytes(SMALL.tobytes())
            place = [("source.h5", 0, SMALL.nbytes)]
            file.create_dataset("raw", SMALL.shape, SMALL.dtype, external=place)
        elif kind.startswith("virtual"):
            file["here"] = h5py.ExternalLink("source.h5", "raw")
            file.create_virtual_dataset("raw", layout)
        else:
            file["raw"] = {
                "link": h5py.ExternalLink("source.h5", "raw"),
                "link to link": h5py.ExternalLink("between.h5", "on"),
                "group": h5py.ExternalLink("source.h5", "group"),
                "soft": h5py.SoftLink("other/way"),
            }[kind]
            file["other/way"] = h5py.ExternalLink("between.h5", "on")
    return folder / "main.h5" / ("raw/raw" if kind == "group" else "raw")


KINDS = ["link", "link to link", "group", "soft", "virtual", "virtual of link", "virtual of itself", "bytes"]


@pytest.mark.parametrize("kind", KINDS)
def test_voxels_behind_links_of_hdf5_count(tmp_path: Path, kind: str) -> None:
    path = linked(tmp_path, kind)
    before = state(path)[0], fingerprint_of(path), fingerprint_of(tmp_path / "main.h5")
    if kind == "bytes":
        (tmp_path / "source.h5").write_bytes((SMALL + 1).tobytes())
    else:
        with h5py.File(tmp_path / "source.h5", "r+") as file:
            file["group/raw" if kind == "group" else "raw"][...] = SMALL + 1
    now = state(path)[0], fingerprint_of(path), fingerprint_of(tmp_path / "main.h5")
    assert not set(before) & set(now)


@pytest.mark.parametrize("kind", KINDS)
def test_voxels_behind_links_that_are_edited_while_they_are_read(tmp_path: Path, kind: str) -> None:
    reading = Reading.of({"raw": linked(tmp_path, kind)})
    reading.check()
    source = tmp_path / "source.h5"
    os.utime(source, ns=(0, source.stat().st_mtime_ns + 1))
    with pytest.raises(BadInput, match=r"main.h5.*: was replaced or edited while it was read"):
        reading.check()


@pytest.mark.parametrize("kind", KINDS)
def test_voxels_behind_links_to_nowhere(tmp_path: Path, kind: str) -> None:
    path = linked(tmp_path, kind)
    (tmp_path / "source.h5").unlink()
    with pytest.raises(BadInput, match=r"'raw(/raw)?' leads to .*source.h5, which is no file"):
        state(path)
    assert fingerprint_of(tmp_path / "main.h5"), "of what else the file holds"


def test_links_of_hdf5_in_circles(tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        with h5py.File(tmp_path / f"{one}.h5", "w") as file:
            file["raw"] = h5py.ExternalLink(f"{other}.h5", "raw")
            file["group/itself"] = h5py.SoftLink("/group")
    assert state(tmp_path / "a.h5/raw")[0] != "missing"
    assert fingerprint_of(tmp_path / "a.h5") != fingerprint_of(tmp_path / "b.h5/raw")


def test_further_files_of_ome_tiff_count(tmp_path: Path) -> None:
    path = tmp_path / "first.ome.tif"
    told = '<OME><Image><Pixels><TiffData><UUID FileName="second.ome.tif">u</UUID></TiffData></Pixels></Image></OME>'
    tifffile.imwrite(path, SMALL[0], description=told, metadata=None)
    before = state(path)[0], fingerprint_of(path)
    tifffile.imwrite(tmp_path / "second.ome.tif", SMALL[1])
    assert not set(before) & {state(path)[0], fingerprint_of(path)}


def test_of_an_array_on_a_server_the_voxels_count(array: Path, tmp_path: Path) -> None:
    assert state_or_voxels(array) == state(array)[0]
    with serve_files(tmp_path) as url:
        there = Path(f"{url}/v.zarr/volumes/raw")
        before = state_or_voxels(there)
        assert before == state_or_voxels(there) == content(open_volume(array))
        write_array(array, VOXELS[::-1].copy())
        assert state_or_voxels(there) != before
