"""The seeds of a volume, whose components may cross any number of blocks.

A seed is named by the place of its first voxel in the volume, from 1 up in the order of z, y, x. So its name, and with
it everything that is made of seeds, does not depend on the blocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emsuite.blockwise.grid import Block
from emsuite.blockwise.run import BlockWorkers, run_blocks
from emsuite.common.progress import progress
from emsuite.io.tables import read_columns, write_columns
from emsuite.segmentation.find_segments import components
from emsuite.segmentation.instances.decode import seed_components
from emsuite.segmentation.instances.heads_volume import open_heads
from emsuite.segmentation.instances.scratch import Scratch, write_lookup
from emsuite.segmentation.instances.settings import Decoding
from emsuite.segmentation.instances.surfaces import FORWARD, neighbours, surface_of, touching, write_arrays
from emsuite.segmentation.region_graph import Edges, ids_of_block


def find_seeds(paths: Mapping[str, Path], decoding: Decoding, scratch: Scratch, workers: BlockWorkers, run: str) -> int:
    """Write the table of seeds; return their number. Arguments as of the block functions below."""
    grid = scratch.grid
    run_blocks("seeds", grid, ComponentsBlock(paths, decoding, scratch), workers, scratch.done("seeds"), run=run)
    run_blocks("joins", grid, JoinsBlock(scratch), workers, scratch.done("joins"), run=run)
    ids, sizes, firsts, joins = [], [], [], []
    for block in progress(range(len(grid)), what="union of seeds"):
        with np.load(scratch.components(block)) as found:
            sizes.append(found["size"])
            firsts.append(found["first"])
        start = ids_of_block(block, grid, scratch.voxel_size).start
        ids.append(np.arange(start, start + sizes[-1].size, dtype=np.uint64))
        joins.append(np.stack(read_columns(scratch.joins(block), ["u", "v"]), axis=1))
    all_ids, pairs = np.concatenate(ids), np.concatenate(joins)
    seeds = _seeds(all_ids, np.concatenate(sizes), np.concatenate(firsts), pairs, decoding.smallest_seed)
    write_lookup(scratch.seeds, all_ids, seeds)
    return np.unique(seeds[seeds != 0]).size


def _seeds(ids: np.ndarray, sizes: np.ndarray, firsts: np.ndarray, joins: np.ndarray, smallest: int) -> np.ndarray:
    """Return the seed of each component, (N,) uint64, 0 for those of small ones."""
    if ids.size == 0:
        return ids
    u, v = joins.T
    edges = Edges(u, v, np.zeros(u.size, np.float32), np.ones(u.size, np.int64))
    ((_, united),) = components(ids, edges, [0.0])
    _, whole = np.unique(united, return_inverse=True)
    size, first = np.zeros(whole.max() + 1, np.int64), np.full(whole.max() + 1, np.iinfo(np.uint64).max)
    np.add.at(size, whole, sizes)
    np.minimum.at(first, whole, firsts)
    return np.where(size[whole] >= smallest, first[whole], np.uint64(0))


@dataclass(frozen=True)
class ComponentsBlock:
    """Finds the components of seeds in one block. It holds paths, so that it can be sent to workers."""

    paths: Mapping[str, Path]
    decoding: Decoding
    scratch: Scratch

    def is_whole(self, block: Block) -> bool:
        """See `run_blocks`."""
        return self.scratch.components(block.index).exists()

    def __call__(self, block: Block) -> None:
        heads = open_heads(self.paths, self.decoding)
        found = seed_components(heads.read(block.write), self.decoding)
        begin = (block.write.begin - heads.volume.roi.begin) / heads.volume.voxel_size
        numbers, places = np.unique(found, return_index=True)
        places = places[numbers != 0]
        z, y, x = (
            int(b) + at.astype(np.uint64) for b, at in zip(begin, np.unravel_index(places, found.shape), strict=True)
        )
        _, height, width = (int(n) for n in heads.volume.spatial_shape)
        first = (z * np.uint64(height) + y) * np.uint64(width) + x + np.uint64(1)
        arrays = {"size": np.bincount(found.ravel())[1:].astype(np.int64), "first": first.astype(np.uint64)}
        surface = {f"{axis}{end}": plane for (axis, end), plane in surface_of(found).items()}
        write_arrays(self.scratch.components(block.index), arrays | surface)


@dataclass(frozen=True)
class JoinsBlock:
    """Finds which components of one block touch components of the blocks in front of it."""

    scratch: Scratch

    def is_whole(self, block: Block) -> bool:
        """See `run_blocks`."""
        return self.scratch.joins(block.index).exists()

    def __call__(self, block: Block) -> None:
        grid, size, surface = self.scratch.grid, self.scratch.voxel_size, self._surface(block.index)
        first = np.uint64(ids_of_block(block.index, grid, size).start - 1)
        pairs = [np.empty((0, 2), np.uint64)]
        for direction, index in neighbours(block.index, grid.shape, FORWARD):
            there = np.uint64(ids_of_block(index, grid, size).start - 1)
            pairs.append(touching(surface, self._surface(index), direction) + np.array([first, there]))
        u, v = np.concatenate(pairs).T
        write_columns(self.scratch.joins(block.index), {"u": u, "v": v})

    def _surface(self, block: int) -> dict[tuple[int, int], np.ndarray]:
        with np.load(self.scratch.components(block)) as arrays:
            return {(axis, end): arrays[f"{axis}{end}"] for axis in range(3) for end in (0, 1)}
