"""HDF5 and TIFF, written as a whole: read by their own libraries, stopped and killed, beside others' arrays."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tifffile import TiffFile

from builders import files_in, write_array
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.outputs import lock_path, read_manifest
from emsuite.common.state.lock import OutputInUse, owned
from emsuite.data.convert import Layout, convert
from emsuite.io.formats import hdf5
from emsuite.io.formats.sections import tiff_writer
from emsuite.io.volume import array_names, create_volume, open_volume

SIZE, OFFSET = (29.4, 8, 4.6), (294, -16, 46)
RAW = np.random.default_rng(0).integers(0, 255, (9, 20, 30)).astype(np.uint16)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_array(tmp_path / "s.zarr/raw", RAW, SIZE, OFFSET)
    return tmp_path / "s.zarr/raw"


def test_h5py_reads_a_cube_as_cremi_lays_it_out(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "x.h5/volumes/raw", layout=Layout(chunks=(4, 8, 8)), workers=2)
    with h5py.File(tmp_path / "x.h5") as file:
        array = file["volumes/raw"]
        np.testing.assert_array_equal(array[...], RAW)
        assert array.attrs["resolution"].tolist() == list(SIZE)
        assert array.attrs["offset"].tolist() == list(OFFSET)
        assert (array.chunks, array.compression) == ((4, 8, 8), "gzip")
    manifest = read_manifest(tmp_path / "x.h5.volumes.raw")
    assert (manifest["settings"]["chunks"], manifest["digest"]) == ([4, 8, 8], convert(source, tmp_path / "y.zarr/raw"))


def test_tifffile_reads_pages_with_a_voxel_size(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "x.ome.tif", workers=2)
    with TiffFile(tmp_path / "x.ome.tif") as file:
        assert (file.series[0].axes, len(file.pages), file.is_bigtiff) == ("ZYX", 9, False)
        np.testing.assert_array_equal(file.asarray(), RAW)
        text = file.ome_metadata or ""
    assert 'PhysicalSizeZ="29.4"' in text
    assert text.count('"nm"') == 3 + 9 * 3
    assert read_manifest(tmp_path / "x.ome.tif")["written"]["size"] == (tmp_path / "x.ome.tif").stat().st_size


def test_large_files_are_bigtiffs(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_writer, "_CLASSIC", 1000)
    convert(source, tmp_path / "x.tif")
    with TiffFile(tmp_path / "x.tif") as file:
        assert file.is_bigtiff
    np.testing.assert_array_equal(open_volume(tmp_path / "x.tif").read(), RAW)


@pytest.mark.parametrize("name", ["x.h5/raw", "x.tif"])
@pytest.mark.parametrize("shape", [(9, 20, 30), (3, 9, 20, 30)])
def test_no_more_is_read_at_once_than_a_block(
    name: str, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    written = create_volume(tmp_path / "s.zarr/raw", shape, np.uint32, SIZE, OFFSET)
    written.write(written.roi, voxels)
    monkeypatch.setattr(hdf5, "_BLOCK", 4 * 2000)
    monkeypatch.setattr(tiff_writer, "_SLAB", 4 * 2000)
    monkeypatch.setattr("emsuite.data.convert._BLOCK_BYTES", 4 * 2000)
    most = []
    get = type(written).__getitem__
    monkeypatch.setattr(type(written), "__getitem__", lambda self, at: (most.append(get(self, at)), most[-1])[1])
    convert(written.path, tmp_path / name, layout=Layout(chunks=(4, 8, 8)))
    assert max(part.size for part in most) <= 2000
    np.testing.assert_array_equal(open_volume(tmp_path / name).read(), voxels)


@pytest.mark.parametrize("name", ["x.h5/raw", "x.tif"])
def test_the_same_voxels_give_the_same_bytes_and_a_stopped_run_leaves_nothing(
    name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / name.split("/")[0]
    convert(source, tmp_path / name)
    whole = file.read_bytes()

    def differs(*_: Any) -> list[str]:
        raise RunFailed("differs")

    with monkeypatch.context() as patched:
        patched.setattr("emsuite.data.convert.compare", differs)
        with pytest.raises(RunFailed):
            convert(source, tmp_path / ("new." + name))
    assert not [path for path in tmp_path.glob("*new.*") if path.suffix in (".h5", ".tif", ".part")]
    convert(source, tmp_path / ("new." + name))
    assert (tmp_path / ("new." + file.name)).read_bytes() == whole


KILLED = """
import os, signal, sys
from pathlib import Path
from emsuite.data import convert
convert.compare = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
convert.convert(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("name", ["x.h5/raw", "x.tif"])
def test_a_killed_run_begins_again(name: str, source: Path, tmp_path: Path) -> None:
    file = tmp_path / name.split("/")[0]
    ended = subprocess.run([sys.executable, "-c", KILLED, str(source), str(tmp_path / name)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not file.exists()
    assert list(tmp_path.glob(".*.part"))
    convert(source, tmp_path / name)
    assert not list(tmp_path.glob(".*.part"))
    np.testing.assert_array_equal(open_volume(tmp_path / name).read(), RAW)


def test_other_arrays_of_the_file_stay(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["volumes/labels/mine"] = RAW
        file["volumes"].attrs["of"] = "me"
    os.chmod(tmp_path / "x.h5", 0o640)
    before = (tmp_path / "x.h5").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(hdf5, "_boxes", lambda new: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "x.h5/volumes/raw")
    assert (tmp_path / "x.h5").read_bytes() == before, "a stopped run does not touch it"
    for _ in range(2):
        convert(source, tmp_path / "x.h5/volumes/raw")
        assert array_names(tmp_path / "x.h5") == ["volumes/labels/mine", "volumes/raw"]
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["volumes"].attrs["of"] == "me"
        np.testing.assert_array_equal(file["volumes/labels/mine"][...], RAW)
    assert (tmp_path / "x.h5").stat().st_mode & 0o777 == 0o640
    with pytest.raises(BadInput, match="mine: exists but is no copy that this suite made"):
        convert(source, tmp_path / "x.h5/volumes/labels/mine")
    with pytest.raises(BadInput, match="'volumes/labels/mine' is an array, and 'volumes/labels/mine/in' would lie in"):
        convert(source, tmp_path / "x.h5/volumes/labels/mine/in")


def test_two_processes_do_not_write_one_file(source: Path, tmp_path: Path) -> None:
    ready = "from pathlib import Path; from emsuite.data.convert import convert; import sys\n"
    with owned(lock_path(tmp_path / "x.h5"), tmp_path / "x.h5"):
        code = ready + "convert(Path(sys.argv[1]), Path(sys.argv[2]))"
        command = [sys.executable, "-c", code, str(source), str(tmp_path / "x.h5/raw")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert OutputInUse.__name__ in done.stderr
    assert not (tmp_path / "x.h5").exists()


def _one_channel(folder: Path) -> Path:
    return create_volume(folder / "c.zarr/c", (1, 9, 4, 5), np.uint8, SIZE, OFFSET).path


def _flat(folder: Path) -> Path:
    return create_volume(folder / "f.zarr/f", (9, 4), np.uint8, SIZE[1:], OFFSET[1:]).path


def _one_section(folder: Path) -> Path:
    return create_volume(folder / "o.zarr/o", (2, 1, 4, 5), np.uint8, SIZE, OFFSET).path


@pytest.mark.parametrize("array", [_one_channel, _flat, _one_section])
def test_what_tiff_cannot_hold_is_refused_in_one_line(array: Callable[[Path], Path], tmp_path: Path) -> None:
    path = array(tmp_path)
    before = files_in(tmp_path)
    with pytest.raises(BadInput, match=r"x\.tif: .* expected") as refused:
        convert(path, tmp_path / "x.tif")
    assert "\n" not in str(refused.value)
    assert files_in(tmp_path) == before


def test_attributes_that_hdf5_lacks_are_json(tmp_path: Path) -> None:
    more = {
        "numbers": [1, 2.5],
        "words": ["a", "b"],
        "tree": {"a": [1, None]},
        "nothing": None,
        "yes": True,
        "none": [],
    }
    create_volume(tmp_path / "s.zarr/raw", (3, 4, 5), np.uint8, SIZE, OFFSET, **more)
    convert(tmp_path / "s.zarr/raw", tmp_path / "x.h5/raw")
    with h5py.File(tmp_path / "x.h5") as file:
        found = dict(file["raw"].attrs)
    assert found["numbers"].tolist() == [1, 2.5]
    assert list(found["words"]) == ["a", "b"]
    assert (found["tree"], found["nothing"], found["none"]) == ('{"a": [1, null]}', "null", "[]")
    assert found["yes"]


def test_what_another_program_writes_meanwhile_stays(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["mine"] = np.arange(10)
    written = hdf5.write_array

    def write_array_while_others_do(*arguments: Any) -> None:
        written(*arguments)
        with h5py.File(tmp_path / "x.h5", "r+") as file:
            file["proofread"] = np.arange(20)

    monkeypatch.setattr(hdf5, "write_array", write_array_while_others_do)
    with pytest.raises(RunFailed, match="another program has written to it meanwhile"):
        convert(source, tmp_path / "x.h5/volumes/raw")
    with h5py.File(tmp_path / "x.h5") as file:
        assert sorted(file) == ["mine", "proofread"]
    assert not list(tmp_path.glob(".x.h5.*.part"))


def test_a_link_stays_a_link(source: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with h5py.File(tmp_path / "disk/x.h5", "w") as file:
        file["mine"] = np.arange(10)
    (tmp_path / "x.h5").symlink_to("disk/x.h5")
    convert(source, tmp_path / "x.h5/volumes/raw")
    assert (tmp_path / "x.h5").is_symlink()
    assert array_names(tmp_path / "disk/x.h5") == ["mine", "volumes/raw"]
