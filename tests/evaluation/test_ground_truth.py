import numpy as np
import pytest

from builders import write_array
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Roi
from emsuite.evaluation.ground_truth import GroundTruth, in_border

SIZE = (20, 4, 5)


def volume(tmp_path, name, voxels, offset=(0, 0, 0), voxel_size=SIZE):
    return write_array(tmp_path / "v.zarr" / name, voxels, voxel_size, offset)


def random_ids(seed, shape=(10, 30, 40), ids=9):
    return np.random.default_rng(seed).integers(0, ids, shape).astype(np.uint64)


def test_labels_are_0_where_the_mask_leaves_them_out(tmp_path):
    labels, mask = random_ids(1), random_ids(2) > 3
    for held in (None, volume(tmp_path, "mask", mask.astype(np.uint8)), volume(tmp_path, "bool", mask)):
        truth = GroundTruth(volume(tmp_path, "labels", labels), held)
        roi = Roi((20, 8, 10), (40, 8, 15))
        counted = np.ones_like(mask) if held is None else mask
        part = np.s_[1:3, 2:4, 2:5]
        assert np.array_equal(truth.is_scored(roi), counted[part])
        assert np.array_equal(truth.read(roi), np.where(counted, labels, 0)[part])


@pytest.mark.parametrize("width", [1, 5, 12])
def test_the_border_of_a_part_is_that_of_the_whole(tmp_path, width):
    ids = np.kron(random_ids(3, (10, 6, 8)), np.ones((1, 5, 5), np.uint64))
    labels, mask = volume(tmp_path, "labels", ids), volume(tmp_path, "mask", (random_ids(2) > 3).astype(np.uint8))
    expected = np.where(in_border(ids, width, SIZE), 0, ids)
    assert (expected == 0).sum() > (ids == 0).sum()
    roi, part = Roi((20, 8, 10), (60, 40, 100)), np.s_[1:4, 2:12, 2:22]
    assert np.array_equal(GroundTruth(labels, border=width).read(roi), expected[part])
    masked = np.where(mask.read() != 0, expected, 0)  # the mask makes no border of its own
    assert np.array_equal(GroundTruth(labels, mask, border=width).read(roi), masked[part])


def test_ids_that_stand_for_no_neuron_are_no_ground_truth(tmp_path):
    ids = random_ids(3)
    ids[0, 0, :4] = [2**64 - 1, 2**64 - 2, 2**64 - 3, 2**64 - 4]
    read = GroundTruth(volume(tmp_path, "labels", ids)).read(Roi((0, 0, 0), (20, 4, 20)))
    assert read.ravel().tolist() == [0, 0, 0, 2**64 - 4]


def test_what_all_arrays_cover_is_scored_and_said(tmp_path, caplog):
    truth = GroundTruth(volume(tmp_path, "labels", random_ids(1)))
    found = volume(tmp_path, "seg", random_ids(0), (40, 8, 50))
    assert truth.common_roi(found) == Roi((40, 8, 50), (8 * 20, 28 * 4, 30 * 5))
    assert "labels: 56% of it is scored" in caplog.text
    caplog.clear()
    assert truth.common_roi(volume(tmp_path, "large", random_ids(0))) == truth.labels.roi
    assert not caplog.records


@pytest.mark.parametrize(
    ("voxels", "place", "message"),
    [
        (random_ids(0), {"voxel_size": (8, 8, 8)}, r"seg: voxel size \(8, 8, 8\) nm, but \(20, 4, 5\) in .*labels"),
        (random_ids(0), {"offset": (10, 0, 0)}, r"seg: offset \(10, 0, 0\) nm is not a whole number of voxels"),
        (random_ids(0), {"offset": (0, 0, 4000)}, "labels: covers .* which does not overlap .*seg"),
        (random_ids(0).astype(np.float32), {}, "seg: holds float32, expected integer ids"),
        (random_ids(0)[None], {}, r"seg: shape \(1, 10, 30, 40\), expected three axes"),
        (random_ids(0)[0], {"voxel_size": (4, 5), "offset": (0, 0)}, r"seg: shape \(30, 40\), expected three axes"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, voxels, place, message):
    truth = GroundTruth(volume(tmp_path, "labels", random_ids(1)))
    with pytest.raises(BadInput, match=message):
        truth.common_roi(volume(tmp_path, "seg", voxels, **place))


def test_a_roi_that_an_array_does_not_cover_is_refused(tmp_path):
    truth = GroundTruth(volume(tmp_path, "labels", random_ids(1)), volume(tmp_path, "mask", random_ids(2)[:5]))
    with pytest.raises(BadInput, match=r"mask: covers .* is to be scored"):
        truth.common_roi(truth.labels, Roi((80, 0, 0), (40, 40, 40)))
