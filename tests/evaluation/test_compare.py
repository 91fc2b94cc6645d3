import os
import pickle

import numpy as np
import pytest
import skimage.metrics
import zarr

from builders import write_array
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Roi
from emsuite.common.outputs import manifest_path, unfinished_path
from emsuite.evaluation.compare import compare
from emsuite.evaluation.contingency import contingency
from emsuite.evaluation.ground_truth import GroundTruth, in_border
from emsuite.evaluation.scores import (
    adapted_rand,
    adapted_rand_of,
    rand_index,
    rand_index_of,
    variation_of_information,
    variation_of_information_of,
)
from emsuite.io.skeletons import Skeletons
from emsuite.io.volume import open_volume

SIZE = (20, 4, 5)
BLOCK = (140, 28, 35)  # nm: 7 voxels per axis


def volume(tmp_path, name, voxels, offset=(0, 0, 0)):
    return write_array(tmp_path / "v.zarr" / name, voxels, SIZE, offset)


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


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("block_size", [None, BLOCK, (20, 120, 200)])
def test_blocks_give_exactly_the_table_of_the_volume(tmp_path, block_size, workers):
    segmentation, labels = random_ids(0), random_ids(1)
    mask = (random_ids(2, (10, 30, 30)) > 3).astype(np.uint8)
    found = volume(tmp_path, "seg", segmentation, (40, 0, 0))
    truth = GroundTruth(volume(tmp_path, "labels", labels), volume(tmp_path, "mask", mask, (0, 8, 50)))
    roi = truth.common_roi(found)
    compared = compare(found, truth, roi, tmp_path / "out", block_size=block_size, workers=workers)
    kept = np.where(mask[2:10, 0:28, 0:30] > 0, labels[2:10, 2:30, 10:40], 0)
    assert table_of(compared.table) == table_of(contingency(segmentation[0:8, 2:30, 10:40], kept))
    assert compared.skeletons is None
    assert sum(table.voxels for _, table in compared.blocks()) == compared.table.voxels
    assert manifest_path(tmp_path / "out").exists()
    assert not unfinished_path(tmp_path / "out").exists()


@pytest.mark.parametrize("seed", range(4))
def test_scores_of_blocks_are_those_of_the_volume_and_of_scikit_image(tmp_path, seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(5, 40, 3))
    labels, segmentation = (random_ids(10 * seed + i, shape, ids) for i, ids in ((1, 6), (2, 30)))
    found, truth = volume(tmp_path, "seg", segmentation), GroundTruth(volume(tmp_path, "labels", labels))
    block = tuple(int(n) * size for n, size in zip(rng.integers(1, 20, 3), SIZE, strict=True))
    table = compare(found, truth, found.roi, tmp_path / "out", block_size=block).table
    voi, rand = variation_of_information_of(table), adapted_rand_of(table)
    assert voi == variation_of_information(segmentation, labels)
    assert rand == adapted_rand(segmentation, labels)
    assert rand_index_of(table) == rand_index(segmentation, labels)
    expected = skimage.metrics.variation_of_information(labels, segmentation, ignore_labels=[0])
    assert (voi.split, voi.merge) == pytest.approx(tuple(expected), rel=1e-9)
    # scikit-image gives what is called recall here before precision, and knows no voxels without a segment
    inside = np.where(segmentation == 0, 99, segmentation).astype(np.uint64)
    of_all = compare(volume(tmp_path, "all", inside), truth, found.roi, tmp_path / "all", block_size=block).table
    whole = adapted_rand_of(of_all)
    assert (whole.error, whole.recall, whole.precision) == pytest.approx(
        skimage.metrics.adapted_rand_error(labels, inside, ignore_labels=[0]), rel=1e-9
    )


@pytest.mark.parametrize("block_size", [None, BLOCK])
def test_sections_get_a_table_each(tmp_path, block_size):
    segmentation, labels = random_ids(0), random_ids(1)
    found, truth = volume(tmp_path, "seg", segmentation), GroundTruth(volume(tmp_path, "labels", labels))
    more = {"block_size": block_size, "in_sections": True, "workers": 2}
    compared = compare(found, truth, found.roi, tmp_path / "out", **more)
    assert table_of(compared.table) == table_of(contingency(segmentation, labels))
    each = [table_of(contingency(*both)) for both in zip(segmentation, labels, strict=True)]
    assert [table_of(table) for table in compared.sections] == each
    assert compare(found, truth, found.roi, tmp_path / "whole").sections == ()
    with pytest.raises(BadInput, match="sections are scored by labels"):
        compare(found, GroundTruth(None, None, nodes_at([0, 0, 0])), found.roi, tmp_path / "n", in_sections=True)


