"""Segments: connected components of the region adjacency graph, at every threshold of a sweep, from one pass.

lookup/segments.parquet       fragment  0.0  0.02  0.04 ...      a column per threshold: the segment of each
                                     7    7     3     3          fragment, which is the smallest id among the
lookup.manifest.json                                             segment's fragments
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.outputs import check_finished, manifest_path, output, read_json
from emsuite.common.relabel import find_sorted
from emsuite.io.tables import column_names, read_columns, write_columns
from emsuite.io.volume import fingerprint
from emsuite.segmentation.graph_tables import graph_manifest, read_edges, read_nodes
from emsuite.segmentation.region_graph import Edges

_TABLE = "segments.parquet"
_FRAGMENT = "fragment"


def components(fragments: np.ndarray, edges: Edges, thresholds: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
    """Each threshold, ascending, with the segment (uint64) of each of `fragments` (uint64, sorted, without 0).

    A segment is a connected component of the edges that score no more than the threshold; its id is its smallest
    fragment. Raises BadInput for an edge whose ends are not among the fragments.
    """
    u, v = _places(fragments, edges.u), _places(fragments, edges.v)
    order = np.argsort(edges.score, kind="stable")
    u, v, score = u[order], v[order], edges.score[order]
    parent = np.arange(fragments.size)
    begin = 0
    for threshold in sorted(set(thresholds)):
        # scores are float32: compared as such, .02 is not just below an edge that merges at .02
        end = int(np.searchsorted(score, np.float32(threshold), side="right"))
        _unite(parent, u[begin:end], v[begin:end])
        begin = end
        yield threshold, fragments[parent]


def find_segments(nodes: Path, edges: Path, out: Path, thresholds: Sequence[float]) -> dict[float, int]:
    """Write the lookup tables of a graph (folders of nodes and of edges) to `out`; returns segments per threshold.

    Raises BadInput for a graph that is unfinished, and for edges between other fragments than the nodes.
    """
    origin, scored = graph_manifest(nodes), graph_manifest(edges)
    if origin.get("digest") != scored.get("fragments_digest"):
        raise BadInput(f"{edges}: was made from other fragments than {nodes}; agglomerate these first")
    settings = {"thresholds": [float(t) for t in thresholds], "fragments_digest": origin["digest"]}
    with output(out, settings, inputs={"nodes": nodes, "edges": edges}, fingerprint=fingerprint) as made:
        fragments = read_nodes(nodes).id
        columns, counts = {_FRAGMENT: fragments}, {}
        for threshold, segments in components(fragments, read_edges(edges), thresholds):
            columns[_column(threshold)] = segments
            counts[threshold] = int(np.count_nonzero(segments == fragments))
        write_columns(out / _TABLE, columns)
        made.notes |= {"fragments_digest": origin["digest"], "merge_function": scored["settings"]["merge_function"]}
    return counts


def read_thresholds(lookup: Path) -> list[float]:
    """The thresholds that a folder of lookup tables holds, ascending; raises BadInput if there are none."""
    lookup_manifest(lookup)
    return [float(name) for name in column_names(lookup / _TABLE) if name != _FRAGMENT]


def read_lookup(lookup: Path, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The fragments (uint64, ascending) and the segment (uint64) of each at `threshold`; raises BadInput."""
    thresholds = read_thresholds(lookup)
    if threshold not in thresholds:
        near = min(thresholds, key=lambda held: abs(held - threshold))
        raise BadInput(
            f"{lookup}: has no table for threshold {threshold}, only for {len(thresholds)} from {thresholds[0]} to "
            f"{thresholds[-1]}; the nearest is {near}"
        )
    fragments, segments = read_columns(lookup / _TABLE, [_FRAGMENT, _column(threshold)])
    return fragments, segments


def lookup_manifest(lookup: Path) -> Mapping[str, Any]:
    """The manifest of a folder of lookup tables; raises BadInput if there is none."""
    check_finished(lookup)
    manifest = read_json(manifest_path(lookup))
    if manifest is None or not (lookup / _TABLE).exists():
        raise BadInput(f"{lookup}: no lookup tables there, expected a folder that find_segments wrote")
    return manifest


def _column(threshold: float) -> str:
    return repr(float(threshold))


def _places(fragments: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Where each of `ids` is among the sorted `fragments`."""
    places, known = find_sorted(ids, fragments)
    if not known.all():
        raise BadInput(
            f"edges: {np.count_nonzero(~known)} end at fragments that no node table holds ({ids[~known][0]})"
        )
    return places


def _unite(parent: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    """Join the trees of u[i] and v[i]; before and on return every node's parent is the smallest node of its tree.

    Every root hangs itself below the smallest root that an edge leads to, and all paths are cut short, until no edge
    leads to another root. A root that is smaller than all those around it waits, but finds a smaller one the next time:
    every second time at least halves them.
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
