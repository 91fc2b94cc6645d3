"""The min-cut metric: how many edits of the region adjacency graph correct a segmentation, by its skeletons.

skeletons   o---o---o     o---o---o      a segment under two skeletons is cut in the graph of its fragments, where it is
fragments   1===2===3~~~~~4===5===6      cheapest (~): one split; a skeleton over n segments needs n - 1 merges
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, maximum_flow
from scipy.spatial import KDTree

from emsuite.evaluation.run_length import expected_run_length
from emsuite.io.skeletons import Skeletons
from emsuite.segmentation.region_graph import Edges

_FINEST = 2**20  # steps that a weight of 1 is divided into
_LARGEST = 2**30  # what may flow out of a vertex


@dataclass(frozen=True)
class Edits:
    """`splits` (min-cuts) and `merges` that are needed; `unsplittable` fragments lie under several skeletons."""

    splits: int
    merges: int
    unsplittable: int


def count_edits(
    skeletons: Skeletons, fragments: np.ndarray, segments: np.ndarray, edges: Edges, threshold: float
) -> Edits:
    """Count the edits that a segmentation at `threshold` needs; `fragments`, `segments`: uint64 (N,), under each node.

    Sheridan et al. 2022, Nature Methods 20:295 (min-cut metric), as the authors' scripts count (funkelab/
    lsd_experiments, and `split_graph` of funlib.evaluate). In our reading: of each segment that lies under several
    skeletons, take the graph of its fragments, with the edges that score no more than the threshold, weighted
    1 - score. A fragment under several skeletons cannot be split: it is counted, and its nodes are left out. As long as
    a part of the graph holds nodes of several skeletons, take the two with most nodes there, and cut it in two by the
    min-cut between the fragments of their closest nodes: a split each time. Merges are the segments beyond the first
    under each skeleton, and those that rejoin what the cuts took apart. A skeleton that the border of the region cut in
    pieces needs no merge between them, but its pieces need not be split. Segment 0 is no segment.

    `edges` may hold more than the segments' own. Raises BadInput without any edge of a skeleton.
    """
    merges = expected_run_length(skeletons, segments).splits
    splits = 0
    _, skeleton = np.unique(skeletons.skeleton, return_inverse=True)
    unsplittable = _several(fragments, skeleton)
    ends = np.flatnonzero(np.isin(segments, _several(segments, skeleton)) & ~np.isin(fragments, unsplittable))
    for here, vertex, capacities in _graphs(fragments[ends], edges, threshold):
        nodes = ends[here]
        part, cuts = _split(capacities, vertex, skeleton[nodes], skeletons.positions[nodes])
        splits += cuts
        piece = skeletons.pieces[nodes]
        merges += np.unique(np.stack([piece, part]), axis=1).shape[1] - np.unique(piece).size
    return Edits(splits, merges, unsplittable.size)


def _several(ids: np.ndarray, skeleton: np.ndarray) -> np.ndarray:
    # the ids, but 0, that come together with several skeletons
    known = ids != 0
    distinct, place = np.unique(ids[known], return_inverse=True)
    width = int(skeleton.max()) + 1
    pairs = np.unique(place * width + skeleton[known])
    return distinct[np.bincount(pairs // width, minlength=distinct.size) > 1]


def _graphs(
    fragments: np.ndarray, edges: Edges, threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray, csr_array]]:
    # each connected component under several of the fragments: their places, the vertex of each, symmetric capacities
    near = edges.score <= np.float32(threshold)
    ends = np.concatenate([edges.u[near], edges.v[near]])
    vertices, place = np.unique(np.concatenate([ends, fragments]), return_inverse=True)
    u, v, own = np.split(place, [ends.size // 2, ends.size])
    weight = 1 - edges.score[near].astype(np.float64)
    graph = csr_array((weight, (u, v)), shape=(vertices.size, vertices.size))
    component = connected_components(graph, directed=False)[1]
    by_component = np.argsort(component, kind="stable")
    first = np.searchsorted(component[by_component], np.arange(component.max(initial=-1) + 2))
    place_in = np.empty(vertices.size, np.int64)
    for number in np.unique(component[own]):
        members = by_component[first[number] : first[number + 1]]
        place_in[members] = np.arange(members.size)
        here = np.flatnonzero(component[own] == number)
        yield here, place_in[own[here]], _capacities(graph[members][:, members])


def _capacities(weights: csr_array) -> csr_array:
    # whole numbers, as SciPy's flows need them: fine, but what flows out of a vertex must not exceed 32 bits
    both = csr_array(weights + weights.T)
    steps = min(_FINEST, _LARGEST / max(both.sum(axis=0).max(initial=0), 1))
    both.data = np.maximum(np.rint(both.data * steps), 1).astype(np.int32)
    return both


def _split(
    capacities: csr_array, vertex: np.ndarray, skeleton: np.ndarray, positions: np.ndarray
) -> tuple[np.ndarray, int]:
    # the part that each node ends up in, numbered from 0 up, and how many cuts that took
    part = np.zeros(vertex.size, np.int64)
    whole = (np.arange(capacities.shape[0]), np.arange(vertex.size))
    waiting, cuts = [whole], 0
    while waiting:
        members, nodes = waiting.pop()
        names, count = np.unique(skeleton[nodes], return_counts=True)
        if names.size < 2:
            continue
        large, next_large = (nodes[skeleton[nodes] == name] for name in names[np.argsort(count, kind="stable")[:-3:-1]])
        distance, nearest = KDTree(positions[large]).query(positions[next_large])
        ends = large[nearest[distance.argmin()]], next_large[distance.argmin()]
        source, sink = np.searchsorted(members, vertex[list(ends)])
        beyond = _beyond_the_cut(csr_array(capacities[members][:, members]), int(source), int(sink))
        cuts += 1
        far = beyond[np.searchsorted(members, vertex[nodes])]
        part[nodes[far]] = cuts
        waiting += [(members[~beyond], nodes[~far]), (members[beyond], nodes[far])]
    return part, cuts


def _beyond_the_cut(capacities: csr_array, source: int, sink: int) -> np.ndarray:
    # which vertices lie on the sink's side of the min-cut: those from which more could flow there
    left = capacities - maximum_flow(capacities, source, sink).flow
    left.eliminate_zeros()
    beyond = np.zeros(capacities.shape[0], bool)
    beyond[breadth_first_order(csr_array(left.T), sink, return_predecessors=False)] = True
    return beyond
