import csv
import json
import math
from collections import Counter

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import skimage.metrics

from emsuite.common.errors import BadInput
from emsuite.common.files import write_json
from emsuite.common.outputs import manifest_path
from emsuite.evaluation.compare import compare
from emsuite.evaluation.ground_truth import GroundTruth
from emsuite.evaluation.metrics import METRICS
from emsuite.evaluation.scores import adapted_rand, rand_index, variation_of_information
from emsuite.evaluation.split_merge_errors import SplitMergeError, write_errors
from emsuite.evaluation.threshold_sweep import add_edits, check_lookup, score_thresholds, write_scores
from emsuite.io.skeletons import Skeletons
from emsuite.io.volume import create_volume, fingerprint
from emsuite.segmentation.find_segments import lookup_digest
from emsuite.segmentation.graph_tables import edges_digest

THRESHOLDS = [0.1, 0.28, 0.29, 0.5]
COLUMNS = ["threshold", *METRICS]


def write_lookup(folder, tables, digest="of the fragments", **notes):
    """Lookup tables as find_segments.py leaves them: {threshold: {fragment: segment}}."""
    folder.mkdir()
    columns = {"fragment": list(next(iter(tables.values())))}
    columns |= {repr(threshold): list(table.values()) for threshold, table in tables.items()}
    columns = {name: np.array(column, np.uint64) for name, column in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "segments.parquet")
    about = {"settings": {}, "fragments_digest": digest, "merge_function": "mean"}
    write_json(manifest_path(folder), about | notes)
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
    truth = GroundTruth(made["labels"], skeletons=skeletons)
    return made["fragments"], truth, lookup, tables


@pytest.fixture
def compared(scene, tmp_path):
    fragments, truth, _, _ = scene
    return compare(fragments, truth, fragments.roi, tmp_path / "compared")


def test_a_sweep_scores_each_threshold_and_finds_the_best(scene, compared):
    _, _, lookup, _ = scene
    found = score_thresholds(compared, lookup)
    assert [row["threshold"] for row in found.rows] == THRESHOLDS
    assert [row["voi_split"] for row in found.rows] == [2, 1, 0, 0]
    assert [row["voi_merge"] for row in found.rows] == [0, 0, 0, 1]
    assert [row["segments"] for row in found.rows] == [8, 4, 2, 1]
    assert [row["splits"] for row in found.rows] == [6, 2, 0, 0]
    assert [row["merges"] for row in found.rows] == [0, 0, 0, 1]
    # each neuron's 70 nm: 4 runs of 10, 2 of 30, one of 70, none
    assert [row["erl"] for row in found.rows] == pytest.approx([400 / 70, 1800 / 70, 70, 0])
    assert [row["nerl"] for row in found.rows] == pytest.approx([4 / 49, 18 / 49, 1, 0])
    assert found.best is found.rows[2]


def test_a_sweep_scores_as_the_relabelled_voxels_do(scene, compared):
    fragments, truth, lookup, tables = scene
    voxels, labels = fragments.read(), truth.labels.read()
    for row in score_thresholds(compared, lookup).rows:
        table = tables[row["threshold"]]
        segmentation = np.vectorize(table.get)(voxels)
        voi, rand = variation_of_information(segmentation, labels), adapted_rand(segmentation, labels)
        assert (row["voi_split"], row["voi_merge"], row["voi_sum"]) == (voi.split, voi.merge, voi.sum)
        assert (row["adapted_rand_error"], row["precision"], row["recall"]) == (rand.error, rand.precision, rand.recall)
        assert row["rand_index"] == rand_index(segmentation, labels)


def test_the_best_segmentation_can_be_shown(scene, compared):
    fragments, truth, lookup, _ = scene
    found = score_thresholds(compared, lookup)
    assert np.array_equal(found.segments_of(fragments.read()), np.where(truth.labels.read() == 1, 7, 9))
    assert found.table.by_segment.ids.tolist() == [7, 9]


def test_equal_thresholds_go_to_the_lowest(scene, compared, tmp_path):
    _, _, _, tables = scene
    lookup = write_lookup(tmp_path / "same", {0.3: tables[0.29], 0.2: tables[0.29], 0.1: tables[0.5]})
    assert score_thresholds(compared, lookup).best["threshold"] == 0.2


