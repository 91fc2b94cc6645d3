import numpy as np
import torch
from scipy.ndimage import find_objects

from emsuite.targets.label_boxes import BoxBatch, along_axis, batch_boxes, bounding_boxes


def test_boxes_are_those_of_scipy():
    numbers = np.random.default_rng(0).integers(0, 40, (7, 9, 11)) * (np.random.default_rng(1).random((7, 9, 11)) < 0.2)
    begin, end = bounding_boxes(torch.from_numpy(numbers), 42)
    for number, box in enumerate(find_objects(numbers, 41), 1):
        expected = [(0, 0)] * 3 if box is None else [(part.start, part.stop) for part in box]
        assert list(zip(begin[number].tolist(), end[number].tolist(), strict=True)) == expected


def test_places_are_steps_of_several_voxels():
    numbers = torch.zeros(10, 7, dtype=torch.int64)
    numbers[3:6, 6] = 1
    begin, end = bounding_boxes(numbers, 2, step=2)
    assert (begin[1].tolist(), end[1].tolist()) == ([1, 3], [3, 4])


def test_products_are_those_of_three_matrix_products():
    # 3 orders along x, then 6 along y, then 10 along z
    assert BoxBatch([0], (2, 3, 4), (5, 6, 7)).products == 3 * 5 * 6 * 7 * 4 + 6 * 5 * 6 * 4 * 3 + 10 * 5 * 4 * 3 * 2
    assert BoxBatch([0, 1], (3, 4), (6, 7)).products == 2 * (3 * 6 * 7 * 4 + 6 * 6 * 4 * 3)


def test_each_box_is_in_one_group_that_holds_it():
    rng = np.random.default_rng(2)
    rows = rng.integers(1, 48, (300, 3)).tolist()
    columns = (np.array(rows) + rng.integers(0, 31, (300, 3))).tolist()
    groups = batch_boxes(rows, columns, "cpu")
    assert sorted(box for group in groups for box in group.boxes) == list(range(300))
    for group in groups:
        assert all(rows[box][a] <= group.rows[a] and columns[box][a] <= group.columns[a]
                   for box in group.boxes for a in range(3))  # fmt: skip


def test_like_boxes_join_and_unlike_ones_stay_apart():
    small, large = (3, 3, 3), (48, 48, 48)
    groups = batch_boxes([small, large, small, small], [small, large, small, small], "cpu")
    assert sorted(group.boxes for group in groups) == [[0, 2, 3], [1]]


def test_a_batch_is_never_larger_than_memory_allows():
    groups = batch_boxes([(40, 40, 40)] * 400, [(70, 70, 70)] * 400, "cuda")
    assert max(group.voxels for group in groups) <= 2**22


def test_values_run_along_their_axis():
    assert along_axis(torch.arange(4), 1, 3).shape == (1, 4, 1)
    assert along_axis(torch.zeros(5, 4), 0, 2).shape == (5, 4, 1)
