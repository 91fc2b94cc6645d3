"""The stage that finds segments: the connected components of the region adjacency graph at every threshold of a sweep.

    reads     the folders of nodes and of edges, see `graph_tables`
    writes    out/segments.parquet    fragment  0.0  0.02  0.04 ...     a column per threshold: the segment of each
                                             7    7     3     3         fragment, named by the smallest id among
                                                                        the segment's fragments

All thresholds come from one pass over the edges in ascending order: segments only grow with the threshold.
The manifest beside `out` carries the digests of the nodes, which tells the fragments, and of the edges, and the merge
function.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.files import sha256
from emsuite.common.outputs import check_finished, output, read_manifest
from emsuite.io.relabel import find_sorted
from emsuite.io.tables import column_names, read_columns, write_columns
from emsuite.io.volume import fingerprint
from emsuite.segmentation.graph_tables import edges_digest, graph_manifest, read_edges, read_nodes
from emsuite.segmentation.region_graph import Edges

_TABLE = "segments.parquet"
_FRAGMENT = "fragment"


def components(fragments: np.ndarray, edges: Edges, thresholds: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
    """Yield each threshold, in ascending order, with the segments at that threshold.

    A segment is a connected component of the edges whose score is not above the threshold. The id of a segment is the
    smallest id among its fragments.

    Args:
        fragments: (N,) uint64, the ids of all fragments, ascending, without 0.
        edges: The scored contacts of these fragments.
        thresholds: In any order; each is yielded once.

    Yields:
        A threshold, and the segment of each of `fragments` as (N,) uint64.

    Raises:
        BadInput: If an edge ends at a fragment that is not in `fragments`.
    """
    u, v = _indices(fragments, edges.u), _indices(fragments, edges.v)
    order = np.argsort(edges.score, kind="stable")
    u, v, score = u[order], v[order], edges.score[order]
    parent = np.arange(fragments.size)
    begin = 0
    for threshold in sorted(set(thresholds)):
        # scores are float32: a threshold of 0.28 as float64 would lie just below an edge that scores 0.28
        end = int(np.searchsorted(score, np.float32(threshold), side="right"))
        _unite(parent, u[begin:end], v[begin:end])
        begin = end
        yield threshold, fragments[parent]


def find_segments(nodes: Path, edges: Path, out: Path, thresholds: Sequence[float]) -> dict[float, int]:
    """Write the lookup table of a graph to the folder `out`; return the number of segments per threshold.

    Args:
        nodes, edges: The folders of tables of one graph.
        out: The folder for the lookup table.
        thresholds: The scores up to which edges join fragments, 0 to 1.

    Raises:
        BadInput: If the graph is unfinished, or if the edges were made from other fragments than the nodes.
    """
    nodes_manifest, edges_manifest = graph_manifest(nodes), graph_manifest(edges)
    if "digest" not in nodes_manifest or nodes_manifest["digest"] != edges_manifest.get("fragments_digest"):
        raise BadInput(f"{edges}: was made from other fragments than {nodes}; agglomerate these first")
    settings = {"thresholds": [float(t) for t in thresholds], "fragments_digest": nodes_manifest["digest"]}
    with output(out, settings, inputs={"nodes": nodes, "edges": edges}, fingerprint=fingerprint) as lookup:
        lookup.claim()
        fragments = read_nodes(nodes).id
        columns, counts = {_FRAGMENT: fragments}, {}
        for threshold, segments in components(fragments, read_edges(edges), thresholds):
            columns[_column(threshold)] = segments
            counts[threshold] = int(np.count_nonzero(segments == fragments))
        write_columns(out / _TABLE, columns)
        merge_function = edges_manifest["settings"].get("merge_function")
        lookup.notes |= {"fragments_digest": nodes_manifest["digest"], "edges_digest": edges_digest(edges)}
        lookup.notes["merge_function"] = merge_function
    return counts


def read_thresholds(lookup: Path) -> list[float]:
    """Return the thresholds of the lookup table in the folder `lookup`, ascending; raise BadInput without one."""
    lookup_manifest(lookup)
    try:
        return [float(name) for name in column_names(lookup / _TABLE) if name != _FRAGMENT]
    except ValueError:
        raise BadInput(f"{lookup / _TABLE}: its columns are no thresholds, expected a table of find_segments") from None


def read_lookup(lookup: Path, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the lookup table at one threshold.

    Returns:
        The ids of all fragments, (N,) uint64, ascending, and the segment of each, (N,) uint64.

    Raises:
        BadInput: If the folder holds no lookup table, or none for this threshold.
    """
    thresholds = read_thresholds(lookup)
    if threshold not in thresholds:
        nearest = min(thresholds, key=lambda other: abs(other - threshold))
        raise BadInput(
            f"{lookup}: has no table for threshold {threshold}, only for {len(thresholds)} from {thresholds[0]} to "
            f"{thresholds[-1]}; the nearest is {nearest}"
        )
    fragments, segments = read_columns(lookup / _TABLE, [_FRAGMENT, _column(threshold)])
    return fragments, segments


def lookup_digest(lookup: Path) -> str:
    """Return a SHA-256 digest of the lookup tables at all thresholds, and of the fragments that they were made from."""
    made_from = lookup_manifest(lookup)["fragments_digest"]
    return hashlib.sha256(f"{made_from} {sha256(lookup / _TABLE)}".encode("utf-8", "surrogatepass")).hexdigest()


def lookup_manifest(lookup: Path) -> Mapping[str, Any]:
    """Return the manifest of a folder of lookup tables; raise BadInput if there is none."""
    check_finished(lookup)
    manifest = read_manifest(lookup, settings=dict, fragments_digest=str, merge_function=str)
    if not manifest or not (lookup / _TABLE).exists():
        raise BadInput(f"{lookup}: no lookup tables there, expected a folder that find_segments wrote")
    return manifest


def _column(threshold: float) -> str:
    return repr(float(threshold))


def _indices(fragments: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the index of each of `ids` in the sorted `fragments`."""
    indices, is_node = find_sorted(ids, fragments)
    if not is_node.all():
        raise BadInput(
            f"edges: {np.count_nonzero(~is_node)} end at fragments that no node table holds ({ids[~is_node][0]})"
        )
    return indices


def _unite(parent: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    """Join the trees of u[i] and v[i] in place, for every i.

    Before and after, the parent of every node is the smallest node of its tree, the root.

    Repeat until no edge joins two roots: link each root to the smallest root it shares an edge with, then compress all
    paths. A root that is a local minimum is linked in the next round, so two rounds at least halve the number of roots.
    """
    u, v = parent[u], parent[v]
    roots = np.unique(np.concatenate([u, v]))
    u, v = np.searchsorted(roots, u), np.searchsorted(roots, v)
    above = np.arange(roots.size)
    while (u != v).any():
        np.minimum.at(above, np.maximum(u, v), np.minimum(u, v))
        while (above[above] != above).any():
            above = above[above]
        u, v = above[u], above[v]
    parent[roots] = roots[above]
    parent[:] = parent[parent]
