import networkx
import numpy as np
import pytest

from emsuite.evaluation.min_cut import Edits, count_edits
from emsuite.io.skeletons import Skeletons
from emsuite.segmentation.region_graph import Edges


def chain(*skeletons):
    """A skeleton per list of positions along x, in nm; nodes are numbered through."""
    along = np.concatenate([np.array(positions, float) for positions in skeletons])
    names = np.repeat(np.arange(1, len(skeletons) + 1), [len(positions) for positions in skeletons])
    first = np.arange(along.size - 1)
    edges = np.stack([first, first + 1], axis=1)[names[:-1] == names[1:]]
    positions = np.stack([names * 7.0, 0 * along, along], axis=1)
    return Skeletons(np.arange(along.size), names, positions, np.ones(along.size), edges)


def graph(*edges):
    u, v, score = (np.array(column) for column in zip(*edges, strict=True))
    return Edges(u.astype(np.uint64), v.astype(np.uint64), score.astype(np.float32), np.ones(u.size, np.int64))


def edits(skeletons, fragments, segments, edges, threshold=0.5):
    found = count_edits(skeletons, np.array(fragments, np.uint64), np.array(segments, np.uint64), edges, threshold)
    return found.splits, found.joins, found.unsplittable


ROW = graph((1, 2, 0.1), (2, 3, 0.1), (3, 4, 0.4), (4, 5, 0.1), (5, 6, 0.1))
TWO = chain([0, 10, 20], [30, 40, 50])


def test_a_correct_segmentation_needs_none():
    assert edits(TWO, [1, 2, 3, 4, 5, 6], [1, 1, 1, 4, 4, 4], ROW, 0.3) == (0, 0, 0)


def test_a_skeleton_in_several_segments_needs_joins():
    assert edits(TWO, [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 5], ROW, 0.0) == (0, 3, 0)


def test_two_skeletons_in_a_segment_need_a_split_where_it_is_weakest():
    assert edits(TWO, [1, 2, 3, 4, 5, 6], [1] * 6, ROW) == (1, 0, 0)


def test_a_cut_at_the_wrong_place_costs_a_join():
    # the weakest edge lies within the first skeleton: its far end is cut off together with the second
    row = graph((1, 2, 0.1), (2, 3, 0.4), (3, 4, 0.1), (4, 5, 0.1), (5, 6, 0.1))
    # 1, 2 | 3 ... 6, then 3 | 4, 5, 6; and 2 with 3 again
    far = chain([0, 10, 20], [30, 40, 50])
    assert edits(far, [1, 2, 3, 4, 5, 6], [1] * 6, row) == (1, 0, 0)  # the closest nodes are 3 and 4
    far.positions[:3, 2] = [21, 10, 0]  # now they are 1 and 4
    assert edits(far, [1, 2, 3, 4, 5, 6], [1] * 6, row) == (2, 1, 0)


def test_edges_above_the_threshold_hold_nothing_together():
    row = graph((1, 2, 0.1), (2, 3, 0.1), (1, 3, 0.6), (3, 4, np.inf))
    assert edits(chain([0, 10], [20, 30]), [1, 1, 3, 3], [1] * 4, row) == (1, 0, 0)


def test_three_skeletons_in_a_segment_need_two_splits():
    star = graph((1, 4, 0.1), (2, 4, 0.2), (3, 4, 0.3))
    assert edits(chain([0, 5], [10, 15], [20, 25]), [1, 1, 2, 2, 3, 3], [1] * 6, star) == (2, 0, 0)


def test_a_fragment_under_two_skeletons_cannot_be_split():
    assert edits(TWO, [1, 2, 3, 3, 5, 6], [1] * 6, ROW) == (1, 0, 1)
    assert edits(TWO, [3] * 6, [1] * 6, ROW) == (0, 0, 1)
    assert edits(TWO, [3, 3, 3, 3, 5, 6], [1] * 6, ROW) == (0, 0, 1)


def test_segment_0_is_none():
    assert edits(TWO, [0, 2, 3, 4, 0, 0], [0, 1, 1, 1, 0, 0], ROW) == (1, 0, 0)
    assert edits(TWO, [0] * 6, [0] * 6, ROW) == (0, 0, 0)


def test_pieces_of_a_skeleton_need_no_join():
    cut = chain([0, 10, 20, 30, 40], [50, 60])
    cut = cut.subset(cut.ids != 2)
    row = graph((1, 6, 0.1), (6, 2, 0.4), (6, 7, 0.4))
    # the first skeleton's pieces lie in fragments 1 and 2, the second in 7: wherever it is cut, each piece stays whole
    assert edits(cut, [1, 1, 2, 2, 7, 7], [1] * 6, row)[1] == 0


def test_other_segments_do_not_matter():
    more = chain([0, 10, 20], [30, 40, 50], [60, 70])
    row = graph(*zip(ROW.u, ROW.v, ROW.score, strict=True), (7, 8, 0.2), (8, 9, 0.2))
    assert edits(more, [1, 2, 3, 4, 5, 6, 7, 8], [1] * 6 + [7] * 2, row) == (1, 0, 0)


