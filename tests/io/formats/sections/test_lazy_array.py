import os
from pathlib import Path

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.io.formats.sections.lazy_array import LazyArray, RecentlyRead, check_size, natural_order, read_bytes

VOXELS = np.arange(4 * 5 * 6).reshape(4, 5, 6)


def lazy(boxes: list[object]) -> LazyArray:
    def read(box: tuple[slice, ...]) -> np.ndarray:
        boxes.append(box)
        return VOXELS[box]

    return LazyArray(VOXELS.shape, VOXELS.dtype, (1, 5, 6), read)


@pytest.mark.parametrize(
    "index",
    [
        ...,
        (..., slice(1, 3), slice(None), slice(2, 99)),
        1,
        -1,
        (0, slice(1, 2)),
        (slice(3, 1),),
        (slice(None, None, 2), ..., 5),
        (slice(-2, None), 2, -3),
        (slice(0, 2), slice(9, 12), slice(None)),
    ],
)
def test_an_index_selects_what_numpy_does(index: object) -> None:
    np.testing.assert_array_equal(lazy([])[index], VOXELS[index])  # type: ignore[call-overload]


def test_only_the_box_is_read() -> None:
    boxes: list[object] = []
    array = lazy(boxes)
    array[2, 1:3]
    assert boxes == [(slice(2, 3), slice(1, 3), slice(0, 6))]
    array[2:2]
    assert len(boxes) == 1, "nothing is read for nothing"


def test_what_numpy_refuses_is_refused() -> None:
    for index in (4, (0, 0, 0, 0), (..., slice(None, None, -1))):
        with pytest.raises(IndexError):
            lazy([])[index]
    with pytest.raises(BadInput, match="read only"):
        lazy([])[0] = 1


def test_pieces_are_kept_up_to_a_number_of_bytes() -> None:
    recent, read = RecentlyRead(2 * 80), list[int]()

    def piece(key: int) -> np.ndarray:
        read.append(key)
        return np.full(10, key)

    for key in (1, 2, 1, 3, 1, 2):
        assert recent.get(key, lambda key=key: piece(key))[0] == key
    assert read == [1, 2, 3, 2], "2 was read longest ago when 3 came"
    recent.get(9, lambda: np.zeros(1000))
    assert recent.get(2, lambda: piece(2))[0] == 2


def test_bytes_behind_the_end_of_a_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    assert read_bytes(tmp_path / "a", 3, 4) == b"3456"
    for begin, length in ((8, 3), (20, 1), (0, 2**60)):
        with pytest.raises(BadInput, match="a: is damaged: bytes"):
            read_bytes(tmp_path / "a", begin, length)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="is damaged"):
        read_bytes(tmp_path / "pipe", 0, 1)


def test_few_bytes_are_no_large_section() -> None:
    check_size(Path("a"), 2**20, 1)
    check_size(Path("a"), 10**9, 10**6)
    with pytest.raises(BadInput, match="declares 1,000,000,000,000 bytes"):
        check_size(Path("a"), 10**12, 10**6)


def test_numbers_in_names_count() -> None:
    names = ["s10.png", "s2.png", "s02.png", "S1.png", "a.png", "s2b.png", "s.png", "s.png2.png"]
    ordered = ["a.png", "S1.png", "s02.png", "s2.png", "s2b.png", "s10.png", "s.png", "s.png2.png"]
    assert sorted(names, key=natural_order) == ordered
