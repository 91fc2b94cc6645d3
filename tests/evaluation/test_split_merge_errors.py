"""Split and merge errors: of voxels, the largest ones, and their positions."""

import numpy as np
import pytest

from builders import write_array
from emsuite.evaluation.compare import compare
from emsuite.evaluation.contingency import contingency
from emsuite.evaluation.ground_truth import GroundTruth
from emsuite.evaluation.split_merge_errors import (
    SplitMergeError,
    VoxelError,
    largest_errors,
    locate_errors,
    locate_on_skeletons,
    voxel_error_shares,
    voxel_errors,
)
from emsuite.evaluation.threshold_sweep import score_thresholds
from emsuite.io.skeletons import Skeletons
from emsuite.io.volume import create_volume

LINE_SEGMENTS = np.array([1, 1, 1, 2, 3, 3, 3, 3, 3, 0], np.uint64)
LINE_LABELS = np.array([1, 1, 1, 1, 2, 2, 2, 3, 3, 3], np.uint64)


def test_each_kind_where_it_is():
    table = contingency(LINE_SEGMENTS, LINE_LABELS)
    expected = [0, 0, 0, VoxelError.SPLIT, 0, 0, 0, VoxelError.MERGE, VoxelError.MERGE, VoxelError.UNSEGMENTED]
    assert voxel_errors(table, LINE_SEGMENTS, LINE_LABELS).tolist() == expected


def test_a_border_that_lies_elsewhere_is_both():
    labels = np.repeat(np.array([1, 2], np.uint64), 10)
    segments = np.repeat(np.array([5, 6], np.uint64), [8, 12])
    kind = voxel_errors(contingency(segments, labels), segments, labels)
    assert kind.tolist() == [0] * 8 + [VoxelError.BOTH] * 2 + [0] * 10


def test_voxels_without_a_label_are_never_wrong():
    table = contingency(LINE_SEGMENTS, LINE_LABELS)
    assert not voxel_errors(table, LINE_SEGMENTS, np.zeros_like(LINE_LABELS)).any()


def test_shares_add_up():
    shares = voxel_error_shares(contingency(LINE_SEGMENTS, LINE_LABELS))
    assert shares[VoxelError.SPLIT] == 0.1
    assert shares[VoxelError.MERGE] == 0.2
    assert sum(shares.values()) == pytest.approx(1)


def test_errors_of_skeletons_lie_at_nodes_and_bear_their_ids(tmp_path):
    # skeleton 0 runs through segments 1 and 2, skeleton 8 through 2 alone
    voxels = np.repeat(np.array([1, 2], np.uint64), [4, 6])[None, None].repeat(2, axis=1)
    found = write_array(tmp_path / "v.zarr/seg", voxels, (10, 10, 10))
    along = np.array([5, 15, 25, 35, 45, 55, 65, 75, 85, 95, 95.0])
    name = np.array([0] * 6 + [8] * 5)
    positions = np.stack([0 * along, np.where(name == 8, 15.0, 5.0), along], axis=1)
    edges = np.array([[i, i + 1] for i in range(10) if i != 5])
    skeletons = Skeletons(np.arange(11), name, positions, np.ones(11), edges)
    compared = compare(found, GroundTruth(None, None, skeletons), found.roi, tmp_path / "c")
    evaluation = score_thresholds(compared)
    split, merge = locate_on_skeletons(largest_errors(evaluation.table, 5), compared, evaluation)
    assert split == SplitMergeError("split", 2, 2 / 6, 0, 2, 1, (0, 5, 45), True)
    assert merge == SplitMergeError("merge", 2, 2 / 7, 0, 2, 8, (0, 5, 55), False)


LABELS = np.repeat([1, 2, 3], [50, 30, 20])
SEGMENTS = np.repeat([11, 12, 13, 14, 13, 0], [30, 15, 5, 30, 14, 6])


def test_splits_and_merges_are_listed_largest_first():
    # label 1 lies in 11, 12 and 13; label 2 in 14; label 3 in 13, and in none
    found = largest_errors(contingency(SEGMENTS, LABELS), 10)
    assert found == [
        SplitMergeError("split", 15, 0.3, 1, 12, 11),
        SplitMergeError("split", 5, 0.1, 1, 13, 11),
        SplitMergeError("merge", 5, 5 / 19, 1, 13, 3),
    ]
    assert [error.pair for error in found] == [(12, 1), (13, 1), (13, 1)]
    assert [error.other_pair for error in found] == [(11, 1), (11, 1), (13, 3)]


