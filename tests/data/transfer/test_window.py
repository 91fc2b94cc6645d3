"""Boxes of volumes as volumes of their own."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from emsuite.data.training_volume import Ones
from emsuite.data.transfer.window import Window, window


@pytest.mark.parametrize(("size", "padding"), [((3, 4, 5), (2, 3, 4)), ((3, 4, 5), (0, 0, 1)), ((1, 2, 3), (5, 7, 6))])
def test_a_window_goes_on_by_reflection_as_numpy_pads(size: tuple, padding: tuple) -> None:
    source = torch.arange(8 * 9 * 10).reshape(8, 9, 10)
    inner = source[tuple(slice(2, 2 + n) for n in size)].numpy()
    expected = np.pad(inner, [(p, p) for p in padding], mode="reflect")
    padded = window(source, (2, 2, 2), size, padding)
    assert padded.shape == expected.shape
    assert np.array_equal(padded[:, :, :], expected)
    random = np.random.default_rng(1)
    for _ in range(20):
        low = [int(random.integers(0, n)) for n in padded.shape]
        box = tuple(slice(a, int(random.integers(a, n + 1))) for a, n in zip(low, padded.shape, strict=True))
        assert np.array_equal(padded[box], expected[box])


def test_a_window_reads_no_voxel_outside_its_box() -> None:
    class Watched:
        shape, dtype, device = (8, 9, 10), torch.int64, torch.device("cpu")
        read: ClassVar[list] = []

        def __getitem__(self, box: tuple) -> torch.Tensor:
            self.read.append(box)
            return torch.zeros([part.stop - part.start for part in box])

    source = Watched()
    assert Window(source, (2, 3, 4), (3, 4, 5), (2, 2, 2))[0:7, 0:2, 5:9].shape == (7, 2, 4)
    (box,) = source.read
    assert box == (slice(2, 5), slice(4, 6), slice(6, 9))


def test_a_window_of_a_tensor_is_a_view_and_ones_stay_ones() -> None:
    source = torch.zeros(4, 5, 6)
    view = window(source, (1, 1, 1), (2, 2, 2))
    assert isinstance(view, torch.Tensor)
    assert view.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()
    assert window(Ones((4, 5, 6)), (1, 1, 1), (2, 2, 2), (1, 0, 1)).shape == (4, 2, 4)
