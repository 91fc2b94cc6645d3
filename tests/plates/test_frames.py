"""Folders of frames as plates, and each way in which one can be incomplete."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from emsuite.common.errors import BadInput
from emsuite.plates.frame_names import ByExpression, ByOrder, by_channel_name
from emsuite.plates.frames import FramePlate, frames_in, read_frames, write_frames
from frames_of_a_plate import SHAPE, voxels_of
from frames_of_a_plate import write_frames as write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "frames")


@pytest.fixture
def folder(images: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(images, tmp_path / "frames"))


def plate_of(folder: Path, names: tuple[str, ...] = ()) -> FramePlate:
    return FramePlate(folder, frames_in(folder, ByOrder(), names))


def test_all_voxels_of_all_positions(images: Path) -> None:
    plate = plate_of(images)
    assert plate.positions == ("A/1/0", "A/1/1", "A/1/2")
    assert plate.channels == ("0", "1")
    assert plate.dtype == np.uint16
    for number, position in enumerate(plate.positions):
        assert plate.shape(position) == SHAPE
        for t, c in np.ndindex(SHAPE[:2]):
            assert np.array_equal(plate.read(position, t, c), voxels_of(number)[t, c])


def test_the_table_of_frames_comes_back(images: Path, tmp_path: Path) -> None:
    frames = frames_in(images, ByOrder(), ("phase", "nuclei"))
    write_frames(tmp_path / "frames_meta.csv", frames)
    assert read_frames(tmp_path / "frames_meta.csv") == frames
    first, second = (tmp_path / "frames_meta.csv").read_text().splitlines()[:2]
    assert first == ",channel_idx,slice_idx,time_idx,channel_name,file_name,pos_idx"
    assert second == "0,0,0,0,phase,im_c000_z000_t000_p000.png,0"


def test_numbers_need_not_begin_at_0(tmp_path: Path) -> None:
    tmp_path.joinpath("frames").mkdir()
    for p, z in ((7, 4), (7, 6), (9, 10), (9, 12), (9, 14)):
        np.save(tmp_path / f"frames/im_c003_z{z}_t5_p{p}.npy", np.full((4, 6), 10 * p + z, np.float32))
    plate = plate_of(tmp_path / "frames")
    assert plate.positions == ("A/1/7", "A/1/9")
    assert plate.shape("A/1/7") == (1, 1, 2, 4, 6)
    assert plate.read("A/1/9", 0, 0)[:, 0, 0].tolist() == [100, 102, 104]


def test_tiff_stacks_of_npy_and_names_of_channels(tmp_path: Path) -> None:
    tmp_path.joinpath("a").mkdir()
    tmp_path.joinpath("b").mkdir()
    image = np.arange(48, dtype=np.uint16).reshape(6, 8)
    stack = np.arange(96, dtype=np.float32).reshape(2, 6, 8)
    for number, name in enumerate(("green", "red")):
        tifffile.imwrite(tmp_path / f"a/img_{name}_t000_p000_z000.tif", image + number)
        np.save(tmp_path / f"b/im_c{number}_z0_t0_p0.npy", stack + number)
    tiffs = FramePlate(tmp_path / "a", frames_in(tmp_path / "a", by_channel_name))
    assert tiffs.channels == ("green", "red")
    assert np.array_equal(tiffs.read("A/1/0", 0, 1), image[np.newaxis] + 1)
    stacks = plate_of(tmp_path / "b")
    assert stacks.shape("A/1/0") == (1, 2, 2, 6, 8)
    assert np.array_equal(stacks.read("A/1/0", 0, 1), stack + 1)


def remove(folder: Path) -> None:
    (folder / "im_c001_z002_t001_p002.png").unlink()


def remove_slice(folder: Path) -> None:
    for path in folder.glob("*_z001_*_p001.png"):
        path.unlink()


def double(folder: Path) -> None:
    shutil.copy(folder / "im_c001_z002_t001_p002.png", folder / "im_c01_z2_t1_p2.png")


def remove_channel(folder: Path) -> None:
    for path in folder.glob("im_c001_*_p001.png"):
        path.unlink()


def skip_channel(folder: Path) -> None:
    for path in folder.glob("im_c001_*.png"):
        shutil.copy(path, folder / path.name.replace("c001", "c003"))


def crop(folder: Path) -> None:
    Image.fromarray(np.zeros((24, 39), np.uint16)).save(folder / "im_c000_z000_t000_p001.png")


def other_type(folder: Path) -> None:
    Image.fromarray(np.zeros((24, 40), np.uint8)).save(folder / "im_c000_z000_t000_p001.png")


def colour(folder: Path) -> None:
    Image.fromarray(np.zeros((24, 40, 3), np.uint8)).save(folder / "im_c000_z000_t000_p001.png")


def unnamed(folder: Path) -> None:
    Image.fromarray(np.zeros((24, 40), np.uint16)).save(folder / "overview.png")


def far(folder: Path) -> None:
    Image.fromarray(np.zeros((24, 40), np.uint16)).save(folder / "im_c0_z0_t123456789012345_p1.png")


def cut(folder: Path) -> None:
    path = folder / "im_c000_z000_t000_p001.png"
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (remove, "no image of channel 1, slice 2, time 1, position 2, expected one for each"),
        (remove_slice, "no image of channel 0, slice 1, time 0, position 1, expected one for each"),
        (double, "im_c001_z002_t001_p002.png and im_c01_z2_t1_p2.png are both channel 1, slice 2, time 1, position 2"),
        (remove_channel, "channel 1 has no images at position 1, expected some"),
        (skip_channel, "channel 2 has no images, but .0, 1, 3. have some"),
        (crop, "an image of .24, 39. uint16, expected .24, 40. uint16 as im_c000_z000_t000_p000.png"),
        (other_type, "an image of .24, 40. uint8, expected .24, 40. uint16"),
        (colour, "pixels of 3 colours"),
        (unnamed, "overview.png: no channel, slice, time and position in its name"),
        (far, "is channel 0, slice 0, time 123456789012345, position 1, expected numbers from 0 to 999999"),
        (cut, "cannot be read as PNG, it is damaged"),
    ],
)
def test_what_is_incomplete_is_refused_in_one_line(folder: Path, spoil, line: str) -> None:
    spoil(folder)
    with pytest.raises(BadInput, match=line):
        plate_of(folder)


def test_a_channel_that_is_named_but_has_no_images(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"channel 2 \(actin\) has no images"):
        plate_of(folder, ("phase", "nuclei", "actin"))
    with pytest.raises(BadInput, match="channel 1, but 1 names of channels"):
        plate_of(folder, ("phase",))


def stained(folder: Path) -> Path:
    """Frames of two channels by name: DAPI of 10, Phase of 20."""
    folder.mkdir()
    for name, value in (("DAPI", 10), ("Phase", 20)):
        np.save(folder / f"img_{name}_t000_p000_z000.npy", np.full((4, 6), value, np.float32))
    return folder


@pytest.mark.parametrize("parse", [by_channel_name, ByExpression(r"img_(?P<c>\w+?)_t")])
def test_names_of_files_are_put_in_order_never_renamed(tmp_path: Path, parse) -> None:
    folder = stained(tmp_path / "frames")
    for names, values in (((), [10, 20]), (("Phase", "DAPI"), [20, 10]), (("DAPI", "Phase"), [10, 20])):
        plate = FramePlate(folder, frames_in(folder, parse, names))
        assert plate.channels == (names or ("DAPI", "Phase"))
        assert [plate.read("A/1/0", 0, c)[0, 0, 0] for c in range(2)] == values
    for names, line in (
        (("phase", "nuclei"), "img_DAPI_t000_p000_z000.npy: channel DAPI, expected one of the names phase, nuclei"),
        (("Phase",), "img_DAPI_t000_p000_z000.npy: channel DAPI, expected one of the names Phase"),
        (("Phase", "DAPI", "GFP"), r"channel 2 \(GFP\) has no images, expected some"),
        (("Phase", "Phase"), "the name Phase is given to two channels"),
    ):
        with pytest.raises(BadInput, match=line):
            frames_in(folder, parse, names)


def test_a_channel_of_two_names(images: Path) -> None:
    frames = frames_in(images, ByOrder(), ("phase", "nuclei"))
    frames[-1] = replace(frames[-1], channel_name="GFP")
    with pytest.raises(BadInput, match="channel 1 is nuclei and GFP, expected one name"):
        FramePlate(images, frames)


def test_a_name_that_is_a_number_among_others_is_a_name(tmp_path: Path) -> None:
    folder = stained(tmp_path / "frames")
    np.save(folder / "img_0_t000_p000_z000.npy", np.full((4, 6), 5, np.float32))
    plate = FramePlate(folder, frames_in(folder, ByExpression(r"img_(?P<c>\w+?)_t")))
    assert plate.channels == ("0", "DAPI", "Phase")
    assert [plate.read("A/1/0", 0, c)[0, 0, 0] for c in range(3)] == [5, 10, 20]


@pytest.mark.parametrize(
    ("array", "line"),
    [
        (np.array([[1.0, np.nan]], np.float32), r"pixel \(0, 1\) is no finite number"),
        (np.array([[np.inf, 1.0]], np.float32), r"pixel \(0, 0\) is no finite number"),
        (np.zeros(3), r"an array \(3,\) float64, expected numbers"),
        (np.array([["a"]]), "expected numbers"),
    ],
)
def test_odd_arrays(tmp_path: Path, array: np.ndarray, line: str) -> None:
    np.save(tmp_path / "im_c0_z0_t0_p0.npy", array)
    with pytest.raises(BadInput, match=line):
        plate_of(tmp_path).read("A/1/0", 0, 0)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "holds no frames"),
        (",channel_idx,slice_idx,time_idx,channel_name,file_name\n0,0,0,0,a,b.png\n", ":2: pos_idx is missing"),
        (
            ",channel_idx,slice_idx,time_idx,channel_name,file_name,pos_idx\n0,x,0,0,a,b.png,0\n",
            ":2: an index is no number",
        ),
    ],
)
def test_odd_tables(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "frames_meta.csv").write_text(text)
    with pytest.raises(BadInput, match=line):
        read_frames(tmp_path / "frames_meta.csv")
