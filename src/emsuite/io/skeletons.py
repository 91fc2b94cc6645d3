"""Skeletons of neurons, traced by people or made with a phantom: nodes (positions in nm) and edges between nodes.

    fib25.skeletons/nodes.parquet    id, skeleton (int64); z, y, x, radius (float64, nm); optional: synapse, whether the
                                     node lies at a synapse (bool, or integers that are not 0)
    fib25.skeletons/edges.parquet    u, v (int64): the ids of the two nodes of an edge

A folder of SWC files (one skeleton per file, in nm) can be read as well.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emsuite.common.documents import check_regular
from emsuite.common.errors import BadInput
from emsuite.common.outputs import check_finished
from emsuite.io.relabel import find_sorted
from emsuite.io.tables import write_columns

_NODE_COLUMNS: dict[str, Any] = {"id": np.int64, "skeleton": np.int64} | dict.fromkeys(
    ("z", "y", "x", "radius"), np.float64
)
_EDGE_COLUMNS: dict[str, Any] = {"u": np.int64, "v": np.int64}
_SYNAPSE = "synapse"
_FARTHEST = 1e15
"""nm from the origin; float64 tells single nm apart, and the squares of distances are no overflow."""
_SWC_COLUMNS = 7  # id, type, x, y, z, radius, parent


@dataclass(frozen=True)
class Skeletons:
    """N nodes and M edges of any number of skeletons.

    Raises:
        BadInput: There is no node, an id or an edge occurs twice, a position is not finite or too far away, or an edge
            names an unknown node or joins two skeletons.
    """

    ids: np.ndarray
    """(N,) int64, one id per node."""
    skeleton: np.ndarray
    """(N,) int64, the skeleton that each node belongs to."""
    positions: np.ndarray
    """(N, 3) float64, nm, z y x."""
    radius: np.ndarray
    """(N,) float64, nm."""
    edges: np.ndarray
    """(M, 2) int64, node ids."""
    source: str = "skeletons"
    """The file or folder, for messages."""
    synapse: np.ndarray | None = None
    """(N,) bool, whether each node lies at a synapse; None if nothing says so."""

    def __post_init__(self) -> None:
        self._check_nodes()
        self._check_edges()

    @cached_property
    def ends(self) -> np.ndarray:
        """The edges as indices into `ids`, int64 (M, 2)."""
        order = np.argsort(self.ids)
        return order[np.searchsorted(self.ids[order], self.edges)].reshape(-1, 2)

    @cached_property
    def lengths(self) -> np.ndarray:
        """The physical length of each edge in nm, float64 (M,)."""
        return np.linalg.norm(self.positions[self.ends[:, 0]] - self.positions[self.ends[:, 1]], axis=1)

    @cached_property
    def pieces(self) -> np.ndarray:
        """The connected piece that each node belongs to, int64 (N,), from 0 up.

        A skeleton has several pieces where the border of a region cuts it.
        """
        near, far = self.ends.T
        graph = coo_array((np.ones(near.size, bool), (near, far)), shape=(self.ids.size, self.ids.size))
        return connected_components(graph, directed=False)[1].astype(np.int64)

    @cached_property
    def longest_runs(self) -> np.ndarray:
        """The length in nm of each piece that has edges, float64: the run length of a perfect segmentation."""
        _, run = np.unique(self.pieces[self.ends[:, 0]], return_inverse=True)
        return np.bincount(run, weights=self.lengths)

    def subset(self, nodes: np.ndarray) -> "Skeletons":
        """Return the nodes where the boolean array `nodes` is True, and the edges between two of them."""
        edges = self.edges[nodes[self.ends].all(axis=1)]
        synapse = None if self.synapse is None else self.synapse[nodes]
        ids, skeleton, positions, radius = (
            self.ids[nodes],
            self.skeleton[nodes],
            self.positions[nodes],
            self.radius[nodes],
        )
        return Skeletons(ids, skeleton, positions, radius, edges, self.source, synapse)

    def save(self, folder: Path) -> None:
        """Write `nodes.parquet` and `edges.parquet` into `folder`."""
        z, y, x = self.positions.T
        nodes = (self.ids, self.skeleton, z, y, x, self.radius)
        marks = {} if self.synapse is None else {_SYNAPSE: self.synapse.astype(np.uint8)}
        write_columns(Path(folder) / "nodes.parquet", dict(zip(_NODE_COLUMNS, nodes, strict=True)) | marks)
        write_columns(Path(folder) / "edges.parquet", dict(zip(_EDGE_COLUMNS, self.edges.T, strict=True)))

    def _check_nodes(self) -> None:
        if self.ids.size == 0:
            raise BadInput(f"{self.source}: holds no nodes, expected skeletons")
        ids, times = np.unique(self.ids, return_counts=True)
        if times.max() > 1:
            raise BadInput(f"{self.source}: node {ids[times.argmax()]} is there {times.max()} times, expected once")
        if not np.isfinite(self.positions).all():
            bad = self.ids[~np.isfinite(self.positions).all(axis=1)][0]
            raise BadInput(f"{self.source}: the position of node {bad} is not finite, expected nm")
        far = np.abs(self.positions).max(axis=1)
        if far.max() > _FARTHEST:
            bad = self.ids[far.argmax()]
            raise BadInput(f"{self.source}: node {bad} lies at {far.max():.3g} nm, expected at most {_FARTHEST:.0e}")

    def _check_edges(self) -> None:
        if unknown := np.setdiff1d(self.edges, self.ids).tolist():
            raise BadInput(f"{self.source}: an edge names node {unknown[0]}, which is not among the nodes")
        crossing = self.skeleton[self.ends[:, 0]] != self.skeleton[self.ends[:, 1]]
        if crossing.any():
            u, v = self.edges[crossing][0]
            raise BadInput(f"{self.source}: the edge {u} to {v} joins two skeletons, expected ends in one")
        low, high = np.sort(self.ends, axis=1).T
        pairs, times = np.unique(low * self.ids.size + high, return_counts=True)
        if times.size and times.max() > 1:
            u, v = self.ids[list(divmod(int(pairs[times.argmax()]), self.ids.size))]
            raise BadInput(f"{self.source}: the edge {u} to {v} is there {times.max()} times, expected once")


def load_skeletons(folder: Path) -> Skeletons:
    """Read skeletons.

    Args:
        folder: Holds `nodes.parquet` and `edges.parquet`, or `.swc` files, which then count alone.

    Raises:
        BadInput: The folder is missing or unfinished, a file is damaged, or as `Skeletons`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; expected skeletons (nodes.parquet and edges.parquet, or SWC files)")
    check_finished(folder)
    if swc := sorted(folder.glob("*.swc")):
        return _load_swc(folder, swc)
    nodes = _read(folder / "nodes.parquet", _NODE_COLUMNS)
    edges = _read(folder / "edges.parquet", _EDGE_COLUMNS)
    positions = np.stack([nodes["z"], nodes["y"], nodes["x"]], axis=1)
    ends = np.stack([edges["u"], edges["v"]], axis=1)
    synapse = nodes.get(_SYNAPSE)
    return Skeletons(nodes["id"], nodes["skeleton"], positions, nodes["radius"], ends, str(folder), synapse)


