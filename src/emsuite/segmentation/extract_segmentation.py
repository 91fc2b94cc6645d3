"""The stage that relabels fragments as segments, block by block: from a lookup table to a volume."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from emsuite.blockwise.grid import Block, chunk_shape, make_grid
from emsuite.blockwise.run import Workers, run_blocks
from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.outputs import output, read_json
from emsuite.common.relabel import relabel
from emsuite.io.volume import create_volume, fingerprint, open_volume, split_path
from emsuite.segmentation.find_segments import lookup_manifest, read_lookup
from emsuite.segmentation.graph_tables import fragments_manifest


def extract_segmentation(fragments: Path, lookup: Path, threshold: float, out: Path, *, workers: Workers = 1) -> None:
    """Write `out`/segmentation (Z, Y, X) uint64: the segment at `threshold` of each voxel of `fragments`, 0 stays 0.

    What a stopped run of the same settings did is kept. Raises BadInput for lookup tables of other fragments.
    """
    volume, origin = open_volume(fragments), fragments_manifest(fragments)
    if lookup_manifest(lookup)["fragments_digest"] != origin["digest"]:
        raise BadInput(f"{lookup}: was made from other fragments than {fragments}; find their segments first")
    read_lookup(lookup, threshold)
    grid = make_grid(volume, origin["settings"]["block_size"], volume.voxel_size * 0)
    settings = {
        "threshold": threshold,
        "fragments_digest": origin["digest"],
        "merge_function": lookup_manifest(lookup)["merge_function"],
    }
    inputs = {"fragments": split_path(fragments)[0], "lookup": lookup}
    with output(out, settings, inputs=inputs, fingerprint=fingerprint) as made:
        done = out / ".blocks"
        if not (made.resumed and done.exists()):
            remove(out)
            chunks = chunk_shape(grid, volume.voxel_size)
            shape = volume.spatial_shape
            create_volume(out / "segmentation", shape, np.uint64, volume.voxel_size, volume.offset, chunks)
        process = _RelabelBlock(fragments, lookup, threshold, out / "segmentation")
        run_blocks("segmentation", grid, process, workers, done)
        remove(done)


def best_threshold(scores: Path) -> float:
    """Return the best threshold of a scores.json; raise BadInput if it holds none."""
    content = read_json(scores)
    threshold = content.get("threshold") if isinstance(content, dict) else None
    if not isinstance(threshold, float | int):
        raise BadInput(f"{scores}: holds no number under 'threshold', expected scores over thresholds")
    return float(threshold)


@dataclass(frozen=True)
class _RelabelBlock:
    """What is done to one block; opened by path, so that it can be sent to a worker."""

    fragments: Path
    lookup: Path
    threshold: float
    out: Path

    def __call__(self, block: Block) -> None:
        voxels = open_volume(self.fragments).read(block.write)
        segments = relabel(voxels, *_lookup(self.lookup, self.threshold))
        open_volume(self.out, "r+").write(block.write, segments)


@lru_cache(maxsize=1)
def _lookup(lookup: Path, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    return read_lookup(lookup, threshold)
