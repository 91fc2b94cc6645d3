"""The min-cut metric: the number of edits of the region adjacency graph that correct a segmentation by its skeletons.

skeletons   o---o---o     o---o---o      if a segment lies under two skeletons, cut the graph of its fragments at the
fragments   1===2===3~~~~~4===5===6      cheapest edges (~): one split

skeleton    o---o   o---o   o---o        over 3 segments, with 2 edges between them: 1 merge by the published count
segments    1   1   2   2   3   3        (edges - 1), though 2 joins are needed
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

_FINEST = 2**20  # most steps of a capacity for a weight of 1
_LARGEST = 2**30  # upper limit of the flow out of a vertex


@dataclass(frozen=True)
class Edits:
    """The number of edits.

    `splits` are min-cuts. `merges` are counted as published, see `count_edits`; `joins` are the merges that in fact
    correct the segmentation. `unsplittable` fragments lie under several skeletons.
    """

    splits: int
    merges: int
    joins: int
    unsplittable: int


def count_edits(
    skeletons: Skeletons, fragments: np.ndarray, segments: np.ndarray, edges: Edges, threshold: float
) -> Edits:
    """Count the edits that correct a segmentation (Sheridan et al. 2022, Nature Methods 20:295, min-cut metric).

    This follows the authors' scripts (funkelab/lsd_experiments, and `split_graph` of funlib.evaluate) as we read them:

    - For each segment under several skeletons, take the graph of its fragments: the edges with scores up to the
      threshold, weighted 1 - score.
    - A fragment under several skeletons cannot be split. It is counted, and its nodes are left out.
    - As long as a part of the graph holds nodes of several skeletons, take the two skeletons with most nodes in it. Cut
      the part by the min-cut between the fragments of their two closest nodes. Each cut is a split.
    - Merges, as published, are the edges beyond the first of each skeleton that join two segments, and the merges that
      rejoin what the cuts took apart. A skeleton over two segments with one edge between them counts 0.
    - Joins are the segments beyond the first under each skeleton, and the merges that rejoin what the cuts took apart.
    - If the border of the region cuts a skeleton in pieces, the pieces need no join between them, and no split.
    - Segment 0 is no segment.

    Args:
        skeletons: The skeletons in the region.
        fragments: The fragment (uint64, (N,)) under each node.
        segments: The segment (uint64, (N,)) under each node at `threshold`.
        edges: The region adjacency graph; it may hold more fragments than these segments'.
        threshold: The threshold of the agglomeration.

    Raises:
        BadInput: The skeletons have no edges.
    """
    joins = expected_run_length(skeletons, segments).splits
    splits = rejoined = 0
    _, skeleton = np.unique(skeletons.skeleton, return_inverse=True)
    unsplittable = _under_several(fragments, skeleton)
    ends = np.flatnonzero(np.isin(segments, _under_several(segments, skeleton)) & ~np.isin(fragments, unsplittable))
    for in_component, vertex, capacities in _components(fragments[ends], edges, threshold):
        nodes = ends[in_component]
        part, cuts = _split(capacities, vertex, skeleton[nodes], skeletons.positions[nodes])
        splits += cuts
        piece = skeletons.pieces[nodes]
        rejoined += np.unique(np.stack([piece, part]), axis=1).shape[1] - np.unique(piece).size
    merges = _split_edges_beyond_the_first(skeletons, segments)
    return Edits(splits, merges + rejoined, joins + rejoined, unsplittable.size)


def _split_edges_beyond_the_first(skeletons: Skeletons, segments: np.ndarray) -> int:
    # summed over the skeletons that have edges between two segments
    near, far = segments[skeletons.ends].T
    is_split = (near != far) & (near != 0) & (far != 0)
    _, edges = np.unique(skeletons.skeleton[skeletons.ends[is_split, 0]], return_counts=True)
    return int((edges - 1).sum())


def _under_several(ids: np.ndarray, skeleton: np.ndarray) -> np.ndarray:
    # the ids, except 0, of nodes of several skeletons
    nonzero = ids != 0
    distinct, index = np.unique(ids[nonzero], return_inverse=True)
    width = int(skeleton.max()) + 1
    pairs = np.unique(index * width + skeleton[nonzero])
    return distinct[np.bincount(pairs // width, minlength=distinct.size) > 1]


def _components(
    fragments: np.ndarray, edges: Edges, threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray, csr_array]]:
    # yield each connected component that holds some of `fragments`: their indices, the vertex of each, and the
    # symmetric capacities between vertices
    merged = edges.score <= np.float32(threshold)
    ends = np.concatenate([edges.u[merged], edges.v[merged]])
    vertices, index = np.unique(np.concatenate([ends, fragments]), return_inverse=True)
    u, v, own = np.split(index, [ends.size // 2, ends.size])
    weight = 1 - edges.score[merged].astype(np.float64)
    graph = csr_array((weight, (u, v)), shape=(vertices.size, vertices.size))
    component = connected_components(graph, directed=False)[1]
    by_component = np.argsort(component, kind="stable")
    first = np.searchsorted(component[by_component], np.arange(component.max(initial=-1) + 2))
    index_in_component = np.empty(vertices.size, np.int64)
    for number in np.unique(component[own]):
        members = by_component[first[number] : first[number + 1]]
        index_in_component[members] = np.arange(members.size)
        in_component = np.flatnonzero(component[own] == number)
        yield in_component, index_in_component[own[in_component]], _capacities(graph[members][:, members])


def _capacities(weights: csr_array) -> csr_array:
    # SciPy's flows need integers: as fine as possible, but the flow out of a vertex must not exceed 32 bits
    both = csr_array(weights + weights.T)
    steps = min(_FINEST, _LARGEST / max(both.sum(axis=0).max(initial=0), 1))
    both.data = np.maximum(np.rint(both.data * steps), 1).astype(np.int32)
    return both


def _split(
    capacities: csr_array, vertex: np.ndarray, skeleton: np.ndarray, positions: np.ndarray
) -> tuple[np.ndarray, int]:
    # the part (from 0 up) that each node ends up in, and the number of cuts
    part = np.zeros(vertex.size, np.int64)
    whole = (np.arange(capacities.shape[0]), np.arange(vertex.size))
    waiting, cuts = [whole], 0
    while waiting:
        members, nodes = waiting.pop()
        names, count = np.unique(skeleton[nodes], return_counts=True)
        if names.size < 2:
            continue
        most, second = (nodes[skeleton[nodes] == name] for name in names[np.argsort(count, kind="stable")[:-3:-1]])
        distance, nearest = KDTree(positions[most]).query(positions[second])
        ends = most[nearest[distance.argmin()]], second[distance.argmin()]
        source, sink = np.searchsorted(members, vertex[list(ends)])
        beyond = _beyond_the_cut(csr_array(capacities[members][:, members]), int(source), int(sink))
        cuts += 1
        far = beyond[np.searchsorted(members, vertex[nodes])]
        part[nodes[far]] = cuts
        waiting += [(members[~beyond], nodes[~far]), (members[beyond], nodes[far])]
    return part, cuts


def _beyond_the_cut(capacities: csr_array, source: int, sink: int) -> np.ndarray:
    # the vertices on the sink's side of the min-cut: those from which more could flow to the sink
    residual = capacities - maximum_flow(capacities, source, sink).flow
    residual.eliminate_zeros()
    beyond = np.zeros(capacities.shape[0], bool)
    beyond[breadth_first_order(csr_array(residual.T), sink, return_predecessors=False)] = True
    return beyond
