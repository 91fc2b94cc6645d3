"""Plates opened by what lies in a folder, and what is no plate."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from emsuite.common.errors import BadInput
from emsuite.common.progress import progress
from emsuite.plates.frame_names import ByOrder
from emsuite.plates.frames import FramePlate, frames_in
from emsuite.plates.frames import write_frames as write_table
from emsuite.plates.plate import ZarrPlate, check_equal_sizes, create_plate, in_threads, new_image, open_plate
from frames_of_a_plate import write_frames


def small_plate(path: Path, sizes: tuple[tuple[int, ...], ...], channels: tuple[tuple[str, ...], ...]) -> Path:
    names = [f"A/1/{number}" for number in range(len(sizes))]
    create_plate(path, names)
    for name, size, labels in zip(names, sizes, channels, strict=True):
        image = new_image(path, name, (1, len(labels), 1, *size), np.float32, labels, None)
        image.write(0, 0, np.ones((1, *size), np.float32))
    return path


def test_a_folder_is_what_it_holds(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", 1)
    assert isinstance(open_plate(frames), FramePlate)
    write_table(frames / "frames_meta.csv", frames_in(frames, ByOrder(), ("phase", "nuclei")))
    assert open_plate(frames).channels == ("phase", "nuclei")
    assert open_plate(frames, ByOrder()).channels == ("0", "1"), "what is asked for comes before the table"
    plate = small_plate(tmp_path / "plate.zarr", ((8, 8),), (("phase",),))
    assert isinstance(open_plate(plate), ZarrPlate)


def test_further_images_of_a_position(tmp_path: Path) -> None:
    path = small_plate(tmp_path / "plate.zarr", ((8, 8),), (("phase",),))
    new_image(path, "A/1/0", (1, 1, 1, 8, 8), np.uint8, ["foreground"], None, "labels/foreground").write(
        0, 0, np.full((1, 8, 8), 3, np.uint8)
    )
    plate = open_plate(path)
    assert plate.labels("A/1/0") == ("foreground",)
    assert isinstance(plate, ZarrPlate)
    assert (plate.read("A/1/0", 0, 0, "labels/foreground") == 3).all()
    assert plate.shape("A/1/0", "labels/foreground") == (1, 1, 1, 8, 8)


def test_what_is_no_plate(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder; expected a plate of OME-NGFF or a folder of frames"):
        open_plate(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no images, expected"):
        open_plate(tmp_path / "empty")
    zarr.open_group(tmp_path / "volume.zarr", mode="w").create_array("raw", data=np.zeros(3))
    with pytest.raises(BadInput, match="zarr, but no plate"):
        open_plate(tmp_path / "volume.zarr")


def test_nan_sizes_and_channels(tmp_path: Path) -> None:
    path = small_plate(tmp_path / "plate.zarr", ((8, 8), (8, 9), (8, 8)), (("phase",), ("phase",), ("other",)))
    plate = open_plate(path)
    with pytest.raises(BadInput, match=r"A/1/1: images of \(8, 9\), expected \(8, 8\) as A/1/0"):
        check_equal_sizes(plate)
    with pytest.raises(BadInput, match=r"channels \['other'\], expected \['phase'\]"):
        plate.read("A/1/2", 0, 0)
    zarr.open_array(path / "A/1/0/0", mode="r+")[0, 0, 0, 3, 4] = np.nan
    with pytest.raises(BadInput, match="time 0, channel 0, slice 0 holds NaN or infinity"):
        plate.read("A/1/0", 0, 0)


def test_threads_keep_the_order_and_end_at_an_error() -> None:
    assert in_threads(lambda n: n * n, range(20), 4) == [n * n for n in range(20)]

    def fail(n: int) -> int:
        if n == 3:
            raise BadInput("three")
        return n

    with pytest.raises(BadInput, match="three"):
        in_threads(fail, range(100), 2, "work")


def test_threads_count_into_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert in_threads(str, range(3), 2, "index") == ["0", "1", "2"]
    assert "index: 100% 3/3" in capsys.readouterr().err
    with progress(what="both", total=5, unit="volume") as bar:
        in_threads(str, range(3), 2, bar)
        assert bar.n == 3
        in_threads(str, range(2), 1, bar)
    assert "both: 100% 5/5" in capsys.readouterr().err
    in_threads(str, range(3), 2)
    assert capsys.readouterr().err == ""