def _read(path: Path, columns: dict[str, Any]) -> dict[str, np.ndarray]:
    try:
        table = pyarrow.parquet.read_table(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; expected a table of {', '.join(columns)}") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise BadInput(f"{path}: not a Parquet table: {error}") from None
    if missing := [name for name in columns if name not in table.column_names]:
        raise BadInput(f"{path}: has no column '{missing[0]}'; it holds {', '.join(table.column_names)}")
    marks = {_SYNAPSE: _marks(path, table[_SYNAPSE].to_numpy())} if _SYNAPSE in table.column_names else {}
    try:
        read = {name: table[name].to_numpy().astype(dtype, casting="same_kind") for name, dtype in columns.items()}
        return read | marks
    except TypeError as error:
        raise BadInput(
            f"{path}: {error}; expected " + ", ".join(f"{name} {dtype.__name__}" for name, dtype in columns.items())
        ) from None


def _marks(path: Path, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "biu":
        raise BadInput(f"{path}: column '{_SYNAPSE}' holds {values.dtype} (or gaps), expected bool or integers")
    return values != 0


def _load_swc(folder: Path, files: list[Path]) -> Skeletons:
    # The ids of a file are unique in that file only, so rows in all files together become the ids.
    tables = [_read_swc(path) for path in files]
    first = np.cumsum([0, *(len(table) for table in tables)])
    edges = [start + _swc_edges(path, table) for path, table, start in zip(files, tables, first, strict=False)]
    nodes = np.concatenate(tables)
    skeleton = np.repeat(np.arange(1, len(files) + 1), np.diff(first))
    positions, radius = nodes[:, [4, 3, 2]], nodes[:, 5]
    return Skeletons(np.arange(len(nodes)), skeleton, positions, radius, np.concatenate(edges), str(folder))


def _swc_edges(path: Path, table: np.ndarray) -> np.ndarray:
    """Return the rows of the child and of the parent of each edge, int64 (M, 2)."""
    child = np.flatnonzero(table[:, 6] >= 0)  # a negative parent marks a root
    parents = table[child, 6]
    order = np.argsort(table[:, 0])
    position, exists = find_sorted(parents, table[order, 0])
    if not exists.all():
        raise BadInput(f"{path}: the parent {parents[~exists][0]:.0f} of a node is not in the file")
    return np.stack([child, order[position]], axis=1)


def _read_swc(path: Path) -> np.ndarray:
    """Return the rows of a file, float64 (N, 7), as in `_SWC_COLUMNS`."""
    check_regular(path, "a file of skeletons, SWC")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            raise BadInput(f"{path}:{number}: {line.strip()!r} is no row of numbers") from None
        if len(row) != _SWC_COLUMNS:
            raise BadInput(f"{path}:{number}: {len(row)} numbers, expected 7: id type x y z radius parent")
        rows.append(row)
    if not rows:
        raise BadInput(f"{path}: holds no nodes, expected rows of id type x y z radius parent")
    table = np.array(rows)
    if not np.isfinite(table).all() or np.unique(table[:, 0]).size < len(table):
        raise BadInput(f"{path}: holds a number that is not finite, or a node twice")
    return table
