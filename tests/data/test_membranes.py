"""Labels from membranes."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import label

from emsuite.common.errors import BadInput
from emsuite.data.membranes import LabelsRule, create_labels, labels_of, labels_path
from emsuite.io.volume import LABELS, create_volume, holds_array, open_volume

THROUGH = LabelsRule(through_sections=True)
MEMBRANES = "volumes/labels/membranes"


def walls(shape: tuple[int, ...] = (3, 8, 9)) -> np.ndarray:
    """A membrane along y in every section."""
    membranes = np.zeros(shape, np.uint8)
    membranes[:, :, 4] = 1
    return membranes


def volume(folder: Path, membranes: np.ndarray, chunks: tuple[int, ...] = (2, 4, 4)) -> Path:
    container = folder / "v.zarr"
    made = create_volume(container / MEMBRANES, membranes.shape, membranes.dtype, (50, 4.6, 4.6), (100, 0, 46), chunks)
    made.array[...] = membranes
    return container


def read(container: Path) -> np.ndarray:
    return open_volume(container / LABELS).read()


def test_pieces_of_sections_on_paper() -> None:
    labels = labels_of(walls(), LabelsRule())
    assert labels.dtype == np.uint64
    expected = [[1] * 4 + [0] + [2] * 4, [3] * 4 + [0] + [4] * 4, [5] * 4 + [0] + [6] * 4]
    assert [section[0].tolist() for section in labels] == expected
    assert (labels == labels[:, :1]).all()


def test_pieces_through_the_volume_on_paper() -> None:
    labels = labels_of(walls(), THROUGH)
    assert (labels[..., :4] == 1).all()
    assert (labels[..., 5:] == 2).all()


def test_pieces_that_touch_at_a_corner_are_two() -> None:
    membranes = np.array([[[0, 1], [1, 0]]])
    assert labels_of(membranes, LabelsRule()).tolist() == [[[1, 0], [0, 2]]]


@pytest.mark.parametrize("rule", [LabelsRule(), THROUGH])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16])
def test_as_scipy(rule: LabelsRule, dtype: type) -> None:
    membranes = (np.random.default_rng(0).random((5, 30, 31)) < 0.45).astype(dtype)
    labels = labels_of(membranes, rule)
    if rule.through_sections:
        expected, count = label(membranes == 0)
    else:
        expected, count = label(membranes == 0, structure=np.pad(label_cross(), ((1, 1), (0, 0), (0, 0))))
    assert labels.max() == count == np.unique(labels[labels != 0]).size
    pairs = np.unique(np.stack([labels.ravel(), expected.ravel().astype(np.uint64)]), axis=1)
    assert pairs.shape[1] == count + 1  # one to one, and 0 to 0


def label_cross() -> np.ndarray:
    return np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]])


@pytest.mark.parametrize("rule", [LabelsRule(smallest=4), LabelsRule(smallest=4, through_sections=True)])
def test_small_pieces_are_membranes(rule: LabelsRule) -> None:
    membranes = walls()
    membranes[:, 2:5, :3] = [[1, 1, 1], [1, 0, 1], [1, 1, 1]]  # a dot in a box: 1 voxel of a section, 3 through all
    labels = labels_of(membranes, rule)
    assert not labels[:, 3, 1].any()
    assert np.unique(labels).tolist() == list(range(7 if not rule.through_sections else 3))
    kept = labels_of(membranes, rule.model_copy(update={"smallest": 1}))
    np.testing.assert_array_equal(labels != 0, (kept != 0) & (np.indices(kept.shape)[1] != 3) | (labels != 0))


@pytest.mark.parametrize("rule", [LabelsRule(), LabelsRule(smallest=3), THROUGH])
def test_labels_lie_where_the_membranes_lie_and_are_made_once(tmp_path: Path, rule: LabelsRule) -> None:
    membranes = (np.random.default_rng(0).random((5, 30, 31)) < 0.45).astype(np.uint8)
    container = volume(tmp_path, membranes)
    assert create_labels(container, rule) is True
    labels = open_volume(container / LABELS)
    assert (labels.roi, labels.dtype) == (open_volume(container / MEMBRANES).roi, np.uint64)
    np.testing.assert_array_equal(labels.read(), labels_of(membranes, rule))  # whatever is read at once
    assert labels_path(container).exists()
    assert create_labels(container, rule) is False


def test_another_rule_and_other_membranes_make_them_anew(tmp_path: Path) -> None:
    container = volume(tmp_path, walls())
    create_labels(container, LabelsRule())
    assert create_labels(container, THROUGH) is True
    assert read(container).max() == 2
    open_volume(container / MEMBRANES, "r+").array[0, :, 6] = 1
    assert create_labels(container, THROUGH) is True
    assert read(container)[0, 0].tolist() == [1, 1, 1, 1, 0, 2, 0, 2, 2]


def test_edited_labels_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    container = volume(tmp_path, walls())
    create_labels(container, LabelsRule())
    open_volume(container / LABELS, "r+").array[0] = 7
    assert create_labels(container, THROUGH) is False
    assert (read(container)[0] == 7).all()
    assert "was edited since it was written, and is kept" in caplog.text


def test_labels_of_another_origin_are_refused(tmp_path: Path) -> None:
    container = volume(tmp_path, walls())
    create_volume(container / LABELS, (3, 8, 9), np.uint64, (50, 4.6, 4.6), (100, 0, 46)).array[...] = 3
    with pytest.raises(BadInput, match="neuron_ids: was not made from membranes; remove it"):
        create_labels(container, LabelsRule())
    assert (read(container) == 3).all()


@pytest.mark.parametrize(
    ("membranes", "rule", "line"),
    [
        (walls().astype(np.float32), LabelsRule(), "float32 .*, expected membranes, 0 or 1"),
        (np.ones((3, 8, 9), np.uint8), LabelsRule(), "nothing lies between membranes"),
        (walls(), LabelsRule(membranes="volumes/none"), "volumes/none"),
    ],
)
def test_bad_membranes_are_refused(tmp_path: Path, membranes: np.ndarray, rule: LabelsRule, line: str) -> None:
    container = volume(tmp_path, membranes)
    with pytest.raises(BadInput, match=line):
        create_labels(container, rule)
    assert not holds_array(container / LABELS)
    assert not labels_path(container).exists()


def test_what_is_no_zarr_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected a zarr volume"):
        create_labels(tmp_path / "v.hdf", LabelsRule())
