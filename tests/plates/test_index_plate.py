"""Frames into a plate: every voxel, the same bytes after a kill, on any number of threads, and what is refused."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from builders import files_in
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.outputs import manifest_path
from emsuite.io.formats.tensors import hcs
from emsuite.plates import index_plate as module
from emsuite.plates.frame_names import ByOrder
from emsuite.plates.index_plate import index_plate
from emsuite.plates.plate import ZarrPlate, open_plate
from frames_of_a_plate import SHAPE, voxels_of, write_frames
from killed import MOMENTS, Killed, check_removals

KILLED = """
import os, signal, sys
from pathlib import Path
from emsuite.plates.frames import FramePlate
from emsuite.plates.index_plate import index_plate

reads, read = [], FramePlate.read

def some(self, position, time, channel):
    reads.append(position)
    if len(reads) > int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, position, time, channel)

FramePlate.read = some
index_plate(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("images") / "frames")


def test_the_plate_holds_the_voxels_of_the_frames(frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "plate.zarr"
    index_plate(frames, out, channel_names=("phase", "nuclei"), voxel_size_nm=(500, 108.3, 108.3))
    plate = open_plate(out)
    assert isinstance(plate, ZarrPlate)
    assert plate.positions == ("A/1/0", "A/1/1", "A/1/2")
    assert plate.channels == ("phase", "nuclei")
    assert plate.voxel_size_nm == (500, 108.3, 108.3)
    assert plate.dtype == np.uint16
    for number, position in enumerate(plate.positions):
        assert plate.shape(position) == SHAPE
        for t, c in np.ndindex(SHAPE[:2]):
            assert np.array_equal(plate.read(position, t, c), voxels_of(number)[t, c])
    manifest = json.loads((tmp_path / "plate.zarr.manifest.json").read_text())
    assert len(set(manifest["digests"].values())) == 3
    assert (tmp_path / "plate.frames_meta.csv").read_text().count("\n") == 1 + 3 * 2 * 2 * 3
    assert not (tmp_path / "plate.positions").exists()


def test_microdls_own_folder_is_read_by_its_table(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", 2, "whatever {p}{t}{z}{c}.png")
    rows = [f"{n},{c},{z},{t},{('phase', 'nuclei')[c]},whatever {p}{t}{z}{c}.png,{p}"
            for n, (p, t, z, c) in enumerate(np.ndindex(2, 2, 3, 2))]  # fmt: skip
    header = ",channel_idx,slice_idx,time_idx,channel_name,file_name,pos_idx"
    (frames / "frames_meta.csv").write_text("\n".join([header, *rows]) + "\n")
    index_plate(frames, tmp_path / "plate.zarr")
    plate = open_plate(tmp_path / "plate.zarr")
    assert plate.channels == ("phase", "nuclei")
    assert np.array_equal(plate.read("A/1/1", 1, 1), voxels_of(1)[1, 1])
    index_plate(frames, tmp_path / "turned.zarr", channel_names=("nuclei", "phase"))
    assert open_plate(tmp_path / "turned.zarr").channels == ("nuclei", "phase")
    assert np.array_equal(open_plate(tmp_path / "turned.zarr").read("A/1/1", 1, 0), voxels_of(1)[1, 1])
    with pytest.raises(BadInput, match="channel phase, expected one of the names GFP, nuclei"):
        index_plate(frames, tmp_path / "other.zarr", channel_names=("GFP", "nuclei"))


def test_the_same_bytes_on_any_number_of_threads(frames: Path, tmp_path: Path) -> None:
    for workers in (1, 4):
        index_plate(frames, tmp_path / str(workers) / "plate.zarr", workers=workers)
    assert files_in(tmp_path / "1/plate.zarr") == files_in(tmp_path / "4/plate.zarr")


@pytest.mark.parametrize("reads", [2, 6])
def test_a_killed_run_continues_and_gives_the_same_bytes(frames: Path, tmp_path: Path, reads: int, monkeypatch) -> None:
    index_plate(frames, tmp_path / "whole/plate.zarr")
    out = tmp_path / "killed/plate.zarr"
    killed = subprocess.run([sys.executable, "-c", KILLED, frames, out, str(reads)], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(BadInput, match="unfinished"):
        open_plate(out)
    created = []
    create = module.new_image
    monkeypatch.setattr(module, "new_image", lambda *all: created.append(all[1]) or create(*all))
    index_plate(frames, out)
    assert created == ["A/1/0", "A/1/1", "A/1/2"][reads // 4 :], "whole positions are not written twice"
    assert files_in(out) == files_in(tmp_path / "whole/plate.zarr")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_in_any_removal_changes_no_byte(frames: Path, tmp_path: Path, moment: str) -> None:
    check_removals(lambda folder: index_plate(frames, folder / "plate.zarr"), tmp_path, 1, moment)


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_positions_that_a_stopped_run_lost_are_copied_again(
    frames: Path, tmp_path: Path, how: str, monkeypatch
) -> None:
    """As where the machine went down: notes are flushed to the disk, chunks are not."""
    out = tmp_path / "plate.zarr"
    index_plate(frames, out)
    whole = files_in(out)
    manifest_path(out).unlink()

    def dying(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_frames", dying)
        with pytest.raises(Killed):
            index_plate(frames, out)
    chunk = min(file for file in (out / "A/1/1/0").rglob("*") if file.is_file() and file.suffix != ".json")
    chunk.unlink() if how == "gone" else chunk.write_bytes(b"")
    index_plate(frames, out)
    assert files_in(out) == whole


def test_voxels_that_differ_when_read_back_end_the_run(frames: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(hcs.FieldImage, "write", lambda self, t, c, voxels: None)
    with pytest.raises(RunFailed, match="A/1/0: voxels of time 0, channel 0 differ when read back"):
        index_plate(frames, tmp_path / "plate.zarr")
    assert not (tmp_path / "plate.zarr.manifest.json").exists()


def test_a_finished_plate_is_left_alone_and_another_order_replaces_it(frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "plate.zarr"
    index_plate(frames, out)
    before = (tmp_path / "plate.zarr.manifest.json").read_bytes()
    index_plate(frames, out)
    assert (tmp_path / "plate.zarr.manifest.json").read_bytes() == before
    index_plate(frames, out, ByOrder("pztc"))
    assert open_plate(out).positions == ("A/1/0", "A/1/1")
    assert open_plate(out).shape("A/1/0")[:2] == (2, 3)


def test_a_frame_that_was_edited_with_its_size_and_times_restored(tmp_path: Path) -> None:
    frame, out = tmp_path / "frames/im_c0_z0_t0_p0.npy", tmp_path / "plate.zarr"
    frame.parent.mkdir()
    np.save(frame, np.arange(24.0).reshape(4, 6))
    index_plate(frame.parent, out)
    before = frame.stat()
    content = frame.read_bytes()
    with open(frame, "r+b") as file:  # in its place: the same file
        file.write(content[:-8] + np.float64(77).tobytes())
    os.utime(frame, ns=(before.st_atime_ns, before.st_mtime_ns))
    index_plate(frame.parent, out)
    assert open_plate(out).read("A/1/0", 0, 0)[0, 3, 5] == 77


def test_what_cannot_be_indexed(frames: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"ends in \.zarr"):
        index_plate(frames, tmp_path / "plate")
    with pytest.raises(BadInput, match="no such folder"):
        index_plate(tmp_path / "nothing", tmp_path / "plate.zarr")
    with pytest.raises(BadInput, match="which is read; choose another place"):
        index_plate(frames, frames / "plate.zarr")
    index_plate(frames, tmp_path / "plate.zarr")
    with pytest.raises(BadInput, match="is a plate already"):
        index_plate(tmp_path / "plate.zarr", tmp_path / "other.zarr")
    (tmp_path / "mine.zarr").mkdir()
    with pytest.raises(BadInput, match="was not made by this suite"):
        index_plate(frames, tmp_path / "mine.zarr")
