import csv
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from emsuite.errors import BadInput
from emsuite.evaluate import evaluate, write_scores
from emsuite.files import write_json
from emsuite.output import manifest_path
from emsuite.scores import adapted_rand, variation_of_information
from emsuite.skeletons import Skeletons
from emsuite.truth import Truth
from emsuite.volume import create_volume

THRESHOLDS = [0.1, 0.28, 0.29, 0.5]
COLUMNS = ["threshold", "voi_split", "voi_merge", "voi_sum", "adapted_rand_error", "precision", "recall", "erl", "nerl",
           "splits", "merges", "segments"]  # fmt: skip


def write_lookup(folder, tables, digest="of the fragments"):
    """Lookup tables as find_segments.py leaves them: {threshold: {fragment: segment}}."""
    folder.mkdir()
    columns = {"fragment": list(next(iter(tables.values())))}
    columns |= {repr(threshold): list(table.values()) for threshold, table in tables.items()}
    columns = {name: np.array(column, np.uint64) for name, column in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "segments.parquet")
    write_json(manifest_path(folder), {"settings": {}, "fragments_digest": digest})
    return folder


@pytest.fixture
def scene(tmp_path):
    """Two neurons side by side in four fragments each; a sweep that first splits, then is right, then merges."""
    labels = np.ones((6, 8, 16), np.uint64)
    labels[:, :, 8:] = 2
    fragments = np.broadcast_to(np.repeat(np.arange(11, 19), 2), labels.shape).astype(np.uint64)
    made = {}
    for name, voxels in (("labels", labels), ("fragments", fragments)):
        made[name] = create_volume(tmp_path / "v.zarr" / name, labels.shape, np.uint64, (10, 10, 10), (0, 0, 0))
        made[name].write(made[name].roi, voxels)
    ids = range(11, 19)
    tables = {
        0.1: {i: i for i in ids},
        0.28: {i: 1 + (i - 11) // 2 for i in ids},
        0.29: {i: 7 if i < 15 else 9 for i in ids},
        0.5: dict.fromkeys(ids, 7),
    }
    along = np.arange(5, 160, 10.0)
    positions = np.stack([np.full(16, 25.0), np.full(16, 45.0), along], axis=1)
    edges = np.array([[i, i + 1] for i in range(15) if i != 7])
    skeletons = Skeletons(np.arange(16), np.repeat([1, 2], 8), positions, np.ones(16), edges)
    lookup = write_lookup(tmp_path / "lookup", tables)
    return made["fragments"], Truth(made["labels"], skeletons=skeletons), lookup, tables


def test_a_sweep_scores_each_threshold_and_finds_the_best(scene):
    fragments, truth, lookup, _ = scene
    found = evaluate(fragments, truth, lookup)
    assert [row.threshold for row in found.rows] == THRESHOLDS
    assert [row.voi_split for row in found.rows] == [2, 1, 0, 0]
    assert [row.voi_merge for row in found.rows] == [0, 0, 0, 1]
    assert [row.segments for row in found.rows] == [8, 4, 2, 1]
    assert [row.splits for row in found.rows] == [6, 2, 0, 0]
    assert [row.merges for row in found.rows] == [0, 0, 0, 1]
    # each neuron's 70 nm: 4 runs of 10, 2 of 30, one of 70, none
    assert [row.erl for row in found.rows] == pytest.approx([400 / 70, 1800 / 70, 70, 0])
    assert [row.nerl for row in found.rows] == pytest.approx([4 / 49, 18 / 49, 1, 0])
    assert found.best is found.rows[2]


def test_a_sweep_scores_as_the_relabelled_voxels_do(scene):
    fragments, truth, lookup, tables = scene
    voxels, labels = fragments.read(), truth.labels.read()
    for row in evaluate(fragments, truth, lookup).rows:
        table = tables[row.threshold]
        segmentation = np.vectorize(table.get)(voxels)
        voi, rand = variation_of_information(segmentation, labels), adapted_rand(segmentation, labels)
        assert (row.voi_split, row.voi_merge, row.voi_sum) == (voi.split, voi.merge, voi.sum)
        assert (row.adapted_rand_error, row.precision, row.recall) == (rand.error, rand.precision, rand.recall)


def test_the_best_segmentation_can_be_shown(scene):
    fragments, truth, lookup, _ = scene
    found = evaluate(fragments, truth, lookup)
    assert np.array_equal(found.segments_of(fragments.read()), np.where(truth.labels.read() == 1, 7, 9))
    assert found.table.by_segment.ids.tolist() == [7, 9]


def test_equal_thresholds_go_to_the_lowest(scene, tmp_path):
    fragments, truth, _, tables = scene
    lookup = write_lookup(tmp_path / "same", {0.3: tables[0.29], 0.2: tables[0.29], 0.1: tables[0.5]})
    assert evaluate(fragments, truth, lookup).best.threshold == 0.2


def test_a_segmentation_is_scored_as_it_is(scene):
    fragments, truth, _, _ = scene
    found = evaluate(fragments, Truth(truth.labels))
    assert (found.best.threshold, found.best.voi_split, found.best.erl) == (None, 2, None)
    assert np.array_equal(found.segments_of(fragments.read()), fragments.read())


def test_scores_are_written_as_numbers_that_read_back(scene, tmp_path):
    fragments, truth, lookup, _ = scene
    found = evaluate(fragments, truth, lookup)
    write_scores(tmp_path / "out", found, {"seed": 3})
    with open(tmp_path / "out/scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert [float(row["threshold"]) for row in rows] == THRESHOLDS
    assert float(rows[1]["erl"]) == found.rows[1].erl
    best = json.loads((tmp_path / "out/scores.json").read_text())
    assert (best["threshold"], best["best"]["voi_sum"], best["roi"]) == (0.29, 0, "0:60,0:80,0:160")
    assert best["provenance"] == {"seed": 3}


def test_a_lookup_table_of_another_run_is_refused(scene, tmp_path):
    fragments, truth, lookup, _ = scene
    write_json(tmp_path / "v.zarr.manifest.json", {"digest": "of the fragments"})
    assert evaluate(fragments, truth, lookup).best.threshold == 0.29
    write_json(tmp_path / "v.zarr.manifest.json", {"digest": "of others"})
    with pytest.raises(BadInput, match=r"lookup: was made from other fragments than .*v\.zarr/fragments"):
        evaluate(fragments, truth, lookup)


def test_a_lookup_table_without_some_fragments_is_refused(scene, tmp_path):
    fragments, truth, _, _ = scene
    lookup = write_lookup(tmp_path / "other", {0.3: {11: 1, 12: 1}})
    with pytest.raises(BadInput, match=r"other, threshold 0\.3: .*no segment for 6 fragments, 13 the first"):
        evaluate(fragments, truth, lookup)
