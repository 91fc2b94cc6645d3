"""The blocks of an export: what each finds of the segments in it, with one voxel of the blocks behind it.

+-----------+- +      A block counts and lists its own voxels. Its meshes reach to the centres of the first voxels
|   block   | .|      behind it, where those of the next block begin. At the faces of the region they are closed.
+-----------+- +
+ - - - - - - -+
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from emsuite.blockwise.grid import Block
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi
from emsuite.export.mesh import UNITS, Mesh, mesh_labels
from emsuite.export.multilod import Space
from emsuite.export.pieces import ROW, Piece, has_rows, write_pieces
from emsuite.export.runs import find_runs
from emsuite.io.volume import Volume, open_volume


def space_of(volume: Volume, region: Roi) -> Space:
    """Return where the units of a region (nm) lie."""
    begin, size = (tuple(float(n) for n in reversed(triple)) for triple in (region.begin, volume.voxel_size))
    return Space(begin, size)  # type: ignore[arg-type]


@dataclass(frozen=True)
class FindPieces:
    """Finds the pieces of segments in one block. It holds paths, not open arrays, so that it can be sent to workers."""

    source: Path
    folder: Path
    region: Roi
    meshes: bool
    skeletons: bool
    """Whether to list the voxels of segments, of which skeletons are made."""

    def is_whole(self, block: Block) -> bool:
        """See `run_blocks`."""
        return has_rows(self.folder, block.index)

    def warm_up(self) -> None:
        """Load what the workers need, once for all of them."""
        if self.meshes:
            import zmesh  # noqa: F401

    def __call__(self, block: Block) -> None:
        volume = open_volume(self.source)
        size = volume.voxel_size
        labels, ids = _renumber(self.source, volume.read(block.write.grow(size * 0, size).intersect(self.region)))
        first = np.array([int(n) for n in (block.write.begin - self.region.begin) / size])
        own = tuple(slice(int(n)) for n in block.write.shape / size)
        rows = _count(labels[own], ids, first)
        rows["block"] = block.index
        space, shift = space_of(volume, self.region), first[::-1] * UNITS
        meshes: dict[int, Mesh] = {}
        if self.meshes:
            closed, before = self._close(labels, block)
            for label, mesh in mesh_labels(closed, space.scale.tolist()):
                meshes[label] = Mesh(mesh.vertices + shift - before[::-1] * UNITS, mesh.faces)
        runs = find_runs(labels[own], len(ids), first) if self.skeletons else [None] * len(ids)
        pieces = {n: Piece(meshes.get(n + 1), runs[n]) for n in range(len(ids))}
        write_pieces(self.folder, block.index, rows, pieces)

    def _close(self, labels: np.ndarray, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Return labels with background around the region, and how many voxels of it lie before them."""
        before = np.array([int(a == b) for a, b in zip(block.write.begin, self.region.begin, strict=True)])
        behind = [int(a == b) for a, b in zip(block.write.end, self.region.end, strict=True)]
        return np.pad(labels, list(zip(before, behind, strict=True))), before


def check_labels(volume: Volume) -> None:
    """Raise BadInput if a volume holds no segmentation: integers (Z, Y, X)."""
    if volume.dtype.kind not in "biu" or volume.channels is not None or volume.voxel_size.dims != 3:
        raise BadInput(f"{volume.path}: {volume.dtype} {volume.shape}, expected a segmentation: integers (Z, Y, X)")


def _renumber(source: Path, voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels from 1 up, uint32, 0 as it is, and the id of each, uint64, in order."""
    if voxels.dtype.kind == "i" and voxels.min() < 0:
        raise BadInput(f"{source}: holds the id {voxels.min()}, expected ids from 0 up")
    import fastremap

    ids, labels = fastremap.unique(voxels.astype(np.uint64), return_inverse=True)
    labels = labels.reshape(voxels.shape).astype(np.uint32)
    return (labels, ids[1:]) if ids[0] == 0 else (labels + np.uint32(1), ids)


def _count(labels: np.ndarray, ids: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return a row for each id; positions count from the begin of the region, that of the block is `first`."""
    rows = np.zeros(len(ids), ROW)
    rows["segment"] = ids
    flat = labels.reshape(-1)
    rows["voxels"] = np.bincount(flat, minlength=len(ids) + 1)[1:]
    for axis, n in enumerate(labels.shape):
        along = np.arange(n).reshape([-1 if other == axis else 1 for other in range(3)])
        weights = np.broadcast_to(along, labels.shape).reshape(-1)
        inside = np.bincount(flat, weights, len(ids) + 1)[1:].astype(np.int64)  # exact: below 2^53
        rows["sum"][:, axis] = inside + first[axis] * rows["voxels"]
    for number, box in enumerate(ndimage.find_objects(labels.astype(np.int32), len(ids))):
        if box is not None:
            rows["low"][number] = [part.start for part in box] + first
            rows["high"][number] = [part.stop for part in box] + first
    return rows


def block_voxels(block_size: Coordinate | None, volume: Volume) -> Coordinate:
    """Return the size of a block, nm; None: about 128 of the shortest side of a voxel along each axis."""
    size = volume.voxel_size
    return block_size or Coordinate(max(1, round(_BLOCK * min(size) / n)) * n for n in size)


_BLOCK = 128