def test_a_segmentation_is_scored_as_it_is(scene, tmp_path):
    fragments, truth, _, _ = scene
    found = score_thresholds(compare(fragments, GroundTruth(truth.labels), fragments.roi, tmp_path / "alone"))
    assert (found.best["threshold"], found.best["voi_split"], found.best["erl"]) == (None, 2, None)
    assert np.array_equal(found.segments_of(fragments.read()), fragments.read())


def funlib_rand_voi(truth, test):
    """The published definitions (funlib.evaluate's rand_voi), by loops over pairs of ids; truth 0 does not count."""
    pairs = [(a, b) for a, b in zip(truth.tolist(), test.tolist(), strict=True) if a]
    counts = [Counter(part) for part in (pairs, (a for a, _ in pairs), (b for _, b in pairs))]
    squares = [sum(n * n for n in count.values()) for count in counts]
    h_ab, h_a, h_b = (-sum(n / len(pairs) * math.log2(n / len(pairs)) for n in count.values()) for count in counts)
    return {
        "rand_split": squares[0] / squares[1],
        "rand_merge": squares[0] / squares[2],
        "voi_split": h_ab - h_a,
        "voi_merge": h_ab - h_b,
        "nvi_split": (h_ab - h_a) / h_ab,
        "nvi_merge": (h_ab - h_b) / h_ab,
        "nid": 1 - (h_a + h_b - h_ab) / max(h_a, h_b),
    }


