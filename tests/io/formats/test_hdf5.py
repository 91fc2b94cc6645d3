"""HDF5 files with garbage inside, odd types, and links that lead elsewhere: one line each, and never a wait."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.io.volume import array_names, holds_array, open_volume

VOXELS = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(4, 6, 5)
DAMAGE = """
import sys
from pathlib import Path
import numpy as np
from emsuite.common.errors import BadInput
from emsuite.io.volume import array_names, open_volume

file, spots = Path(sys.argv[1]), int(sys.argv[2])
random, good = np.random.default_rng(1), file.read_bytes()
for spot in range(spots):
    damaged = bytearray(good)
    if spot % 2 == 0:
        del damaged[random.integers(1, len(good)) :]
    else:
        damaged[random.integers(len(good) if spot % 4 == 1 else 2500)] ^= 1 << random.integers(8)
    damaged_file = file.with_name(f"{spot}.h5")
    damaged_file.write_bytes(damaged)
    for action in (lambda: array_names(damaged_file), lambda: open_volume(damaged_file / "volumes/raw").read()):
        try:
            action()
        except BadInput as error:
            assert str(damaged_file) in str(error), error
    damaged_file.unlink()
"""


@pytest.mark.parametrize("options", [{}, {"chunks": (2, 3, 5), "compression": "gzip", "fletcher32": True}], ids=str)
def test_damage_in_random_spots(tmp_path: Path, options: dict) -> None:
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("volumes/raw", data=VOXELS, **options).attrs["resolution"] = [8, 8, 8]
    command = [sys.executable, "-X", "faulthandler", "-c", DAMAGE, str(tmp_path / "v.h5"), "200"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


def compound(file: h5py.File, _folder: Path) -> None:
    file["raw"] = np.zeros((2, 2, 2), [("a", "<i4"), ("b", "<f8")])


def texts(file: h5py.File, _folder: Path) -> None:
    file["raw"] = np.full((2, 2, 2), b"lorem")


def lists(file: h5py.File, _folder: Path) -> None:
    file.create_dataset("raw", (2, 2, 2), h5py.vlen_dtype(np.int32))


def references(file: h5py.File, _folder: Path) -> None:
    file.create_dataset("raw", (2, 2, 2), h5py.ref_dtype)


def nothing(file: h5py.File, _folder: Path) -> None:
    file["raw"] = h5py.Empty("f")


def external_link(file: h5py.File, _folder: Path) -> None:
    file["raw"] = h5py.ExternalLink("nowhere.h5", "raw")


def external_link_to_a_pipe(file: h5py.File, folder: Path) -> None:
    os.mkfifo(folder / "pipe.h5")
    file["raw"] = h5py.ExternalLink("pipe.h5", "raw")


def external_link_to_no_array(file: h5py.File, folder: Path) -> None:
    h5py.File(folder / "other.h5", "w").close()
    file["raw"] = h5py.ExternalLink("other.h5", "raw")


def external_voxels(file: h5py.File, _folder: Path) -> None:
    file.create_dataset("raw", (2, 2, 2), "u1", external=[("nowhere.bin", 0, 8)])


def external_voxels_in_a_pipe(file: h5py.File, folder: Path) -> None:
    os.mkfifo(folder / "pipe.bin")
    file.create_dataset("raw", (2, 2, 2), "u1", external=[("pipe.bin", 0, 8)])


def virtual(file: h5py.File, _folder: Path) -> None:
    layout = h5py.VirtualLayout((2, 2, 2), "u1")
    layout[:] = h5py.VirtualSource("nowhere.h5", "raw", (2, 2, 2))
    file.create_virtual_dataset("raw", layout)


def soft_link_to_itself(file: h5py.File, _folder: Path) -> None:
    file["raw"] = h5py.SoftLink("/raw")


def soft_link_to_nothing(file: h5py.File, _folder: Path) -> None:
    file["raw"] = h5py.SoftLink("/other")


def a_group(file: h5py.File, _folder: Path) -> None:
    file.create_group("raw")


def a_type(file: h5py.File, _folder: Path) -> None:
    file["raw"] = np.dtype("f4")


@pytest.mark.parametrize(
    ("write", "complaint"),
    [
        (compound, "expected numbers"),
        (texts, "expected numbers"),
        (lists, "expected numbers"),
        (references, "expected numbers"),
        (nothing, "holds no voxels"),
        (external_link, "'raw' leads to nowhere.h5, which is no file"),
        (external_link_to_a_pipe, "'raw' leads to pipe.h5, which is no file"),
        (external_link_to_no_array, "has no array 'raw'"),
        (external_voxels, "its voxels lie in nowhere.bin, which is no file"),
        (external_voxels_in_a_pipe, "its voxels lie in pipe.bin, which is no file"),
        (virtual, "its voxels lie in nowhere.h5, which is no file"),
        (soft_link_to_itself, "'raw'"),
        (soft_link_to_nothing, "has no array 'raw'"),
        (a_group, "has no array 'raw'"),
        (a_type, "has no array 'raw'"),
    ],
)
def test_arrays_that_are_none(tmp_path: Path, write: Callable[[h5py.File, Path], None], complaint: str) -> None:
    with h5py.File(tmp_path / "v.h5", "w") as file:
        write(file, tmp_path)
        if isinstance(file.get("raw", getlink=True), h5py.HardLink):
            file["raw"].attrs["resolution"] = [8, 8, 8]
    begin = time.monotonic()
    with pytest.raises(BadInput) as error:
        open_volume(tmp_path / "v.h5/raw")
    assert complaint in str(error.value)
    assert isinstance(array_names(tmp_path / "v.h5"), list)
    assert holds_array(tmp_path / "v.h5/raw") in (True, False)
    assert time.monotonic() - begin < 5


def test_links_and_voxels_in_other_files_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["raw"] = VOXELS
        file["raw"].attrs["resolution"] = [8, 8, 8]
    (tmp_path / "voxels.bin").write_bytes(VOXELS.tobytes())
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["linked"] = h5py.ExternalLink("other.h5", "raw")
        layout = h5py.VirtualLayout(VOXELS.shape, "u1")
        layout[:] = h5py.VirtualSource("other.h5", "raw", VOXELS.shape)
        file.create_virtual_dataset("virtual", layout).attrs["resolution"] = [8, 8, 8]
        file["soft"] = h5py.SoftLink("/virtual")
    for name in ("linked", "virtual", "soft"):
        np.testing.assert_array_equal(open_volume(tmp_path / "v.h5" / name).read(), VOXELS)


def test_arrays_of_text_are_no_arrays(tmp_path: Path) -> None:
    """As the kinds of CREMI's annotations; the numbers beside them are, without a voxel size."""
    with h5py.File(tmp_path / "a.hdf", "w") as file:
        file["volumes/raw"] = VOXELS
        file["annotations/ids"] = np.array([1, 2], np.uint64)
        file.create_dataset("annotations/types", data=["presynaptic_site", "other"], dtype=h5py.string_dtype())
        file["annotations/fixed"] = np.array([b"presynaptic_site"])
    assert array_names(tmp_path / "a.hdf") == ["annotations/ids", "volumes/raw"]
