"""Which neuron each voxel belongs to: neurites fill the space between them competitively, with bent borders."""

import cc3d
import numpy as np

from emsuite.phantom.forest import Forest
from emsuite.phantom.smooth_noise import smooth_noise
from emsuite.phantom.tubes import TubeField

_REACH = 60.0  # nm, at first: growth leaves no wider gaps, but for corners of the box
_BEND = 24.0  # nm at most; above THINNEST + its own bend a neighbour could cut a thin neurite in two
_BEND_LENGTH = 50.0  # nm


def fill(forest: Forest, shape: tuple[int, ...], spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Neurons' numbers (Z, Y, X) int32, none 0, on a grid of `spacing` nm whose corner is at 0 nm."""
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
    """The voxels (N, 3) of those nodes that lie on the grid, and their neurons: (N, 4) z, y, x, neuron."""
    voxels = np.floor(np.array(forest.positions) / spacing).astype(int)
    inside = ((voxels >= 0) & (voxels < shape)).all(axis=1)
    return np.column_stack([voxels, forest.neurons])[inside]


def absorb_islands(labels: np.ndarray, nodes: np.ndarray) -> None:
    """Give pieces that no node lies in and that do not leave through a face to their main neighbour, in place.

    `nodes` (N, 4): z, y, x, neuron.
    """
    pieces = cc3d.connected_components(labels, connectivity=6)
    boxes = cc3d.statistics(pieces, no_slice_conversion=False)["bounding_boxes"]
    kept = np.zeros(len(boxes), dtype=bool)
    place = tuple(nodes[:, :3].T)
    kept[pieces[place][labels[place] == nodes[:, 3]]] = True
    for axis in range(3):
        for end in (0, -1):
            kept[np.take(pieces, end, axis)] = True
    for piece in np.flatnonzero(~kept)[1:]:
        box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in boxes[piece])
        island = pieces[box] == piece
        labels[box][island] = _main_neighbour(labels[box], island)


def _main_neighbour(labels: np.ndarray, island: np.ndarray) -> int:
    own = labels[island][0]
    around = []
    for axis in range(3):
        here, there = np.moveaxis(island, axis, 0), np.moveaxis(labels, axis, 0)
        around += [there[1:][here[:-1]], there[:-1][here[1:]]]
    neighbours = np.concatenate(around)
    return int(np.bincount(neighbours[neighbours != own]).argmax())
