import numpy as np
import pytest

from emsuite.comparison import compare
from emsuite.evaluate import evaluate
from emsuite.fault_positions import locate
from emsuite.faults import worst_faults
from emsuite.truth import Truth
from emsuite.volume import create_volume

SIZE, OFFSET = (40, 4, 4), (400, 0, 80)


def scene(tmp_path, segments, labels, mask=None):
    """The faults of a segmentation with their positions, as voxels of the arrays."""
    volumes = {}
    for name, voxels in (("segments", segments), ("labels", labels), ("mask", mask)):
        if voxels is not None:
            made = create_volume(tmp_path / "v.zarr" / name, voxels.shape, voxels.dtype, SIZE, OFFSET)
            made.write(made.roi, voxels)
            volumes[name] = made
    truth = Truth(volumes["labels"], volumes.get("mask"))
    compared = compare(
        volumes["segments"], truth, truth.labels.roi, tmp_path / "out", block_size=(240, 24, 24), workers=1
    )
    found = evaluate(compared)
    faults = locate(worst_faults(found.table, 5), compared, found, volumes["segments"], truth)
    voxels = [tuple((np.array(fault.position) - OFFSET) // SIZE) for fault in faults]
    assert all(((np.array(fault.position) - OFFSET) % SIZE == np.array(SIZE) // 2).all() for fault in faults)
    return faults, voxels


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
    faults, voxels = scene(tmp_path, segments, labels)
    assert len(faults) == 10
    assert [(segments[voxel], labels[voxel]) for voxel in voxels] == [fault.pair for fault in faults]
