"""Parts of a plate."""

from pathlib import Path

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.plates.index_plate import index_plate
from emsuite.plates.plate import Plate, check_equal_sizes, create_plate, new_image, open_plate
from emsuite.plates.selection import Selection, channel_numbers
from frames_of_a_plate import SHAPE, voxels_of, write_frames


@pytest.fixture(scope="module", params=["frames", "plate.zarr"])
def plate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Plate:
    folder = tmp_path_factory.mktemp("plates")
    write_frames(folder / "frames")
    index_plate(folder / "frames", folder / "plate.zarr", channel_names=("0", "nuclei"))
    return open_plate(folder / request.param)


def test_all_of_a_plate_is_the_plate(plate: Plate) -> None:
    whole = Selection(plate)
    assert (whole.positions, whole.channels, whole.dtype, whole.path) == (
        plate.positions, plate.channels, plate.dtype, plate.path,
    )  # fmt: skip
    assert whole.shape("A/1/1") == SHAPE
    assert np.array_equal(whole.read("A/1/1", 1, 0), voxels_of(1)[1, 0])


def test_some_of_everything(plate: Plate) -> None:
    part = Selection(plate, ["2", "A/1/0"], [1], [1], [2, 0])
    assert part.positions == ("A/1/2", "A/1/0")
    assert part.channels == plate.channels[1:]
    assert part.shape("A/1/2") == (1, 1, 2, *SHAPE[3:])
    assert np.array_equal(part.read("A/1/2", 0, 0), voxels_of(2)[1, 1][[2, 0]])
    assert check_equal_sizes(part) == SHAPE[3:]
    assert channel_numbers(plate, [plate.channels[1], 0]) == [1, 0]


@pytest.mark.parametrize(
    ("chosen", "line"),
    [
        ({"positions": ["7"]}, "has no position 7; it has A/1/0, A/1/1, A/1/2"),
        ({"channels": ["actin"]}, "channel actin has no images; the channels are 0, "),
        ({"channels": [2]}, "channel 2 has no images"),
        ({"times": [2]}, "has no time 2, expected 0 to 1"),
        ({"slices": [0, 3]}, "has no slice 3, expected 0 to 2"),
        ({"positions": ["0", "A/1/0", "1"]}, "position A/1/0 is chosen twice, expected once"),
        ({"channels": [0, "0"]}, "channel 0 is chosen twice, expected once"),
        ({"times": [1, 1]}, "time 1 is chosen twice, expected once"),
        ({"slices": [2, 0, 2]}, "slice 2 is chosen twice, expected once"),
    ],
)
def test_what_the_plate_lacks(plate: Plate, chosen: dict, line: str) -> None:
    with pytest.raises(BadInput, match=line):
        Selection(plate, **chosen)


def test_numbers_of_channels_are_those_of_the_plate(tmp_path: Path) -> None:
    part = Selection(several(tmp_path / "plate.zarr", ["a", "b", "c", "d"]), channels=["d", 1])
    assert part.channels == ("d", "b")
    assert part.channel_numbers == (3, 1)
    assert part.chosen_channels([1, "d"]) == [1, 0]
    assert part.chosen_channels([3]) == [0]
    assert part.chosen_channels("all") == [0, 1]
    for chosen, line in (
        ([0], r"channel 0 \(a\) is not among those that are kept: 3 \(d\), 1 \(b\)"),
        ([4], "channel 4 has no images"),
        ([1, "b"], "channel b is chosen twice"),
    ):
        with pytest.raises(BadInput, match=line):
            part.chosen_channels(chosen)


def test_a_part_of_a_part_counts_in_the_plate(plate: Plate) -> None:
    part = Selection(plate, channels=[1], times=[1], slices=[2, 1])
    assert np.array_equal(part.part(0, [1], [1]).read("A/1/0", 0, 0), voxels_of(0)[1, 1, [1]])
    assert np.array_equal(part.part(0, "all", [2]).read("A/1/0", 0, 0), voxels_of(0)[1, 1, [2]])
    assert np.array_equal(Selection(plate).part(1, [1], [0]).read("A/1/0", 0, 0), voxels_of(0)[1, 1, [0]])
    for times, slices, line in (
        ([0], "all", "time 0 is not among those that are kept: 1"),
        ("all", [0], "slice 0 is not among those that are kept: 2, 1"),
        ("all", [1, 1], "slice . is chosen twice"),
    ):
        with pytest.raises(BadInput, match=line):
            part.part(0, times, slices)


def several(path: Path, channels: list[str], positions: tuple[str, ...] = ("A/1/0", "B/1/0")) -> Plate:
    """An empty plate of several wells."""
    create_plate(path, positions)
    for position in positions:
        new_image(path, position, (1, len(channels), 1, 4, 4), np.uint8, channels, None)
    return open_plate(path)


def test_what_stands_for_two(tmp_path: Path) -> None:
    """Nothing is taken in silence: a field of two wells, a name of two channels, a number that names another one."""
    wells = several(tmp_path / "wells.zarr", ["GFP", "GFP", "3", "2"])
    assert Selection(wells, ["B/1/0"], [1, "3"]).channels == ("GFP", "3")
    for chosen, line in (
        ({"positions": ["0"]}, "position 0 may be A/1/0 or B/1/0, expected the whole name"),
        ({"channels": ["GFP"]}, r"channel GFP may be number 0 \(GFP\) or number 1 \(GFP\)"),
        ({"channels": [2]}, r"channel 2 may be number 2 \(3\) or number 3 \(2\)"),
    ):
        with pytest.raises(BadInput, match=line):
            Selection(wells, **chosen)
    with pytest.raises(BadInput, match="lists the field A/1/0 twice"):
        several(tmp_path / "twice.zarr", ["GFP"], ("A/1/0", "A/1/0"))
