"""The stage that scores the edges of the region adjacency graph, block by block.

    reads     fragments (Z, Y, X) uint64, the manifest beside them, and the affinities that they were made from
    writes    out/<block>.parquet    a row per contact of two fragments, see `region_graph.Edges`

The blocks are those in which the fragments were made; the manifest of the fragments tells the block size.

An edge belongs to the block that made the fragment with the smaller id (see `fragment_ids`). A fragment lies in one
block, so every face of the contact is in that block or on the far side of its border, and one voxel of context shows
every face of the contact. Only the owning block scores the edge; neighbouring blocks discard theirs.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from emsuite.blockwise.grid import Block, BlockGrid, make_grid
from emsuite.blockwise.run import BlockWorkers, run_blocks
from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.geometry import json_numbers
from emsuite.common.outputs import check_whole, output
from emsuite.common.provenance import recorded_checksum, recorded_settings
from emsuite.io.fingerprint import seen, state_or_voxels, times
from emsuite.io.volume import Volume, fingerprint, open_volume, place_of, split_path
from emsuite.segmentation.affinity_volume import affinity_volume
from emsuite.segmentation.graph_tables import digest_tables, fragments_manifest, has_block, write_block
from emsuite.segmentation.region_graph import Edges, are_in_block, ids_of_block
from emsuite.segmentation.settings import FRAGMENTS_IN_SECTIONS, MergeFunction

logger = logging.getLogger(__name__)


def agglomerate_fragments(
    affs: Path,
    fragments: Path,
    out: Path,
    merge_function: str,
    *,
    in_sections: bool = False,
    context: Sequence[int] | None = None,
    workers: BlockWorkers = 1,
) -> int:
    """Write the scored edges between `fragments` to the folder `out`; return the number of edges.

    The blocks that a stopped run with the same settings finished are kept.

    Args:
        affs: The array of affinities (C, Z, Y, X). A warning tells if the fragments were made from other ones, as where
            two networks share the work, or where a prediction was made anew.
        fragments: The array of fragments (Z, Y, X). The block size comes from its manifest.
        merge_function: A name in `merge_hierarchy.MERGE_FUNCTIONS`.
        in_sections: Whether fragments of different z-sections are never merged; each must lie in one of them.
        context: In nm, read around each block; by default a quarter of the block.
        workers: Processes on this machine, or jobs of Slurm.

    Raises:
        BadInput: If the two arrays do not cover the same region, or the fragments have no manifest of this suite, or
            were not made section by section.
    """
    if merge_function not in get_args(MergeFunction):
        raise BadInput(f"merge function {merge_function!r}: expected one of {', '.join(get_args(MergeFunction))}")
    check_whole(affs)
    check_whole(fragments)
    volume, origin = open_volume(fragments), fragments_manifest(fragments)
    sections = origin["settings"].get("replace_sections")
    _check_fit(volume, affinity_volume(open_volume(affs), sections).volume)
    _check_sections(fragments, origin["settings"], in_sections)
    grid = make_grid(volume, origin["settings"]["block_size"], context)
    if len(grid) > 1 and min(grid.context / volume.voxel_size) < 1:
        raise BadInput(f"context {grid.context} nm: expected at least a voxel, {volume.voxel_size} nm")
    inputs = {"affs": split_path(affs)[0], "fragments": split_path(fragments)[0]}
    settings = _further_settings(in_sections, sections) | {
        "merge_function": merge_function,
        "context": json_numbers(grid.context),
        "affs": place_of(affs),
        "fragments": place_of(fragments),
        "inputs": {"affs": fingerprint(inputs["affs"]), "fragments": origin["digest"]},
        "files": state_or_voxels(affs),
    }
    if not (are_the_same := _made_fragments(affs, origin)):
        _warn_of_others(affs, fragments, recorded_settings(origin).get("affs"))
    with output(out, settings, inputs=inputs, fingerprint=fingerprint) as edges:
        edges.claim()
        done_folder = out / ".blocks"
        process = _EdgeBlock(affs, fragments, out, grid, merge_function, in_sections, sections)
        run_blocks("agglomerate", grid, process, workers, done_folder, run=edges.run)
        number, _ = digest_tables(out, len(grid))
        edges.notes |= {"blocks": len(grid), "edges": number, "fragments_digest": origin["digest"]}
        edges.notes["affinities_of_fragments"] = are_the_same
        remove(done_folder)
    return number


def _further_settings(in_sections: bool, replaced: str | None) -> dict[str, Any]:
    """Return the settings that earlier versions did not know, as far as they are set."""
    further = {"segments_in_sections": in_sections, "replace_sections": replaced}
    return {key: value for key, value in further.items() if value}


@dataclass(frozen=True)
class _EdgeBlock:
    """Scores the edges of one block. It holds paths, not open arrays, so that it can be sent to workers."""

    affs: Path
    fragments: Path
    out: Path
    grid: BlockGrid
    merge_function: str
    in_sections: bool
    replaced: str | None

    def warm_up(self) -> None:
        """Compile or load the numba loops, and import waterz, before workers are forked."""
        from emsuite.segmentation.merge_hierarchy import score_edges

        score_edges(np.zeros((3, 1, 1, 2), np.uint8), np.array([[[1, 2]]], np.uint32), self.merge_function)

    def is_whole(self, block: Block) -> bool:
        """See `run_blocks`."""
        return has_block(self.out, block.index)

    def __call__(self, block: Block) -> None:
        import fastremap

        from emsuite.segmentation.merge_hierarchy import score_edges, score_edges_in_sections

        volume = open_volume(self.fragments)
        labels, label_of_id = fastremap.renumber(volume.read(block.read), preserve_zero=True)
        id_of_label = np.zeros(len(label_of_id) + 1, np.uint64)
        id_of_label[np.array(list(label_of_id.values()), int)] = list(label_of_id.keys())
        affs = affinity_volume(open_volume(self.affs), self.replaced).read(block.read)
        score = score_edges_in_sections if self.in_sections else score_edges
        edges = score(affs, labels, self.merge_function)
        own_ids = ids_of_block(block.index, self.grid, volume.voxel_size)
        write_block(self.out, block.index, _own_edges(edges, id_of_label, own_ids))


def _own_edges(edges: Edges, id_of_label: np.ndarray, own_ids: range) -> Edges:
    """Return the edges that belong to the block with `own_ids`, with the ids of the whole volume, sorted by u and v."""
    a, b = id_of_label[edges.u], id_of_label[edges.v]
    u, v = np.minimum(a, b), np.maximum(a, b)
    owned = np.flatnonzero(are_in_block(u, own_ids))
    owned = owned[np.lexsort((v[owned], u[owned]))]
    return Edges(u[owned], v[owned], edges.score[owned], edges.contact[owned])


def _check_fit(fragments: Volume, affs: Volume) -> None:
    if fragments.channels is not None or fragments.dtype != np.uint64:
        raise BadInput(f"{fragments.path}: {fragments.dtype} {fragments.shape}, expected fragments, uint64 (z, y, x)")
    if fragments.voxel_size != affs.voxel_size or fragments.roi != affs.roi:
        raise BadInput(
            f"{fragments.path}: covers {fragments.roi} nm with voxels of {fragments.voxel_size}, expected what "
            f"{affs.path} covers, {affs.roi} with {affs.voxel_size}"
        )


def _check_sections(fragments: Path, settings: Mapping[str, Any], in_sections: bool) -> None:
    if in_sections and (not settings.get("in_sections") or settings.get("epsilon")):
        raise BadInput(
            f"{fragments}: made with in_sections {settings.get('in_sections')} and epsilon {settings.get('epsilon')}; "
            f"segments_in_sections: {FRAGMENTS_IN_SECTIONS}"
        )


def _made_fragments(affs: Path, fragments: Mapping[str, Any]) -> bool:
    """Whether the fragments with this manifest were made from these affinities, or from a copy of them."""
    kept = fragments.get("seen")
    if isinstance(kept, Mapping):
        # where only times are new, as in a copy, the voxels are read
        as_before = times(affs) == kept.get("files") != "missing"  # of a server, times say nothing
        return as_before or seen(affs)["content"] == kept.get("content")
    # of an earlier version: the state of the files, or their names and sizes
    files = fragments["settings"].get("files")
    recorded = recorded_checksum(fragments, "affs")
    is_untouched = isinstance(files, list) and state_or_voxels(affs) in files[:1]
    return is_untouched or recorded is None or recorded == fingerprint(split_path(affs)[0])


def _warn_of_others(affs: Path, fragments: Path, made_from: Any) -> None:
    """Warn of affinities that the fragments were not made from: of two networks on purpose, or by mistake."""
    if made_from == place_of(affs):
        logger.warning(
            "Warning: %s has changed since %s was made from it; it scores the edges all the same", affs, fragments
        )
    else:
        logger.warning(
            "Warning: %s scores the edges of %s, which was made from other affinities, %s", affs, fragments, made_from
        )
