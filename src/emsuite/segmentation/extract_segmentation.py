"""The stage that writes the segmentation of one threshold: it replaces fragments by their segments, block by block.

    reads     fragments (Z, Y, X) uint64, the manifest beside them, and the lookup tables of their segments
    writes    out/segmentation    (Z, Y, X) uint64

The blocks are those in which the fragments were made; the manifest of the fragments tells the block size.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.blockwise.grid import Block, block_aligned_chunk_shape, make_grid
from emsuite.blockwise.run import BlockWorkers, run_blocks
from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.outputs import check_whole, output, read_json
from emsuite.common.provenance import recorded_checksum
from emsuite.io.regions import check_is_zarr, has_files
from emsuite.io.relabel import relabel
from emsuite.io.volume import create_volume, fingerprint, open_volume, split_path
from emsuite.segmentation.find_segments import lookup_digest, lookup_manifest, read_lookup
from emsuite.segmentation.graph_tables import fragments_manifest


def extract_segmentation(
    fragments: Path,
    lookup: Path,
    threshold: float,
    out: Path,
    *,
    workers: BlockWorkers = 1,
    scores: Path | None = None,
) -> None:
    """Write the segment of each voxel to `out`/segmentation; background stays 0.

    The blocks that a stopped run with the same settings finished are kept.

    Args:
        fragments: The array of fragments (Z, Y, X). The block size comes from its manifest.
        lookup: The folder of lookup tables for these fragments.
        threshold: One of the thresholds in the lookup tables.
        out: The zarr to write.
        workers: Processes on this machine, or jobs of Slurm.
        scores: The scores.json that the threshold comes from, if it does.

    Raises:
        BadInput: If the lookup tables were made from other fragments, or lack the threshold.
    """
    check_is_zarr(out)
    check_whole(fragments)
    volume, origin = open_volume(fragments), fragments_manifest(fragments)
    if lookup_manifest(lookup)["fragments_digest"] != origin["digest"]:
        raise BadInput(f"{lookup}: was made from other fragments than {fragments}; find their segments first")
    segments = hashlib.sha256(b"".join(column.tobytes() for column in read_lookup(lookup, threshold))).hexdigest()
    grid = make_grid(volume, origin["settings"]["block_size"], volume.voxel_size * 0)
    settings = {
        "threshold": threshold,
        "fragments_digest": origin["digest"],
        "merge_function": lookup_manifest(lookup)["merge_function"],
        "segments": segments,  # edges of another context give other segments of the same fragments
    }
    inputs = {"fragments": split_path(fragments)[0], "lookup": lookup} | ({"scores": scores} if scores else {})
    with output(out, settings, inputs=inputs, fingerprint=fingerprint) as segmentation:
        done_folder = out / ".blocks"
        if not (segmentation.resumed and done_folder.exists()):
            segmentation.clear("segmentation")
            chunks = block_aligned_chunk_shape(grid, volume.voxel_size)
            shape = volume.spatial_shape
            create_volume(out / "segmentation", shape, np.uint64, volume.voxel_size, volume.offset, chunks)
        _cached_lookup.cache_clear()  # an earlier call of this process may have read another table there
        process = _RelabelBlock(fragments, lookup, threshold, out / "segmentation")
        run_blocks("segmentation", grid, process, workers, done_folder, run=segmentation.run)
        remove(done_folder)


def best_threshold(scores: Path, lookup: Path) -> float:
    """Return the best threshold of a scores.json.

    Raises:
        BadInput: It holds none, or not these lookup tables were scored.
    """
    content = read_json(scores)
    threshold = content.get("threshold") if isinstance(content, dict) else None
    if not isinstance(threshold, float | int):
        raise BadInput(f"{scores}: holds no number under 'threshold', expected scores over thresholds")
    if not _are_scores_of(content, lookup):
        raise BadInput(
            f"{scores}: scores other lookup tables than {lookup}; evaluate these first, or give "
            f"--threshold {float(threshold)} to take it all the same"
        )
    return float(threshold)


def _are_scores_of(scores: dict[str, Any], lookup: Path) -> bool:
    """Whether these lookup tables were scored, as far as the scores tell."""
    if "lookup_digest" in scores:
        return bool(scores["lookup_digest"] == lookup_digest(lookup))
    # of an earlier version: names and sizes of the tables
    recorded = recorded_checksum(scores.get("provenance", {}), "lookup")
    return recorded is None or recorded == fingerprint(lookup)


@dataclass(frozen=True)
class _RelabelBlock:
    """Relabels one block. It holds paths, not open arrays, so that it can be sent to workers."""

    fragments: Path
    lookup: Path
    threshold: float
    out: Path

    def is_whole(self, block: Block) -> bool:
        """See `run_blocks`."""
        return has_files(open_volume(self.out, "r+"), block.write)

    def __call__(self, block: Block) -> None:
        voxels = open_volume(self.fragments).read(block.write)
        segments = relabel(voxels, *_cached_lookup(self.lookup, self.threshold))
        open_volume(self.out, "r+").write(block.write, segments)


@lru_cache(maxsize=1)
def _cached_lookup(lookup: Path, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Read the lookup table once per worker."""
    return read_lookup(lookup, threshold)
