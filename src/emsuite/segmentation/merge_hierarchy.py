"""Hierarchical agglomeration: which fragments touch, over how many voxel faces, and at which threshold they merge.

    fragments + affinities -> region adjacency graph -> waterz merges the most similar regions first -> edge scores

The score of an edge is the threshold at which its two fragments become one segment, over this edge or over others. So
the segments at a threshold are the connected components of all edges whose score is not above it. An edge scores
infinity if waterz never merges its two fragments.

waterz prints its progress to standard output, from Python and from C++. A program whose standard output matters calls
these functions within `emsuite.common.process.silent_stdout`, as the stage scripts and their workers do.

Source: Funke et al. 2018 (https://github.com/funkey/waterz); merge functions as in Sheridan et al. 2022.
"""

from typing import Any

import numba
import numpy as np

from emsuite.segmentation.region_graph import Edges

_HISTOGRAM = "OneMinus<HistogramQuantileAffinity<RegionGraphType, {}, ScoreValue, 256, {}>>"
MERGE_FUNCTIONS = {
    "mean": "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>",
    **{f"hist_quant_{q}": _HISTOGRAM.format(q, "false") for q in (10, 25, 50, 75, 90)},
    **{f"hist_quant_{q}_initmax": _HISTOGRAM.format(q, "true") for q in (10, 25, 50, 75, 90)},
}
"""Scoring functions of waterz by name: 1 - the mean, or 1 - a quantile, of the affinities between two regions.

`initmax` starts with the maximum between two fragments. To add a function, name it here and in
`settings.MergeFunction`.
"""

_QUEUE_BINS = 256


def score_edges(affs: np.ndarray, fragments: np.ndarray, merge_function: str) -> Edges:
    """Return the edges of the region adjacency graph with their scores.

    Args:
        affs: (3, Z, Y, X) uint8, 0 to 255 stands for 0 to 1; the channels are those of NEAR.
        fragments: (Z, Y, X) integers, from 1 to the number of fragments; 0 is background.
        merge_function: A name in MERGE_FUNCTIONS.

    Returns:
        The edges, sorted by u, then v.
    """
    u, v, contact = find_contacts(fragments)
    if u.size == 0:  # waterz fails without fragments
        return Edges(u.astype(np.uint64), v.astype(np.uint64), np.empty(0, np.float32), contact)
    a, b, score = merge_history(affs, fragments, merge_function, threshold=1.0)
    parent, height = _merge_forest(int(fragments.max(initial=0)) + 1, a, b, np.maximum.accumulate(score))
    return Edges(u.astype(np.uint64), v.astype(np.uint64), _merge_scores(u, v, parent, height), contact)


def score_edges_in_sections(affs: np.ndarray, fragments: np.ndarray, merge_function: str) -> Edges:
    """Return the edges between fragments of the same z-section, with their scores in this section alone.

    Arguments and order are those of `score_edges`; each fragment lies in one section.
    """
    each = []
    for z in range(fragments.shape[0]):
        # few ids, in the order of the volume's; 0 is always the first
        ids, section = np.unique(np.append(fragments[z], fragments.dtype.type(0)), return_inverse=True)
        section = section[:-1].reshape(1, *fragments.shape[1:])
        edges = score_edges(affs[:, z : z + 1], section.astype(np.uint32), merge_function)
        each.append((np.stack([ids[edges.u], ids[edges.v]]).astype(np.uint64), edges.score, edges.contact))
    ends, score, contact = (np.concatenate(parts, axis=-1) for parts in zip(*each, strict=True))
    u, v = ends.min(axis=0), ends.max(axis=0)
    order = np.lexsort((v, u))
    return Edges(u[order], v[order], score[order], contact[order])


def merge_regions(affs: np.ndarray, fragments: np.ndarray, merge_function: str, threshold: float) -> np.ndarray:
    """Return `fragments` after all merges below `threshold`; a merged region has the id of one of its fragments.

    Arguments are those of `score_edges`; `threshold` is from 0 to 1.
    """
    if not fragments.any():  # waterz fails without fragments
        return fragments
    (merged,) = _waterz(affs, fragments, merge_function, threshold)
    return merged


def find_contacts(fragments: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find all pairs of fragments that share voxel faces; background (0) has no contacts.

    Returns:
        Ids u < v, (E,) int64 each, sorted by u, then v; and the number of shared faces, (E,) int64.
    """
    base = int(fragments.max(initial=0)) + 1
    keys, contact = np.unique(_faces(fragments.astype(np.uint32, copy=False), base), return_counts=True)
    return keys // base, keys % base, contact


def merge_history(
    affs: np.ndarray, fragments: np.ndarray, merge_function: str, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the merges of waterz below `threshold`, in the order in which waterz makes them.

    Returns:
        The two regions of each merge, (M,) int64 each, named by the id of one of their fragments; and its score,
        (M,) float32.
    """
    ((_, history),) = _waterz(affs, fragments, merge_function, threshold, return_merge_history=True)
    return (
        np.array([merge["a"] for merge in history], np.int64),
        np.array([merge["b"] for merge in history], np.int64),
        np.array([merge["score"] for merge in history], np.float32),
    )


def _waterz(
    affs: np.ndarray, fragments: np.ndarray, merge_function: str, threshold: float, **options: Any
) -> list[Any]:
    import waterz

    return list(
        waterz.agglomerate(
            affs=np.divide(affs, 255, dtype=np.float32),
            thresholds=[threshold],
            fragments=fragments.astype(np.uint64, order="C"),  # a copy, because waterz writes into it
            scoring_function=MERGE_FUNCTIONS[merge_function],
            discretize_queue=_QUEUE_BINS,
            **options,
        )
    )


@numba.njit(cache=True, nogil=True)
def _faces(labels: np.ndarray, base: int) -> np.ndarray:
    """Return u * base + v for every face between voxels of two fragments u < v; background (0) has no faces."""
    keys = []
    for z in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                label = np.int64(labels[z, y, x])
                if label == 0:
                    continue
                for axis in range(3):
                    if (z, y, x)[axis] == 0:
                        continue
                    previous = np.int64(labels[z - (axis == 0), y - (axis == 1), x - (axis == 2)])
                    if previous != label and previous != 0:
                        keys.append(min(label, previous) * base + max(label, previous))
    return np.array(keys, dtype=np.int64)


@numba.njit(cache=True)
def _merge_forest(nodes: int, a: np.ndarray, b: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the parent of each node, and the score of the merge that linked the node to it.

    Each merge links the root of the smaller tree below the root of the larger one, so that trees stay shallow. The
    score of a root is infinity.
    """
    parent, height, size = np.arange(nodes), np.full(nodes, np.inf, np.float32), np.ones(nodes, np.int64)
    for i in range(a.size):
        u, v = a[i], b[i]
        while parent[u] != u:
            u = parent[u]
        while parent[v] != v:
            v = parent[v]
        if size[u] > size[v]:
            u, v = v, u
        parent[u] = v
        height[u] = score[i]
        size[v] += size[u]
    return parent, height


@numba.njit(cache=True)
def _merge_scores(u: np.ndarray, v: np.ndarray, parent: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return the score at which u[i] and v[i] came into one tree, for every i; infinity if they never did."""
    scores = np.empty(u.size, np.float32)
    for i in range(u.size):
        a, b = u[i], v[i]
        score = np.float32(-np.inf)
        while a != b:
            # heights grow towards the root, so the lower of the two steps is the earlier merge
            if height[a] > height[b]:
                a, b = b, a
            score = max(score, height[a])
            if parent[a] == a:
                break
            a = parent[a]
        scores[i] = score
    return scores
