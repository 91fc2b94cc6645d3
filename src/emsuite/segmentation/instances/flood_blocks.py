"""Floods of blocks, in rounds: each block floods itself from its seeds and from its neighbours' faces.

round 1    each block from its own seeds
round 2    each block from its seeds, and from the faces of round 1
...        each block whose neighbours' faces changed, until none does

The rounds end with the flood of the whole volume, see `emsuite.segmentation.instances.flood`. There are as many as the
longest way that a label goes is blocks long, and one more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from emsuite.blockwise.grid import Block
from emsuite.blockwise.run import BlockWorkers, run_blocks
from emsuite.common.files import remove
from emsuite.io.regions import has_files
from emsuite.io.volume import open_volume
from emsuite.segmentation.instances.decode import landscape, seed_components
from emsuite.segmentation.instances.flood import SIDES, Face, Side, face_of, flood
from emsuite.segmentation.instances.heads_volume import open_heads
from emsuite.segmentation.instances.scratch import NO_LABELS, Scratch, read_lookup, write_lookup
from emsuite.segmentation.instances.settings import Decoding
from emsuite.segmentation.instances.surfaces import beyond, neighbours, read_face, write_faces
from emsuite.segmentation.region_graph import ids_of_block


def flood_blocks(process: "FloodBlock", workers: BlockWorkers, run: str) -> int:
    """Flood the volume, and write the labels of all blocks and their sizes; return the number of rounds."""
    cached_lookup.cache_clear()  # an earlier call of this process may have read another table there
    _forget_rounds_if_lost(process)
    number = 1
    while True:
        scratch = process.scratch
        name = f"flood {number}"
        run_blocks(name, scratch.grid, process.at(number), workers, scratch.done(name), run=run)
        if not any((scratch.folder / "faces" / str(number)).glob("*.npz")):
            return number
        number += 1


def _forget_rounds_if_lost(process: "FloodBlock") -> None:
    """Remove all rounds of a stopped run if a block has lost its labels: the other blocks' rounds build on them."""
    scratch = process.scratch
    finished = (scratch.grid.block(int(marker.stem)) for marker in scratch.done("flood 1").glob("*.done"))
    if all(process.is_whole(block) for block in finished):
        return
    first = scratch.done("flood 1")
    later = [folder for folder in first.parent.glob("flood *") if folder != first]
    # the markers of the first round last: as long as they are there, a run that is killed here sees the loss again
    for folder in [*later, scratch.folder / "faces", scratch.folder / "sizes", first]:
        remove(folder)


@dataclass(frozen=True)
class FloodBlock:
    """Floods one block in one round. It holds paths, so that it can be sent to workers."""

    paths: Mapping[str, Path]
    decoding: Decoding
    scratch: Scratch
    flooded: Path
    """The array of labels, (Z, Y, X) uint64."""
    number: int = 1
    """The round, from 1 up."""

    def at(self, number: int) -> "FloodBlock":
        """Return the same for another round."""
        return FloodBlock(self.paths, self.decoding, self.scratch, self.flooded, number)

    def warm_up(self) -> None:
        """Compile or load the numba loops, before workers are forked."""
        flood(np.zeros((1, 1, 2), np.uint8), np.ones((1, 1, 2), bool), np.array([[[1, 0]]], np.uint64))

    def is_whole(self, block: Block) -> bool:
        """See `run_blocks`."""
        return has_files(open_volume(self.flooded, "r+"), block.write) and self.scratch.sizes(block.index).exists()

    def __call__(self, block: Block) -> None:
        around = self._around(block.index, self.number - 1)
        if self.number > 1 and _are_equal(around, self._around(block.index, self.number - 2)):
            return
        predictions = open_heads(self.paths, self.decoding).read(block.write)
        land = landscape(predictions, self.decoding)
        labels, keys = flood(land.height, land.flooded, self._seeds(predictions, block.index), around)
        kept = np.where(land.kept, labels, np.uint64(0))
        open_volume(self.flooded, "r+").write(block.write, kept)
        found, sizes = np.unique(kept[kept != 0], return_counts=True)
        write_lookup(self.scratch.sizes(block.index), found, sizes)
        faces = {side: face_of(keys, labels, side) for side in SIDES}
        before = self.scratch.latest_faces(self.number - 1, block.index)
        if before is None or not _are_equal(faces, {side: read_face(before, side) for side in SIDES}):
            write_faces(self.scratch.faces(self.number, block.index), faces)

    def _seeds(self, predictions: Mapping[str, np.ndarray], block: int) -> np.ndarray:
        found = seed_components(predictions, self.decoding)
        ids, seeds = cached_lookup(self.scratch.seeds)
        first = np.searchsorted(ids, np.uint64(ids_of_block(block, self.scratch.grid, self.scratch.voxel_size).start))
        of_block = seeds[first : first + int(found.max(initial=0))]
        return np.asarray(np.concatenate([np.zeros(1, np.uint64), of_block])[found])

    def _around(self, block: int, number: int) -> dict[Side, Face]:
        """Return what is known of the voxels beyond the sides of a block behind a round."""
        directions, faces = {beyond(side): side for side in SIDES}, {}
        for direction, index in neighbours(block, self.scratch.grid.shape, tuple(directions)):
            file = self.scratch.latest_faces(number, index)
            if file is not None:
                axis, end = directions[direction]
                faces[axis, end] = read_face(file, (axis, 1 - end))
        return faces


def total_sizes(scratch: Scratch) -> tuple[np.ndarray, np.ndarray]:
    """Return all labels of a flood, (N,) uint64, ascending, and the number of voxels of each, (N,) int64."""
    tables = [read_lookup(scratch.sizes(block)) for block in range(len(scratch.grid))]
    labels, where = np.unique(np.concatenate([NO_LABELS, *(found for found, _ in tables)]), return_inverse=True)
    total = np.zeros(labels.size, np.int64)
    np.add.at(total, where, np.concatenate([NO_LABELS, *(sizes for _, sizes in tables)]).astype(np.int64))
    return labels, total


def _are_equal(faces: Mapping[Side, Face], others: Mapping[Side, Face]) -> bool:
    return faces.keys() == others.keys() and all(
        np.array_equal(a, b) for side, face in faces.items() for a, b in zip(face, others[side], strict=True)
    )


@lru_cache(maxsize=1)
def cached_lookup(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a table once per worker."""
    return read_lookup(path)