def test_no_more_than_asked_for_and_equals_by_their_ids():
    labels, segments = np.repeat([1, 2], 40), np.repeat([9, 5, 4, 3, 8, 7, 6, 2], 10)
    segments[:5] = segments[40:45] = 1
    found = largest_errors(contingency(segments, labels), 2)
    assert [(error.kind, error.voxels, error.segment) for error in found[:2]] == [("split", 10, 2), ("split", 10, 3)]
    assert [(error.kind, error.voxels, error.segment, error.other) for error in found[2:]] == [("merge", 5, 1, 2)]


def test_a_perfect_segmentation_has_none():
    assert largest_errors(contingency(LABELS + 7, LABELS), 5) == []


SIZE, OFFSET = (40, 4, 4), (400, 0, 80)


def scene(tmp_path, segments, labels, mask=None):
    """The errors of a segmentation with their positions, as voxels of the arrays."""
    volumes = {}
    for name, voxels in (("segments", segments), ("labels", labels), ("mask", mask)):
        if voxels is not None:
            made = create_volume(tmp_path / "v.zarr" / name, voxels.shape, voxels.dtype, SIZE, OFFSET)
            made.write(made.roi, voxels)
            volumes[name] = made
    truth = GroundTruth(volumes["labels"], volumes.get("mask"))
    compared = compare(
        volumes["segments"], truth, truth.labels.roi, tmp_path / "out", block_size=(240, 24, 24), workers=1
    )
    found = score_thresholds(compared)
    errors = locate_errors(largest_errors(found.table, 5), compared, found, volumes["segments"], truth)
    voxels = [tuple((np.array(error.position) - OFFSET) // SIZE) for error in errors]
    assert all(((np.array(error.position) - OFFSET) % SIZE == np.array(SIZE) // 2).all() for error in errors)
    return errors, voxels


@pytest.fixture
def bar():
    """A label along x, whose segment changes at voxel 17 of 30."""
    labels = np.zeros((12, 12, 30), np.uint64)
    labels[3:8, 4:9] = 7
    segments = labels + np.uint64(10)
    segments[:, :, 17:] += np.uint64(100)
    return segments, labels


def test_a_split_is_where_the_piece_begins(tmp_path, bar):
    (split,), ((z, y, x),) = scene(tmp_path, *bar)
    assert (split.kind, split.voxels, split.segment, split.other, split.touching) == ("split", 325, 117, 17, True)
    assert (z, y, x) == (5, 5, 17) or (3 <= z < 8 and 4 <= y < 9 and x == 17)


def test_a_merge_is_where_the_neurons_meet(tmp_path, bar):
    segments, labels = bar
    (merge,), (voxel,) = scene(tmp_path, labels + np.uint64(1), np.where(segments > 100, labels + np.uint64(1), labels))
    assert (merge.kind, merge.label, merge.segment, merge.other, merge.touching) == ("merge", 8, 8, 7, True)
    assert voxel[2] == 17


def test_pieces_that_do_not_touch_are_found_as_well(tmp_path, bar):
    segments, labels = bar
    labels[:, :, 10:17] = 0
    (split,), ((z, y, x),) = scene(tmp_path, segments, labels)
    assert (split.voxels, split.segment, split.touching) == (250, 17, False)
    assert labels[z, y, x] == 7
    assert x < 10


def test_what_the_mask_leaves_out_is_no_place_to_look(tmp_path, bar):
    segments, labels = bar
    mask = np.ones(labels.shape, np.uint8)
    mask[:, :, 15:20] = 0
    (split,), ((z, y, x),) = scene(tmp_path, segments, labels, mask)
    assert not split.touching
    assert (labels[z, y, x], x >= 20) == (7, True)


@pytest.mark.parametrize("seed", range(3))
def test_every_position_lies_in_its_fault(tmp_path, seed):
    rng = np.random.default_rng(seed)
    labels, segments = (np.kron(rng.integers(1, 6, (3, 4, 5)), np.ones((4, 3, 6), np.uint64)) for _ in range(2))
    labels, segments = labels.astype(np.uint64), segments.astype(np.uint64)
    errors, voxels = scene(tmp_path, segments, labels)
    assert len(errors) == 10
    assert [(segments[voxel], labels[voxel]) for voxel in voxels] == [error.pair for error in errors]
