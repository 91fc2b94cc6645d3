import numpy as np
import pytest
from funlib.geometry import Roi

from emsuite.contingency import contingency
from emsuite.errors import BadInput
from emsuite.skeletons import Skeletons
from emsuite.truth import Truth
from emsuite.volume import create_volume

SIZE = (20, 4, 5)


def volume(tmp_path, name, voxels, offset=(0, 0, 0), voxel_size=SIZE):
    made = create_volume(tmp_path / "v.zarr" / name, voxels.shape, voxels.dtype, voxel_size, offset)
    made.write(made.roi, voxels)
    return made


def random_ids(seed, shape=(10, 30, 40), ids=9):
    return np.random.default_rng(seed).integers(0, ids, shape).astype(np.uint64)


def nodes_at(*positions):
    count = len(positions)
    edges = np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)
    return Skeletons(
        np.arange(count), np.ones(count, int), np.array(positions, float), np.ones(count), edges, "s.skeletons"
    )


def table_of(found):
    return [column.tolist() for column in (found.segments, found.labels, found.counts)]


def test_compares_what_all_arrays_cover_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr("emsuite.truth._BLOCK", 7)
    segmentation, labels = random_ids(0), random_ids(1)
    mask = (random_ids(2, (10, 30, 30)) > 3).astype(np.uint8)
    found = volume(tmp_path, "seg", segmentation, (40, 0, 0))
    truth = Truth(volume(tmp_path, "labels", labels), volume(tmp_path, "mask", mask, (0, 8, 50)))
    roi = truth.common_roi(found)
    assert roi == Roi((40, 8, 50), (8 * 20, 28 * 4, 30 * 5))
    table, skeletons, _ = truth.compare(found, roi)
    kept = np.where(mask[2:10, 0:28, 0:30] > 0, labels[2:10, 2:30, 10:40], 0)
    assert table_of(table) == table_of(contingency(segmentation[0:8, 2:30, 10:40], kept))
    assert skeletons is None


def test_a_roi_is_scored_alone(tmp_path):
    segmentation, labels = random_ids(0), random_ids(1)
    truth = Truth(volume(tmp_path, "labels", labels))
    found = volume(tmp_path, "seg", segmentation)
    roi = truth.common_roi(found, Roi((20, 8, 10), (40, 8, 15)))
    assert table_of(truth.compare(found, roi)[0]) == table_of(
        contingency(segmentation[1:3, 2:4, 2:5], labels[1:3, 2:4, 2:5])
    )


def test_nodes_take_the_segment_of_the_voxel_they_lie_in(tmp_path, monkeypatch):
    monkeypatch.setattr("emsuite.truth._BLOCK", 9)
    segmentation = np.arange(1, 10 * 30 * 40 + 1, dtype=np.uint64).reshape(10, 30, 40)
    mask = np.ones(segmentation.shape, np.uint8)
    mask[5] = 0
    at = [[0, 0, 0], [19.9, 3.9, 4.9], [20, 4, 5], [199.9, 119.9, 199.9], [200, 0, 0], [-0.1, 0, 0], [100, 0, 0]]
    skeletons = nodes_at(*at, [39.9, 119.9, 5])
    truth = Truth(volume(tmp_path, "labels", random_ids(1)), volume(tmp_path, "mask", mask), skeletons)
    found = volume(tmp_path, "seg", segmentation)
    _, kept, segments = truth.compare(found, found.roi)
    assert kept.ids.tolist() == [0, 1, 2, 3, 7]  # 4 and 5 lie outside, 6 in the masked section
    expected = [segmentation[place] for place in [(0, 0, 0), (0, 0, 0), (1, 1, 1), (9, 29, 39), (1, 29, 1)]]
    assert segments.tolist() == expected


def test_a_volume_away_from_the_origin_finds_its_nodes(tmp_path):
    segmentation = np.arange(1, 28, dtype=np.uint64).reshape(3, 3, 3)
    truth = Truth(
        volume(tmp_path, "labels", segmentation, (1000, 400, -50)), skeletons=nodes_at([1041, 401, -41], [0, 0, 0])
    )
    _, kept, segments = truth.compare(truth.labels, truth.labels.roi)
    assert (kept.ids.tolist(), segments.tolist()) == ([0], [segmentation[2, 0, 1]])


def test_skeletons_elsewhere_are_refused(tmp_path):
    truth = Truth(volume(tmp_path, "labels", random_ids(1)), skeletons=nodes_at([9999, 0, 0], [9999, 0, 9]))
    with pytest.raises(BadInput, match=r"s\.skeletons: no node lies in"):
        truth.compare(truth.labels, truth.labels.roi)


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
    truth = Truth(volume(tmp_path, "labels", random_ids(1)))
    with pytest.raises(BadInput, match=message):
        truth.common_roi(volume(tmp_path, "seg", voxels, **place))


def test_a_roi_that_an_array_does_not_cover_is_refused(tmp_path):
    truth = Truth(volume(tmp_path, "labels", random_ids(1)), volume(tmp_path, "mask", random_ids(2)[:5]))
    with pytest.raises(BadInput, match=r"mask: covers .* is to be scored"):
        truth.common_roi(truth.labels, Roi((80, 0, 0), (40, 40, 40)))
