"""Organelles inside neurites, as tubes: mitochondria, vesicles, endoplasmic reticulum, microtubules."""

import numpy as np

from emsuite.phantom.forest import Forest
from emsuite.phantom.tubes import Tubes

DENSE_CORED = 2  # value of dense-cored vesicles; clear ones have 1

_ROOM_FOR_MITOCHONDRIA = 80.0  # nm, the smallest radius of a neurite that holds one
_ROOM_FOR_VESICLES = 55.0
_ROOM_FOR_MICROTUBULES = 40.0


def mitochondria(forest: Forest, fraction: float, rng: np.random.Generator) -> Tubes:
    """Return bent tubes of 0.3 to 1.4 micrometres length along thick neurites.

    Together they fill about `fraction` of the tissue's volume. Their values number the mitochondria from 1.
    """
    target_volume = fraction * forest.tubes().volume
    thick = np.flatnonzero(np.array(forest.radii) >= _ROOM_FOR_MITOCHONDRIA)
    occupied: set[int] = set()
    parts: list[Tubes] = []
    volume = 0.0
    for node in rng.permutation(thick):
        chain = list(forest.upstream(int(node), rng.uniform(300, 1400), _ROOM_FOR_MITOCHONDRIA))
        if volume >= target_volume:
            break
        if occupied.intersection(chain):
            continue
        occupied.update(chain)
        room = np.array([forest.radii[n] for n in chain])
        radii = np.clip(room * rng.uniform(0.55, 0.95), 55, 190) * (1 + 0.1 * rng.normal(size=len(chain)))
        centres = _beside(forest, chain, np.maximum(room - radii - 10, 0), rng)
        parts.append(_tube(centres, radii, len(parts) + 1))
        volume += parts[-1].volume
    return _joined(parts)


def vesicles(forest: Forest, count: int, rng: np.random.Generator) -> Tubes:
    """Return about `count` synaptic vesicles in clusters, as balls.

    Clear vesicles have radii of 15 to 22 nm and value 1. A few are dense-cored, with 24 to 36 nm and value 2.
    """
    homes = np.flatnonzero(np.array(forest.radii) >= _ROOM_FOR_VESICLES)
    centres = [np.zeros((0, 3))]
    while len(homes) and sum(map(len, centres)) < count:
        node = int(rng.choice(homes))
        spread = min(0.7 * forest.radii[node], 130.0)
        centres.append(forest.positions[node] + spread * rng.normal(size=(rng.integers(8, 60), 3)))
    positions = np.concatenate(centres)
    total = len(positions)
    dense = rng.random(total) < 0.06
    radii = np.where(dense, rng.uniform(24, 36, total), rng.uniform(15, 22, total))
    return Tubes(positions, positions, np.stack([radii, radii], 1), np.where(dense, DENSE_CORED, 1).astype(np.int32))


def reticulum(forest: Forest, rng: np.random.Generator) -> Tubes:
    """Return smooth reticulum and endosomes: short, bent lumens of about 11 to 50 nm radius in thick neurites."""
    homes = np.flatnonzero(np.array(forest.radii) >= _ROOM_FOR_VESICLES)
    parts: list[Tubes] = []
    for node in rng.permutation(homes)[: len(homes) // 6]:
        chain = list(forest.upstream(int(node), rng.uniform(30, 400), _ROOM_FOR_VESICLES))
        room = np.array([forest.radii[n] for n in chain])
        radii = np.clip(room * rng.uniform(0.12, 0.35), 14, 42) * rng.uniform(0.8, 1.2, len(chain))
        parts.append(_tube(_beside(forest, chain, 0.75 * (room - radii), rng), radii, len(parts) + 1))
    return _joined(parts)


def microtubules(forest: Forest, rng: np.random.Generator) -> Tubes:
    """Return lines along neurites as tubes of radius 0. Thick neurites have more of them."""
    parts: list[Tubes] = []
    for tip in sorted(set(range(len(forest))) - set(forest.parents)):
        chain = list(forest.upstream(tip, np.inf, _ROOM_FOR_MICROTUBULES))
        room = np.array([forest.radii[n] for n in chain])
        for _ in range(int(room.mean() // 25) if len(chain) > 3 else 0):
            parts.append(_tube(_beside(forest, chain, 0.8 * room, rng), np.zeros(len(chain)), len(parts) + 1))
    return _joined(parts)


def _beside(forest: Forest, chain: list[int], offsets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the chain's positions, moved off its axis in one direction, by one random fraction of `offsets` nm."""
    positions = np.array([forest.positions[node] for node in chain])
    along = positions[-1] - positions[0]
    along = along / max(float(np.linalg.norm(along)), 1e-6)
    across = rng.normal(size=3)
    across -= along * (across @ along)
    return positions + across / np.linalg.norm(across) * (rng.random() * offsets[:, None])


def _tube(centres: np.ndarray, radii: np.ndarray, value: int) -> Tubes:
    first, last = (slice(None, -1), slice(1, None)) if len(radii) > 1 else (slice(None), slice(None))
    both = np.stack([radii[first], radii[last]], 1)
    return Tubes(centres[first], centres[last], both, np.full(len(both), value, np.int32))


def _joined(parts: list[Tubes]) -> Tubes:
    none = Tubes(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 2)), np.zeros(0, np.int32))
    names = ("starts", "ends", "radii", "values")
    return Tubes(*(np.concatenate([getattr(part, name) for part in [none, *parts]]) for name in names))