@pytest.mark.parametrize(("segments", "merges", "joins"), [
    ([1, 1, 1, 1, 2, 2], 0, 1),
    ([1, 1, 2, 2, 3, 3], 1, 2),
    ([1, 2, 3, 4, 5, 5], 3, 4),
    ([1, 2, 1, 2, 1, 1], 3, 1),  # 4 edges between 2 segments
    ([1, 1, 1, 1, 1, 1], 0, 0),
    ([1, 0, 2, 2, 0, 0], 0, 1),  # an edge to segment 0 is none between segments
])  # fmt: skip
def test_merges_are_the_split_edges_beyond_the_first_as_published(segments, merges, joins):
    found = count_edits(chain(range(6)), np.array(segments), np.array(segments), ROW, 0.0)
    assert (found.merges, found.joins) == (merges, joins)


def test_published_merges_add_up_over_skeletons_and_what_cuts_took_apart():
    several = chain(range(4), range(100, 103))
    segments = np.array([1, 2, 3, 4, 5, 6, 6])
    assert count_edits(several, segments, segments, ROW, 0.0).merges == 2 + 0
    row = graph((1, 2, 0.1), (2, 3, 0.4), (3, 4, 0.1), (4, 5, 0.1), (5, 6, 0.1))
    far = chain([0, 10, 20], [30, 40, 50])
    far.positions[:3, 2] = [21, 10, 0]
    found = count_edits(far, np.arange(1, 7), np.ones(6, np.uint64), row, 0.5)
    assert (found.splits, found.merges, found.joins) == (2, 1, 1)


def reference(skeletons, fragments, segments, edges, threshold):
    """The same rules on networkx graphs, one recursion per part."""
    net = networkx.Graph()
    for u, v, score in zip(edges.u.tolist(), edges.v.tolist(), edges.score.tolist(), strict=True):
        if score <= threshold:
            net.add_edge(u, v, capacity=1 - score)
    owners = {f: set(skeletons.skeleton[fragments == f].tolist()) for f in fragments.tolist()}
    part = dict(enumerate(segments.tolist()))
    cuts = 0

    def cut(members, nodes):
        nonlocal cuts
        by_skeleton = {}
        for node in nodes:
            by_skeleton.setdefault(skeletons.skeleton[node], []).append(node)
        if len(by_skeleton) < 2:
            return
        one, other = sorted(by_skeleton.values(), key=len)[-2:]
        pairs = [(np.linalg.norm(skeletons.positions[a] - skeletons.positions[b]), a, b) for a in one for b in other]
        _, a, b = min(pairs)
        _, sides = networkx.minimum_cut(net.subgraph(members), int(fragments[a]), int(fragments[b]))
        cuts += 1
        for number, side in enumerate(sides):
            inside = [node for node in nodes if fragments[node] in side]
            part.update({node: (part[node], cuts, number) for node in inside})
            cut(side, inside)

    for members in list(networkx.connected_components(net)):
        ends = [n for n, f in enumerate(fragments.tolist()) if f in members and len(owners[f]) == 1]
        cut(members, ends)
    unsplittable = [f for f, names in owners.items() if len(names) > 1]
    parts = {
        (s, p)
        for n, (s, p) in enumerate(zip(skeletons.skeleton, part.values(), strict=True))
        if fragments[n] not in unsplittable
    } | {(s, ("whole", f)) for s, f in zip(skeletons.skeleton, fragments.tolist(), strict=True) if f in unsplittable}
    return cuts, parts, unsplittable


@pytest.mark.parametrize("seed", range(8))
def test_as_networkx_on_random_graphs(seed):
    rng = np.random.default_rng(seed)
    count, threshold = 60, 0.7
    skeletons = chain(*(np.sort(rng.choice(1000, n, replace=False)) for n in (9, 8, 7, 6)))
    u = rng.integers(1, count, 200)
    v = rng.integers(1, count, 200)
    pairs = np.unique(np.sort(np.stack([u[u != v], v[u != v]]), axis=0), axis=1)
    edges = graph(*zip(*pairs, rng.random(pairs.shape[1]), strict=True))
    fragments = rng.permutation(np.arange(1, count))[: skeletons.ids.size].astype(np.uint64)
    fragments[3] = fragments[-1]  # one that two skeletons share
    net = networkx.Graph([(int(a), int(b)) for a, b, s in zip(*edges[:3], strict=True) if s <= threshold])
    net.add_nodes_from(fragments.tolist())
    segment = {f: number for number, members in enumerate(networkx.connected_components(net), 1) for f in members}
    segments = np.array([segment[f] for f in fragments.tolist()], np.uint64)
    found = count_edits(skeletons, fragments, segments, edges, threshold)
    cuts, parts, unsplittable = reference(skeletons, fragments, segments, edges, threshold)
    assert (found.splits, found.unsplittable) == (cuts, len(unsplittable))
    assert found.splits >= 3
    in_segments = {(s, g) for s, g in zip(skeletons.skeleton, segments, strict=True)}
    own = [n for n, f in enumerate(fragments.tolist()) if f not in unsplittable]
    before = {(skeletons.skeleton[n], segments[n]) for n in own}
    after = [key for key in parts if not (isinstance(key[1], tuple) and key[1][0] == "whole")]
    assert found.joins == len(in_segments) - 4 + len(after) - len(before)
    ends = [(skeletons.skeleton[u], segments[u], segments[v]) for u, v in skeletons.edges]
    split = [name for name, u, v in ends if u != v]
    assert found.merges == len(split) - len(set(split)) + len(after) - len(before)
    assert isinstance(found, Edits)