def test_the_border_of_labels_is_not_compared(tmp_path):
    segmentation, labels = random_ids(0), np.kron(random_ids(1, (10, 6, 8)), np.ones((1, 5, 5), np.uint64))
    found, held = volume(tmp_path, "seg", segmentation), volume(tmp_path, "labels", labels)
    kept = np.where(in_border(labels, 4, SIZE), 0, labels)
    for workers in (1, 2):
        truth = GroundTruth(held, border=4)
        compared = compare(found, truth, found.roi, tmp_path / "out", block_size=BLOCK, workers=workers)
        assert table_of(compared.table) == table_of(contingency(segmentation, kept))
    # the same folder, and another border: the earlier tables do not count
    whole = compare(found, GroundTruth(held), found.roi, tmp_path / "out", block_size=BLOCK)
    assert table_of(whole.table) == table_of(contingency(segmentation, labels))


def test_a_roi_is_compared_alone(tmp_path):
    segmentation, labels = random_ids(0), random_ids(1)
    truth, found = GroundTruth(volume(tmp_path, "labels", labels)), volume(tmp_path, "seg", segmentation)
    compared = compare(found, truth, Roi((20, 8, 10), (40, 8, 15)), tmp_path / "out")
    assert table_of(compared.table) == table_of(contingency(segmentation[1:3, 2:4, 2:5], labels[1:3, 2:4, 2:5]))


@pytest.mark.parametrize("block_size", [None, BLOCK])
def test_nodes_take_the_segment_of_the_voxel_they_lie_in(tmp_path, block_size):
    segmentation = np.arange(1, 10 * 30 * 40 + 1, dtype=np.uint64).reshape(10, 30, 40)
    mask = np.ones(segmentation.shape, np.uint8)
    mask[5] = 0
    at = [[0, 0, 0], [19.9, 3.9, 4.9], [20, 4, 5], [199.9, 119.9, 199.9], [200, 0, 0], [-0.1, 0, 0], [100, 0, 0]]
    skeletons = nodes_at(*at, [39.9, 119.9, 5])
    truth = GroundTruth(volume(tmp_path, "labels", random_ids(1)), volume(tmp_path, "mask", mask), skeletons)
    found = volume(tmp_path, "seg", segmentation)
    compared = compare(found, truth, found.roi, tmp_path / "out", block_size=block_size)
    assert compared.skeletons.ids.tolist() == [0, 1, 2, 3, 7]  # 4 and 5 lie outside, 6 in the masked section
    expected = [segmentation[place] for place in [(0, 0, 0), (0, 0, 0), (1, 1, 1), (9, 29, 39), (1, 29, 1)]]
    assert compared.node_segments.tolist() == expected


@pytest.mark.parametrize("block_size", [None, BLOCK])
def test_without_labels_nodes_are_the_table_and_only_their_blocks_are_read(tmp_path, block_size):
    segmentation = random_ids(0)
    mask = np.ones(segmentation.shape, np.uint8)
    mask[5] = 0
    at = [[0, 0, 0], [19.9, 3.9, 4.9], [199.9, 119.9, 199.9], [200, 0, 0], [100, 0, 0]]
    found, kept = volume(tmp_path, "seg", segmentation), [segmentation[0, 0, 0]] * 2 + [segmentation[9, 29, 39]]
    truth = GroundTruth(None, volume(tmp_path, "mask", mask), nodes_at(*at))
    assert truth.common_roi(found) == found.roi
    compared = compare(found, truth, found.roi, tmp_path / "out", block_size=block_size, workers=1)
    assert compared.of_nodes
    assert table_of(compared.table) == table_of(contingency(np.array(kept), np.ones(3, int)))
    assert compared.node_segments.tolist() == kept
    tables = {path.parent.name for path in (tmp_path / "out").rglob("*.parquet")}
    assert tables == {"nodes"}
    assert len(list((tmp_path / "out/nodes").iterdir())) == (1 if block_size is None else 2)


def test_ids_below_0_under_nodes_are_refused(tmp_path):
    found = volume(tmp_path, "seg", np.full((10, 30, 40), -4))
    with pytest.raises(BadInput, match="segmentation: holds the id -4"):
        compare(found, GroundTruth(None, None, nodes_at([0, 0, 0], [20, 0, 0])), found.roi, tmp_path / "out")


