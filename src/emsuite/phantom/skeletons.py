"""The phantom's skeletons, from the trees of its neurites."""

import numpy as np

from emsuite.io.skeletons import Skeletons
from emsuite.phantom.forest import Forest

_SNAP = 48.0  # nm, the farthest that a node moves into its own label


def trace(
    forest: Forest, numbers: np.ndarray, labels: np.ndarray, voxel_size: np.ndarray, offsets: np.ndarray
) -> Skeletons:
    """Return skeletons of `labels` whose nodes all lie inside their own neuron.

    A node inside another neuron moves to the nearest voxel of its own label within 48 nm. If there is none, the node is
    left out, and its children are joined to its nearest ancestor that remains.

    Args:
        forest: the trees.
        numbers: (N,) label by number of the neuron in the forest, 0 if the neuron is not in `labels`.
        labels: (Z, Y, X), from 1.
        voxel_size: (3,) nm, z y x.
        offsets: (Z, 3) nm, the shift of the tissue in each section.
    """
    positions = np.array(forest.positions)
    parents, own = np.array(forest.parents), numbers[np.array(forest.neurons)].astype(np.int64)
    section = np.clip(positions[:, 0] // voxel_size[0], 0, len(labels) - 1).astype(int)
    positions = positions + offsets[section]
    inside = _label_at(labels, np.floor(positions / voxel_size).astype(int)) >= 0
    positions, is_in_label = _snapped(positions, own, labels, voxel_size)
    overgrown = inside & ~is_in_label
    # parents come before their children, so one pass finds the nearest remaining ancestor
    for node in np.flatnonzero(parents >= 0):
        if overgrown[parents[node]]:
            parents[node] = parents[parents[node]]
    kept = np.flatnonzero(is_in_label)
    ids = np.zeros(len(is_in_label) + 1, dtype=np.int64)  # the last entry, at index -1, is the parent of roots
    ids[kept] = np.arange(1, len(kept) + 1)
    edges = np.stack([ids[kept], ids[parents[kept]]], axis=1)
    radii = np.array(forest.radii)
    return Skeletons(ids[kept], own[kept], positions[kept], radii[kept], edges[edges[:, 1] > 0])


def _snapped(
    positions: np.ndarray, own: np.ndarray, labels: np.ndarray, voxel_size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Move positions outside their label to its nearest voxel. Return them, and whether each is in its label now."""
    voxels = np.floor(positions / voxel_size).astype(int)
    label = _label_at(labels, voxels)
    is_in_label, outside = label == own, np.flatnonzero((label >= 0) & (label != own))
    moved = positions.copy()
    far = np.floor(_SNAP / voxel_size).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in far), indexing="ij"), -1).reshape(-1, 3)
    distances = np.linalg.norm(steps * voxel_size, axis=1)
    for step in steps[np.argsort(distances, kind="stable")][: int((distances <= _SNAP).sum())]:
        candidates = voxels[outside] + step
        hit = _label_at(labels, candidates) == own[outside]
        moved[outside[hit]] = (candidates[hit] + 0.5) * voxel_size
        is_in_label[outside[hit]] = True
        outside = outside[~hit]
    return moved, is_in_label


def _label_at(labels: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Return the labels at `voxels` (N, 3), -1 outside the volume."""
    inside = ((voxels >= 0) & (voxels < labels.shape)).all(axis=1)
    values = np.full(len(voxels), -1, dtype=np.int64)
    values[inside] = labels[tuple(voxels[inside].T)]
    return values
