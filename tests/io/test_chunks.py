import pytest

from emsuite.io.chunks import CHUNK, chunk_length, dividing_chunk_length


@pytest.mark.parametrize(("n", "length"), [(0, 1), (1, 1), (5, 5), (64, 64), (65, 64), (1000, 64)])
def test_chunks_are_64_voxels_long_where_there_are_as_many(n: int, length: int) -> None:
    assert chunk_length(n) == length


@pytest.mark.parametrize(("n", "length"), [(1, 1), (61, 61), (64, 64), (128, 64), (192, 64), (270, 54), (127, 127)])
def test_the_nearest_divisor(n: int, length: int) -> None:
    assert dividing_chunk_length(n) == length
    assert n % length == 0


def test_nearest_is_meant_as_a_ratio() -> None:
    # 2 x 97 and 194 / 2 = 97: 97 / 64 = 1.5, but 64 / 2 = 32
    assert dividing_chunk_length(2 * 97) == 97
    assert CHUNK == 64
