"""The region adjacency graph on disk: Parquet tables of nodes and edges, one file per block.

graph/nodes/<block>.parquet   id, z, y, x, size             graph/nodes.manifest.json   written last
graph/edges/<block>.parquet   u, v, score, contact          graph/edges.manifest.json

The columns are those of `region_graph.Nodes` and `region_graph.Edges`. Manifests carry what the stages must agree on:
the number of blocks, the block size, and a digest of the nodes, by which edges and lookup tables name their fragments.
"""

import hashlib
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.files import sha256
from emsuite.common.outputs import check_finished, manifest_path, read_manifest
from emsuite.io.tables import number_of_rows, read_columns, write_columns
from emsuite.segmentation.region_graph import Edges, Nodes

Table = Nodes | Edges
_TYPES = {
    **dict.fromkeys(("id", "u", "v"), np.uint64),
    **dict.fromkeys(("z", "y", "x"), np.float64),
    **dict.fromkeys(("size", "contact"), np.int64),
    "score": np.float32,
}


def write_block(folder: Path, block: int, table: Table) -> None:
    """Write the table of one block atomically; raise RunFailed if a score is NaN."""
    if isinstance(table, Edges) and np.isnan(table.score).any():
        raise RunFailed(f"block {block}: an edge scores NaN; the affinities there hold no usable values")
    columns = {name: np.asarray(getattr(table, name), _TYPES[name]) for name in table._fields}
    write_columns(folder / f"{block}.parquet", columns)


def has_block(folder: Path, block: int) -> bool:
    """Return whether the table of a block exists."""
    return (folder / f"{block}.parquet").exists()


def read_nodes(folder: Path) -> Nodes:
    """Return the nodes of all blocks, sorted by id.

    Raises:
        BadInput: If the folder is unfinished or lacks blocks, or if an id is 0 or repeated.
    """
    nodes = Nodes(*_read_tables(folder, Nodes._fields))
    order = np.argsort(nodes.id)
    nodes = Nodes(*(column[order] for column in nodes))
    if nodes.id.size and (nodes.id[0] == 0 or (nodes.id[1:] == nodes.id[:-1]).any()):
        raise BadInput(f"{folder}: ids of fragments are 0 or repeated, expected each id once, from 1 up")
    return nodes


def read_edges(folder: Path) -> Edges:
    """Return the edges of all blocks, in the order of the blocks.

    Raises:
        BadInput: If the folder is unfinished or lacks blocks, or if a score is NaN.
    """
    edges = Edges(*_read_tables(folder, Edges._fields))
    if np.isnan(edges.score).any():
        raise BadInput(f"{folder}: {np.isnan(edges.score).sum()} edges score NaN, expected thresholds")
    return edges


def digest_tables(folder: Path, blocks: int) -> tuple[int, str]:
    """Return the number of rows in the tables of `blocks` blocks, and a SHA-256 digest of their content."""
    files = [folder / f"{block}.parquet" for block in range(blocks)]
    rows = sum(number_of_rows(file) for file in files)
    return rows, hashlib.sha256("".join(sha256(file) for file in files).encode()).hexdigest()


def edges_digest(folder: Path) -> str:
    """Return the digest of finished edges as they are now, by which lookup tables name them; see `digest_tables`."""
    return digest_tables(folder, _whole_blocks(folder, graph_manifest(folder)))[1]


def graph_manifest(folder: Path) -> Mapping[str, Any]:
    """Return the manifest of a finished folder of tables; raise BadInput if there is none."""
    check_finished(folder)
    manifest = read_manifest(folder, settings=dict, blocks=int)
    if not manifest or not folder.is_dir():
        raise BadInput(
            f"{folder}: no graph there, expected a folder of tables with {manifest_path(folder).name} beside"
        )
    return manifest


def fragments_manifest(fragments: Path) -> Mapping[str, Any]:
    """Return the manifest of an array of fragments.

    It holds the settings that made the fragments, among them `block_size` (nm), and the `digest` of their nodes.

    Raises:
        BadInput: If another program made the fragments, so that there is no such manifest.
    """
    container = next((part for part in (fragments, *fragments.parents) if part.suffix == ".zarr"), fragments)
    manifest = read_manifest(container, settings=dict, digest=str)
    size = manifest.get("settings", {}).get("block_size")
    if not isinstance(size, list) or len(size) != 3 or not all(map(_is_length, size)):
        raise BadInput(
            f"{fragments}: has no {manifest_path(container).name} that tells its blocks; expected fragments that "
            "extract_fragments wrote"
        )
    return manifest


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**53


def _read_tables(folder: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    files = [folder / f"{block}.parquet" for block in range(_whole_blocks(folder, graph_manifest(folder)))]
    tables = [read_columns(file, names) for file in files]
    return [
        np.concatenate([table[i] for table in tables]).astype(_TYPES[name], copy=False) for i, name in enumerate(names)
    ]


def _whole_blocks(folder: Path, manifest: Mapping[str, Any]) -> int:
    """Return the number of blocks; raise BadInput if the table of one is missing."""
    blocks, present = manifest["blocks"], {path.name for path in folder.iterdir()}
    missing = list(islice((name for name in map("{}.parquet".format, range(blocks)) if name not in present), 3))
    if missing or blocks < 1:
        raise BadInput(f"{folder}: lacks some of {blocks} blocks ({missing}), expected all; run its stage again")
    return blocks
