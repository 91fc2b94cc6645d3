"""The segments of an export: the pieces of each are joined, measured and written, a few segments at a time.

Meshes are joined; a skeleton is made of all voxels of a segment, so that it does not depend on blocks.

reads     pieces of blocks, and their rows by segment
writes    mesh/ID and mesh/ID.index, skeletons/ID; and for each batch its measures
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emsuite.blockwise.grid import Block, BlockGrid
from emsuite.common.files import atomic_path, has_content, write_bytes
from emsuite.common.geometry import Coordinate, Roi
from emsuite.export import mesh, multilod, skeletons
from emsuite.export.multilod import Space
from emsuite.export.pieces import read_meshes, read_runs, read_segment
from emsuite.export.runs import Mask, coarsening, paint
from emsuite.export.table import MEASURES, sum_rows

MESHES, SKELETONS = "mesh", "skeletons"
"""The folders of an export."""
_BATCH = 8  # segments


def batches(segments: int) -> BlockGrid:
    """Return the batches of so many segments, as blocks along one axis that counts segments."""
    return BlockGrid(Roi((0,), (segments,)), Coordinate(_BATCH), Coordinate(0))


@dataclass(frozen=True)
class ShapeSegments:
    """Joins and writes the segments of one batch. It holds paths, so that it can be sent to workers."""

    pieces: Path
    folder: Path
    """For the measures of each batch."""
    out: Path | None
    """For meshes and skeletons; None: they are measured alone."""
    space: Space
    shape: tuple[int, ...]
    """The voxels of the region, z y x."""
    levels: int
    """Of detail of the meshes; 0: no meshes."""
    skeletons: bool

    def warm_up(self) -> None:
        """Load what the workers need, once for all of them."""
        if self.skeletons:
            import kimimaro  # noqa: F401
        if self.levels:
            import DracoPy  # noqa: F401
            import pyfqmr  # noqa: F401

    def is_whole(self, block: Block) -> bool:
        """See `run_blocks`."""
        return has_content(self._measures(block)) and all(map(has_content, self._written(block)))

    def _measures(self, block: Block) -> Path:
        return self.folder / f"{block.index}.measures.npy"

    def _written(self, block: Block) -> Iterator[Path]:
        """Yield the files of the segments of a batch that was finished: those with a surface, and with a cable."""
        if (out := self.out) is None:
            return
        for segment, area, cable in np.load(self._measures(block)):
            if area > 0:
                yield from _mesh_paths(out, segment)
            if cable > 0:
                yield out / SKELETONS / str(segment)

    def __call__(self, block: Block) -> None:
        numbers = range(int(block.write.begin[0]), int(block.write.end[0]))
        measures = np.zeros(len(numbers), MEASURES)
        for place, number in enumerate(numbers):
            rows = read_segment(self.pieces, number)
            segment = int(rows["segment"][0])
            area = self._mesh(segment, rows) if self.levels else np.nan
            measures[place] = (segment, area, self._skeleton(segment, rows) if self.skeletons else np.nan)
        with atomic_path(self._measures(block)) as temporary, open(temporary, "wb") as file:
            np.save(file, measures)

    def _mesh(self, segment: int, rows: np.ndarray) -> float:
        """Write the meshes of a segment; return its surface in nm^2."""
        pieces = read_meshes(self.pieces, rows)
        joined = mesh.join(pieces) if pieces else None
        if joined is None or len(joined.faces) == 0:
            return 0.0
        if self.out is not None:
            levels = multilod.levels_of_detail(joined, self.space, self.levels)
            manifest, data = multilod.encode(levels, self.space)
            for path, content in zip(_mesh_paths(self.out, segment), (data, manifest), strict=True):
                write_bytes(path, content)
        return mesh.surface_area(joined, self.space.voxel_size)

    def _skeleton(self, segment: int, rows: np.ndarray) -> float:
        """Write the skeleton of a segment, if it has an edge; return its length in nm."""
        made = skeletons.skeletonize(self._mask(rows[rows["voxels"] > 0]), self.space.voxel_size)
        if self.out is not None and len(made.edges):
            encoded = skeletons.encode(made, self.space.begin, self.space.voxel_size)
            write_bytes(self.out / SKELETONS / str(segment), encoded)
        return skeletons.cable_length(made, self.space.voxel_size)

    def _mask(self, rows: np.ndarray) -> Mask:
        (whole,) = sum_rows(rows)
        low, high = whole["low"], whole["high"]
        factors = coarsening(int(whole["voxels"]), high - low, self.space.voxel_size[::-1])
        return paint(read_runs(self.pieces, rows), low, high, np.array(self.shape), factors)


def _mesh_paths(out: Path, segment: int) -> tuple[Path, Path]:
    return out / MESHES / str(segment), out / MESHES / f"{segment}.index"


def read_measures(folder: Path, segments: int) -> np.ndarray:
    """Return the measures (`MEASURES`) of all segments, which the batches wrote to `folder`."""
    grid = batches(segments)
    found = [np.load(folder / f"{index}.measures.npy") for index in range(len(grid) if segments else 0)]
    return np.concatenate([np.empty(0, MEASURES), *found])
