"""The neuron of each voxel: neurites grow into the space between them until they meet at uneven borders."""

import cc3d
import numpy as np

from emsuite.phantom.forest import Forest
from emsuite.phantom.smooth_noise import smooth_noise
from emsuite.phantom.tubes import TubeField

_REACH = 60.0  # nm, for the first pass: the forest leaves wider gaps only in corners of the box
# nm, the largest shift of a border; beyond THINNEST + its own bend, a neighbour could cut a thin neurite in two
_BEND = 24.0
_BEND_LENGTH = 50.0  # nm, the length over which a border bends


def fill(forest: Forest, shape: tuple[int, ...], spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the number of the neuron of each voxel, (Z, Y, X) int32, never 0.

    Args:
        forest: the neurites.
        shape: voxels, z y x.
        spacing: (3,) nm per voxel. The corner of the grid is at 0 nm.
        rng: decides how borders bend.
    """
    noise = np.clip(smooth_noise((96, 96, 96), _BEND_LENGTH / spacing, rng) / 2, -1, 1)
    tubes = forest.tubes()
    bend = np.minimum(0.35 * tubes.radii.min(axis=1), _BEND)
    field = TubeField.empty(shape, spacing / 2, spacing, 1e9)
    reach = _REACH
    while (field.owner == 0).any():
        field.add(tubes, reach, bend, noise)
        reach *= 2
    absorb_islands(field.owner, nodes_in(forest, shape, spacing))
    return field.owner


def nodes_in(forest: Forest, shape: tuple[int, ...], spacing: np.ndarray) -> np.ndarray:
    """Return the voxels and neurons of the nodes inside the grid, (N, 4): z, y, x, neuron."""
    voxels = np.floor(np.array(forest.positions) / spacing).astype(int)
    inside = ((voxels >= 0) & (voxels < shape)).all(axis=1)
    return np.column_stack([voxels, forest.neurons])[inside]


def absorb_islands(labels: np.ndarray, nodes: np.ndarray) -> None:
    """Merge each island of `labels` into the neuron that it touches most, in place.

    An island is a connected piece of a neuron that holds none of its nodes and touches no face of the volume.
    `nodes` (N, 4): z, y, x, neuron.
    """
    pieces = cc3d.connected_components(labels, connectivity=6)
    boxes = cc3d.statistics(pieces, no_slice_conversion=False)["bounding_boxes"]
    kept = np.zeros(len(boxes), dtype=bool)
    voxels = tuple(nodes[:, :3].T)
    kept[pieces[voxels][labels[voxels] == nodes[:, 3]]] = True
    for axis in range(3):
        for end in (0, -1):
            kept[np.take(pieces, end, axis)] = True
    for piece in np.flatnonzero(~kept)[1:]:
        box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in boxes[piece])
        island = pieces[box] == piece
        labels[box][island] = _main_neighbour(labels[box], island)


def _main_neighbour(labels: np.ndarray, island: np.ndarray) -> int:
    """Return the label that shares the most voxel faces with the mask `island`, other than its own label."""
    own = labels[island][0]
    faces = []
    for axis in range(3):
        mask, neighbours = np.moveaxis(island, axis, 0), np.moveaxis(labels, axis, 0)
        faces += [neighbours[1:][mask[:-1]], neighbours[:-1][mask[1:]]]
    touched = np.concatenate(faces)
    return int(np.bincount(touched[touched != own]).argmax())
