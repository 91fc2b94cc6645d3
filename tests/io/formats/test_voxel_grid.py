"""Voxel size and offset: attributes with numbers that cannot be are refused in one short line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.io.formats.base import StoredArray
from emsuite.io.formats.voxel_grid import nanometres, voxel_grid, voxel_size

PATH = Path("v.zarr/raw")
GOOD = {"resolution": [8, 8, 8]}


def grid(attributes: dict[str, Any], shape: tuple[int, ...] = (4, 6, 5)) -> tuple[tuple[int, ...], tuple[int, ...]]:
    size, offset = voxel_grid(PATH, StoredArray(np.broadcast_to(np.uint8(0), shape), attributes))
    return tuple(size), tuple(offset)


def test_numbers_of_any_kind_are_read_exactly() -> None:
    for numbers in ([8, 4, 4], (8.0, 4.0, 4.0), np.array([8, 4, 4], ">i2"), np.array([8, 4, 4], np.float32)):
        assert grid({"resolution": numbers, "offset": numbers}) == ((8, 4, 4), (8, 4, 4))
    assert grid({"voxel_size": [np.int64(8)] * 3, "offset": [-(2**40), 0, 1]})[1] == (-(2**40), 0, 1)


ODD = [
    float("nan"),
    None,
    "888",
    b"888",
    8,
    {"z": 8},
    [8, float("nan"), 8],
    [8, float("inf"), 8],
    ["8", "8", "8"],
    [[8], [8], [8]],
    [[8, 8, 8]],
    [True, True, True],
    [8, None, 8],
    np.array(8),
    np.array([8j, 8, 8]),
]


@pytest.mark.parametrize("value", ODD, ids=str)
@pytest.mark.parametrize("key", ["resolution", "voxel_size", "offset"])
def test_attributes_that_are_no_numbers_are_refused(key: str, value: Any) -> None:
    if key == "offset" and value is None:
        return
    with pytest.raises(BadInput, match=f"^{PATH}: '{key}' holds .*expected nm per axis"):
        grid({**GOOD, key: value} if key == "offset" else {key: value})


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ({"resolution": [8, 1e300, 8]}, "expected nm per axis"),
        ({"resolution": [8, 10**400, 8]}, "expected nm per axis"),
        ({"resolution": [8, -8, 8]}, "expected nm above 0"),
        ({"resolution": [8, 8, 10**10]}, "expected nm above 0"),
        ({**GOOD, "offset": [0, 2**60, 0]}, "reaches from 1152921504606846976"),
        ({**GOOD, "offset": [0, 0, 1e300]}, "expected nm per axis"),
        ({**GOOD, "offset": [0, 0]}, "offset of 2 and voxel size of 3 differ in their number of axes"),
        ({**GOOD, "offset": [0] * 1000}, "differ in their number of axes"),
        ({"resolution": ["x" * 10**6]}, "expected nm per axis"),
    ],
)
def test_numbers_that_cannot_be_are_refused(attributes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadInput) as error:
        grid(attributes)
    assert complaint in str(error.value)
    assert len(str(error.value)) < 200


def test_lengths_that_overflow_are_refused() -> None:
    assert grid(GOOD, (10**6,) * 3) == ((8, 8, 8), (0, 0, 0))
    with pytest.raises(BadInput, match="reaches from 0 to 8000000000000000000 nm"):
        grid(GOOD, (10**18, 1, 1))


def test_new_arrays_are_checked_the_same_way() -> None:
    assert voxel_size(PATH, (8, 4.0, 4)) == [8, 4, 4]
    assert nanometres(PATH, "offset", (-8, 0, 4)) == [-8, 0, 4]
    for bad in ((0, 4, 4), (1e-9, 4, 4), (float("nan"), 4, 4)):
        with pytest.raises(BadInput):
            voxel_size(PATH, bad)


@pytest.mark.parametrize("own", [{}, {"resolution": [8, 4, 4]}, {"voxel_size": [8, 4, 4]}])
def test_the_offset_may_be_said_elsewhere_than_the_voxel_size(own: dict[str, Any]) -> None:
    said = {"axes": ["z", "y", "x"], "units": ["nm"] * 3, "scale": [8, 4, 4], "translate": [80, 40, 400]}
    assert grid(own | {"transform": said}) == ((8, 4, 4), (80, 40, 400))
    with pytest.raises(BadInput, match=r"an offset of \[16.0, 0.0, 0.0\] nm, but .transform. says \[80.0, "):
        grid(own | {"transform": said, "offset": [16, 0, 0]})
    steps = [{"type": "scale", "scale": [8, 4, 4]}, {"type": "translation", "translation": [80, 40, 400]}]
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    image = {"axes": axes, "datasets": [{"path": "raw", "coordinateTransformations": steps}]}
    stored = StoredArray(np.zeros((4, 6, 5), np.uint8), own, groups=(("raw", {"multiscales": [image]}),))
    assert tuple(voxel_grid(PATH, stored)[1]) == (80, 40, 400)


@pytest.mark.parametrize(("translate", "fits"), [([0, 0, 0], True), ([4, 4, 4], True), ([0, 0, 800], False)])
def test_an_offset_beside_the_translation_of_a_transform(translate: list[int], fits: bool) -> None:
    transform = {"axes": ["z", "y", "x"], "scale": [8, 8, 8], "translate": translate, "units": ["nm"] * 3}
    attributes = {**GOOD, "offset": [0, 0, 0], "transform": transform}
    if fits:
        assert grid(attributes) == ((8, 8, 8), (0, 0, 0))
        return
    with pytest.raises(BadInput, match=r"an offset of \[0.0, 0.0, 0.0\] nm, but .transform. says \[0.0, 0.0, 8"):
        grid(attributes)