@pytest.fixture
def traced(tmp_path):
    """Random fragments, three skeletons of which one has the id 0, and a lookup table; no labels."""
    rng = np.random.default_rng(3)
    fragments = rng.integers(0, 12, (6, 20, 20)).astype(np.uint64)
    volume = create_volume(tmp_path / "v.zarr/fragments", fragments.shape, np.uint64, (10, 10, 10), (0, 0, 0))
    volume.write(volume.roi, fragments)
    positions = rng.uniform(0, 1, (90, 3)) * (60, 200, 200)
    names = np.repeat([0, 5, 9], 30)
    first = np.arange(89)
    edges = np.stack([first, first + 1], axis=1)[names[1:] == names[:-1]]
    synapse = rng.random(90) < 0.3
    skeletons = Skeletons(np.arange(90), names, positions, np.ones(90), edges, synapse=synapse)
    tables = {0.1: {i: i for i in range(1, 12)}, 0.4: {i: 1 + i // 4 for i in range(1, 12)}}
    lookup = write_lookup(tmp_path / "lookup", tables)
    segments = {t: np.vectorize({0: 0, **table}.get)(fragments) for t, table in tables.items()}
    nodes = tuple((positions // 10).astype(int).T)
    return volume, skeletons, lookup, {t: voxels[nodes] for t, voxels in segments.items()}


def test_nodes_are_scored_without_labels_as_the_published_evaluation_does(traced, tmp_path):
    fragments, skeletons, lookup, expected = traced
    compared = compare(fragments, GroundTruth(None, None, skeletons), fragments.roi, tmp_path / "c")
    evaluation = score_thresholds(compared, lookup)
    assert (evaluation.of_nodes, evaluation.scored, evaluation.table.voxels) == (True, "skeleton nodes", 90)
    for row in evaluation.rows:
        segments = expected[row["threshold"]]
        of_nodes = funlib_rand_voi(skeletons.skeleton + 1, segments)
        assert {name: row[name] for name in of_nodes} == pytest.approx(of_nodes, abs=1e-12)
        split, merge = skimage.metrics.variation_of_information(skeletons.skeleton + 1, segments)
        assert (row["node_voi_split"], row["node_voi_merge"]) == pytest.approx((split, merge))
        marked = funlib_rand_voi((skeletons.skeleton + 1)[skeletons.synapse], segments[skeletons.synapse])
        assert row["synapse_voi_split"] == pytest.approx(marked["voi_split"])
        assert row["synapse_voi_merge"] == pytest.approx(marked["voi_merge"])
        assert row["erl"] is not None


def test_nodes_are_scored_beside_labels_and_labels_decide_on_the_best(scene, compared):
    _, truth, lookup, tables = scene
    for row in score_thresholds(compared, lookup).rows:
        segments = np.array([tables[row["threshold"]][11 + i // 2] for i in range(16)])
        of_nodes = funlib_rand_voi(truth.skeletons.skeleton, segments)
        assert row["node_voi_split"] == pytest.approx(of_nodes["voi_split"])
        assert row["node_voi_merge"] == pytest.approx(of_nodes["voi_merge"])
        assert row["synapse_voi_split"] is None


def test_published_pair_scores_of_voxels(scene, compared):
    fragments, truth, lookup, tables = scene
    for row in score_thresholds(compared, lookup).rows:
        segmentation = np.vectorize(tables[row["threshold"]].get)(fragments.read())
        of_voxels = funlib_rand_voi(truth.labels.read().ravel(), segmentation.ravel())
        assert {name: row[name] for name in of_voxels} == pytest.approx(of_voxels, abs=1e-12)


@pytest.mark.parametrize(("table", "warning"), [
    (dict.fromkeys(range(11, 19), 7), "One segment holds 100% of the labelled voxels of 2 neurons"),
    ({i: i for i in range(11, 19)}, "Each of the 8 fragments is a segment of its own"),
    ({i: 7 if i < 15 else 9 for i in range(11, 19)}, None),
    (dict.fromkeys(range(11, 19), 0), "None of the labelled voxels lies in a segment"),
])  # fmt: skip
def test_a_best_segmentation_that_is_none_is_told(scene, compared, tmp_path, table, warning):
    found = score_thresholds(compared, write_lookup(tmp_path / "one", {0.3: table}))
    assert (found.warning is None) == (warning is None)
    assert warning is None or found.warning.startswith(warning)
    assert found.warning is None or found.warning.rstrip(".") in found.headline
    write_scores(tmp_path / "out", found, {})
    assert json.loads((tmp_path / "out/scores.json").read_text())["warning"] == found.warning


def test_scores_are_written_as_numbers_that_read_back(scene, compared, tmp_path):
    _, _, lookup, _ = scene
    found = score_thresholds(compared, lookup)
    write_scores(tmp_path / "out", found, {"seed": 3})
    with open(tmp_path / "out/scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(json.loads((tmp_path / "out/scores.json").read_text())["best"]) == COLUMNS
    assert [float(row["threshold"]) for row in rows] == THRESHOLDS
    assert float(rows[1]["erl"]) == found.rows[1]["erl"]
    best = json.loads((tmp_path / "out/scores.json").read_text())
    assert (best["threshold"], best["best"]["voi_sum"], best["roi"]) == (0.29, 0, "0:60,0:80,0:160")
    assert best["provenance"] == {"seed": 3}
    assert "lookup_digest" not in best, "a segmentation was scored"
    write_scores(tmp_path / "out", found, {}, lookup)
    best = json.loads((tmp_path / "out/scores.json").read_text())
    assert best["lookup_digest"] == lookup_digest(lookup)


def test_tables_of_another_run_are_refused(scene, tmp_path):
    fragments, _, lookup, _ = scene
    write_json(tmp_path / "v.zarr.manifest.json", {"digest": "of the fragments"})
    check_lookup(lookup, fragments)
    (tmp_path / "edges").mkdir()
    write_json(manifest_path(tmp_path / "edges"), {"settings": {}, "blocks": 1, "fragments_digest": "of others"})
    with pytest.raises(BadInput, match=r"edges: was made from other fragments than .*lookup"):
        check_lookup(lookup, fragments, tmp_path / "edges")
    write_json(tmp_path / "v.zarr.manifest.json", {"digest": "of others"})
    with pytest.raises(BadInput, match=r"lookup: was made from other fragments than .*v\.zarr/fragments"):
        check_lookup(lookup, fragments)


def test_a_lookup_table_without_some_fragments_is_refused(compared, tmp_path):
    lookup = write_lookup(tmp_path / "other", {0.3: {11: 1, 12: 1}})
    with pytest.raises(BadInput, match=r"other, threshold 0\.3: .*no segment for 6 fragments, 13 the first"):
        score_thresholds(compared, lookup)


def test_a_lookup_table_without_numbers_is_refused(compared, tmp_path):
    lookup = write_lookup(tmp_path / "other", {0.3: dict.fromkeys(range(11, 19), 1)})
    columns = {"fragment": np.arange(11, 19, dtype=np.uint64), "0.3": np.full(8, np.nan)}
    pyarrow.parquet.write_table(pyarrow.table(columns), lookup / "segments.parquet")
    with pytest.raises(BadInput, match=r"other, threshold 0\.3: holds float64, expected the id"):
        score_thresholds(compared, lookup)


def test_a_lookup_table_without_thresholds_is_refused(scene, tmp_path):
    lookup = write_lookup(tmp_path / "other", {0.3: {11: 1}})
    pyarrow.parquet.write_table(pyarrow.table({"fragment": [11]}), lookup / "segments.parquet")
    with pytest.raises(BadInput, match="other: holds no threshold"):
        check_lookup(lookup, scene[0])


def write_edges(folder, scores):
    """A chain of the eight fragments."""
    folder.mkdir()
    u = np.arange(11, 18, dtype=np.uint64)
    columns = {"u": u, "v": u + np.uint64(1), "score": np.array(scores, np.float32), "contact": np.ones(7, np.int64)}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "0.parquet")
    write_json(manifest_path(folder), {"settings": {}, "blocks": 1, "fragments_digest": "of the fragments"})
    return folder


def test_edges_that_the_lookup_was_not_made_from_are_refused(scene, tmp_path):
    """The same fragments, agglomerated with another merge function or over other affinities."""
    fragments, _, _, tables = scene
    own, others = write_edges(tmp_path / "own", [0.3] * 7), write_edges(tmp_path / "others", [0.3] * 6 + [0.4])
    lookup = write_lookup(tmp_path / "made", tables, edges_digest=edges_digest(own))
    check_lookup(lookup, fragments, own)
    with pytest.raises(BadInput, match=r"others: .*made was made from other edges; give those, or find the segments"):
        check_lookup(lookup, fragments, others)
    manifest_path(own).unlink()
    with pytest.raises(BadInput, match="own: no graph there"):
        check_lookup(lookup, fragments, own)


def test_edges_of_a_lookup_of_an_earlier_version(scene, tmp_path):
    """Its record tells the names and sizes of the tables of edges."""
    fragments, _, _, tables = scene
    own, others = write_edges(tmp_path / "own", [0.3] * 7), write_edges(tmp_path / "others", np.linspace(0.1, 0.9, 7))
    inputs = {"edges": {"path": "graph/edges", "checksum": fingerprint(own)}}
    lookup = write_lookup(tmp_path / "made", tables, inputs=inputs)
    check_lookup(lookup, fragments, own)
    with pytest.raises(BadInput, match=r"others: .*made was made from other edges"):
        check_lookup(lookup, fragments, others)
    check_lookup(write_lookup(tmp_path / "silent", tables, inputs={"edges": 3}), fragments, others)


def test_edits_are_counted_at_the_best_threshold_or_at_all(scene, compared, tmp_path):
    _, _, lookup, _ = scene
    edges = write_edges(tmp_path / "edges", [0.28, 0.29, 0.28, 0.5, 0.28, 0.29, 0.28])
    found = score_thresholds(compared, lookup)
    best = add_edits(found, compared, lookup, edges, every=False)
    assert [(row["splits_needed"], row["merges_needed"]) for row in best.rows] == [(None, None)] * 2 + [
        (0, 0),
        (None, None),
    ]
    assert best.best is best.rows[2]
    every = add_edits(found, compared, lookup, edges, every=True)
    assert [(row["splits_needed"], row["joins_needed"]) for row in every.rows] == [(0, 6), (0, 2), (0, 0), (1, 0)]
    assert [row["merges_needed"] for row in every.rows] == [4, 0, 0, 0]
    assert [row["unsplittable"] for row in every.rows] == [0] * 4


def test_edits_without_skeletons_or_with_scores_that_are_no_numbers(scene, compared, tmp_path):
    fragments, truth, lookup, _ = scene
    found = score_thresholds(compared, lookup)
    edges = write_edges(tmp_path / "edges", [np.nan] + [0.3] * 6)
    with pytest.raises(BadInput, match="edges: 1 edges score NaN"):
        add_edits(found, compared, lookup, edges, every=False)
    alone = compare(fragments, GroundTruth(truth.labels), fragments.roi, tmp_path / "alone")
    with pytest.raises(BadInput, match="edits are counted by skeletons"):
        add_edits(found, alone, lookup, edges, every=False)


def test_errors_are_written_with_their_positions(tmp_path):
    errors = [SplitMergeError("split", 9, 0.5, 1, 2, 3, (8, 16, 24), True), SplitMergeError("merge", 4, 1 / 3, 5, 6, 7)]
    write_errors(tmp_path / "errors.csv", errors)
    with open(tmp_path / "errors.csv", newline="") as file:
        split, merge = csv.DictReader(file)
    assert (split["other_segment"], split["other_label"], split["z"], split["touching"]) == ("3", "", "8", "1")
    assert (merge["other_segment"], merge["other_label"], merge["z"], merge["share"]) == ("", "7", "", "0.333333")