def test_a_volume_away_from_the_origin_finds_its_nodes(tmp_path):
    segmentation = np.arange(1, 28, dtype=np.uint64).reshape(3, 3, 3)
    truth = GroundTruth(
        volume(tmp_path, "labels", segmentation, (1000, 400, -50)), skeletons=nodes_at([1041, 401, -41], [0, 0, 0])
    )
    compared = compare(truth.labels, truth, truth.labels.roi, tmp_path / "out")
    assert (compared.skeletons.ids.tolist(), compared.node_segments.tolist()) == ([0], [segmentation[2, 0, 1]])


def test_skeletons_elsewhere_are_refused(tmp_path):
    truth = GroundTruth(volume(tmp_path, "labels", random_ids(1)), skeletons=nodes_at([9999, 0, 0], [9999, 0, 9]))
    with pytest.raises(BadInput, match=r"s\.skeletons: no node lies in"):
        compare(truth.labels, truth, truth.labels.roi, tmp_path / "out")


def test_ids_below_0_are_refused_by_a_worker_as_well(tmp_path):
    truth = GroundTruth(volume(tmp_path, "labels", random_ids(1).astype(np.int64) - 4))
    with pytest.raises(BadInput, match="segmentation: holds the id -4"):
        compare(truth.labels, truth, truth.labels.roi, tmp_path / "out", block_size=BLOCK, workers=2)
    assert not manifest_path(tmp_path / "out").exists()


def stop_after_two_blocks(monkeypatch):
    """Interrupt `compare` at its third block; returns the list of the shapes that were counted."""
    counted = []

    def count_twice(a, b):
        if len(counted) == 2:
            raise KeyboardInterrupt
        counted.append(a.shape)
        return contingency(a, b)

    monkeypatch.setattr("emsuite.evaluation.compare.contingency", count_twice)
    return counted


def test_a_stopped_run_goes_on_where_it_stood(tmp_path, monkeypatch):
    truth, found = GroundTruth(volume(tmp_path, "labels", random_ids(1))), volume(tmp_path, "seg", random_ids(0))
    counted = stop_after_two_blocks(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        compare(found, truth, found.roi, tmp_path / "out", block_size=BLOCK)
    assert unfinished_path(tmp_path / "out").exists()
    monkeypatch.setattr(
        "emsuite.evaluation.compare.contingency", lambda a, b: counted.append(a.shape) or contingency(a, b)
    )
    compared = compare(found, truth, found.roi, tmp_path / "out", block_size=BLOCK)
    assert len(counted) == len(compared.grid) == 2 * 5 * 6
    assert table_of(compared.table) == table_of(contingency(random_ids(0), random_ids(1)))


def test_a_stopped_run_over_labels_that_were_edited_begins_anew(tmp_path, monkeypatch):
    group = zarr.open_group(tmp_path / "w.zarr", mode="w")  # files of one size, whatever they hold:
    array = group.create_array("labels", shape=(10, 30, 40), chunks=(10, 30, 40), dtype="u8", compressors=None)
    array.attrs.update(voxel_size=SIZE)
    array[...] = random_ids(1)
    labels, found = open_volume(tmp_path / "w.zarr/labels"), volume(tmp_path, "seg", random_ids(0))
    stop_after_two_blocks(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        compare(found, GroundTruth(labels), found.roi, tmp_path / "out", block_size=BLOCK)
    array[...] = random_ids(2)
    monkeypatch.setattr("emsuite.evaluation.compare.contingency", contingency)
    compared = compare(found, GroundTruth(labels), found.roi, tmp_path / "out", block_size=BLOCK)
    assert table_of(compared.table) == table_of(contingency(random_ids(0), random_ids(2)))


def test_what_a_block_needs_can_be_sent_to_another_machine(tmp_path, monkeypatch):
    to_device = []
    monkeypatch.setattr(
        "emsuite.evaluation.compare.run_blocks",
        lambda name, grid, process, *more, run: to_device.append(process),
    )
    truth = GroundTruth(volume(tmp_path, "labels", random_ids(1)), skeletons=nodes_at([0, 0, 0], [20, 0, 0]))
    with pytest.raises(BadInput, match=r"pairs/0\.parquet.* No such file"):
        compare(truth.labels, truth, truth.labels.roi, tmp_path / "out")
    assert len(pickle.dumps(to_device[0])) < 2000


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    truth = GroundTruth(volume(tmp_path, "labels", random_ids(1)))
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(PermissionError):
        compare(truth.labels, truth, truth.labels.roi, tmp_path / "closed/out")
