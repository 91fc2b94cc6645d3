"""The phantom's skeletons, from the trees that its neurites grew from."""

import numpy as np

from emsuite.io.skeletons import Skeletons
from emsuite.phantom.forest import Forest

_SNAP = 48.0  # nm


def trace(
    forest: Forest, numbers: np.ndarray, labels: np.ndarray, voxel_size: np.ndarray, offsets: np.ndarray
) -> Skeletons:
    """Skeletons of `labels` (Z, Y, X), every node inside its own neuron.

    `numbers` (N,) is the label of each neuron of the forest, 0 where it is not among them; `offsets` (Z, 3) nm is what
    each section's tissue was moved by. A node that its neighbours grew over moves to the nearest voxel of its label
    within 48 nm, or is left out and the nodes beside it are joined.
    """
    positions = np.array(forest.positions)
    parents, own = np.array(forest.parents), numbers[np.array(forest.neurons)].astype(np.int64)
    section = np.clip(positions[:, 0] // voxel_size[0], 0, len(labels) - 1).astype(int)
    positions = positions + offsets[section]
    inside = _label_at(labels, np.floor(positions / voxel_size).astype(int)) >= 0
    positions, found = _snapped(positions, own, labels, voxel_size)
    overgrown = inside & ~found
    # parents come before their children, so that one pass finds the nearest ancestor that is left
    for node in np.flatnonzero(parents >= 0):
        if overgrown[parents[node]]:
            parents[node] = parents[parents[node]]
    kept = np.flatnonzero(found)
    ids = np.zeros(len(found) + 1, dtype=np.int64)  # the last one is the parent of roots
    ids[kept] = np.arange(1, len(kept) + 1)
    edges = np.stack([ids[kept], ids[parents[kept]]], axis=1)
    radii = np.array(forest.radii)
    return Skeletons(ids[kept], own[kept], positions[kept], radii[kept], edges[edges[:, 1] > 0])


def _snapped(
    positions: np.ndarray, own: np.ndarray, labels: np.ndarray, voxel_size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions, those outside their own label moved to the nearest voxel in it; and whether there is one."""
    voxels = np.floor(positions / voxel_size).astype(int)
    label = _label_at(labels, voxels)
    found, lost = label == own, np.flatnonzero((label >= 0) & (label != own))
    moved = positions.copy()
    far = np.floor(_SNAP / voxel_size).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in far), indexing="ij"), -1).reshape(-1, 3)
    distances = np.linalg.norm(steps * voxel_size, axis=1)
    for step in steps[np.argsort(distances, kind="stable")][: int((distances <= _SNAP).sum())]:
        there = voxels[lost] + step
        hit = _label_at(labels, there) == own[lost]
        moved[lost[hit]] = (there[hit] + 0.5) * voxel_size
        found[lost[hit]] = True
        lost = lost[~hit]
    return moved, found


def _label_at(labels: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """The labels at `voxels` (N, 3), -1 outside the volume."""
    inside = ((voxels >= 0) & (voxels < labels.shape)).all(axis=1)
    found = np.full(len(voxels), -1, dtype=np.int64)
    found[inside] = labels[tuple(voxels[inside].T)]
    return found
