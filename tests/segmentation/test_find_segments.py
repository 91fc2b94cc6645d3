import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path, output, unfinished_path
from emsuite.segmentation.find_segments import components, find_segments, lookup_manifest, read_lookup, read_thresholds
from emsuite.segmentation.graph_tables import edges_digest, write_block
from emsuite.segmentation.region_graph import Edges, Nodes
from emsuite.segmentation.settings import parse_thresholds


def edges(*rows):
    u, v, score = (np.array(column) for column in zip(*rows, strict=True))
    return Edges(u.astype(np.uint64), v.astype(np.uint64), score.astype(np.float32), np.ones(len(rows), np.int64))


@pytest.fixture
def graph(tmp_path):
    """A graph of fragments 3, 5, 8, 9 as folders of nodes and edges."""
    ids = np.array([3, 5, 8, 9], np.uint64)
    with output(tmp_path / "nodes", {}) as made:
        write_block(made.path, 0, Nodes(ids, *np.zeros((3, 4)), np.ones(4)))
        made.notes |= {"blocks": 1, "digest": "abc"}
    with output(tmp_path / "edges", {"merge_function": "mean"}) as made:
        write_block(made.path, 0, edges((5, 8, 0.28), (3, 8, 0.29), (8, 9, np.inf)))
        made.notes |= {"blocks": 1, "fragments_digest": "abc"}
    return tmp_path


def test_segments_are_components_named_by_their_smallest_fragment():
    random = np.random.default_rng(0)
    fragments = np.sort(random.choice(10**6, 300, replace=False) + 1).astype(np.uint64)
    pairs = np.sort(random.integers(0, 300, (400, 2)))
    score = random.choice(np.append(np.arange(256) / 256, np.inf), 400).astype(np.float32)
    graph = Edges(fragments[pairs[:, 0]], fragments[pairs[:, 1]], score, score)
    thresholds = [0.0, 0.25, 0.28125, 0.5, 0.9, 1.0]
    found = dict(components(fragments, graph, thresholds))
    assert list(found) == thresholds
    for threshold, segments in found.items():
        merged = pairs[score <= threshold]
        number, part = connected_components(coo_array((np.ones(len(merged)), merged.T), shape=(300, 300)))
        smallest = np.array([fragments[part == i].min() for i in range(number)])
        np.testing.assert_array_equal(segments, smallest[part])
    assert np.unique(found[0.9]).size < np.unique(found[0.5]).size < 300


def test_an_edge_merges_at_its_own_score_though_scores_are_float32():
    fragments = np.array([1, 2], np.uint64)
    for threshold in (0.02, 0.28, 0.29, 0.57, 0.58):
        (_, below), (_, at) = components(fragments, edges((1, 2, threshold)), [threshold - 0.01, threshold])
        assert below.tolist() == [1, 2]
        assert at.tolist() == [1, 1]


def test_edges_between_unknown_fragments_are_refused():
    with pytest.raises(BadInput, match=r"1 end at fragments that no node table holds \(7\)"):
        list(components(np.array([1, 2], np.uint64), edges((1, 2, 0.1), (2, 7, 0.1)), [0.5]))


def test_lookup_tables_are_keyed_by_the_threshold_itself(graph):
    thresholds = parse_thresholds("0.27,0.30,0.01")
    counts = find_segments(graph / "nodes", graph / "edges", graph / "lookup", thresholds)
    assert counts == {0.27: 4, 0.28: 3, 0.29: 2, 0.3: 2}
    assert read_thresholds(graph / "lookup") == thresholds
    for threshold, expected in {0.27: [3, 5, 8, 9], 0.28: [3, 5, 5, 9], 0.29: [3, 3, 3, 9]}.items():
        fragments, segments = read_lookup(graph / "lookup", threshold)
        assert fragments.tolist() == [3, 5, 8, 9]
        assert segments.tolist() == expected
        assert fragments.dtype == segments.dtype == np.uint64


def test_a_threshold_that_is_not_there_is_refused(graph):
    find_segments(graph / "nodes", graph / "edges", graph / "lookup", [0.1, 0.2])
    with pytest.raises(BadInput, match=r"no table for threshold 0.16, only for 2 from 0.1 to 0.2; the nearest is 0.2"):
        read_lookup(graph / "lookup", 0.16)


def test_edges_of_other_fragments_are_refused(graph):
    with output(graph / "edges", {"merge_function": "mean"}) as made:
        write_block(made.path, 0, edges((5, 8, 0.28)))
        made.notes |= {"blocks": 1, "fragments_digest": "other"}
    with pytest.raises(BadInput, match="was made from other fragments"):
        find_segments(graph / "nodes", graph / "edges", graph / "lookup", [0.5])
    assert not (graph / "lookup").exists()


def test_the_manifest_names_the_edges(graph):
    manifests = []
    for score in (0.28, 0.28, 0.29):
        write_block(graph / "edges", 0, edges((5, 8, score)))
        find_segments(graph / "nodes", graph / "edges", graph / "lookup", [0.5])
        manifests.append(lookup_manifest(graph / "lookup"))
        assert manifests[-1]["edges_digest"] == edges_digest(graph / "edges")
    first, again, other = (manifest["edges_digest"] for manifest in manifests)
    assert first == again != other


def test_an_interrupted_graph_leaves_no_tables(graph):
    manifest_path(graph / "edges").rename(unfinished_path(graph / "edges"))
    with pytest.raises(BadInput, match="edges: unfinished"):
        find_segments(graph / "nodes", graph / "edges", graph / "lookup", [0.5])
    with pytest.raises(BadInput, match="no lookup tables there"):
        read_thresholds(graph / "lookup")
