"""Parts of a plate."""

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.plates.index_plate import index_plate
from emsuite.plates.plate import Plate, check_equal_sizes, open_plate
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
    ],
)
def test_what_the_plate_lacks(plate: Plate, chosen: dict, line: str) -> None:
    with pytest.raises(BadInput, match=line):
        Selection(plate, **chosen)
