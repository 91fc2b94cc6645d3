"""Growth of neurites, thick ones first, into the free space of a box.

A growing tip tries directions within a cone. It steps to the position where a tube of its radius fits most tightly
beside the existing tubes. It becomes thinner in narrow gaps, and stops if nothing fits. So tubes run alongside each
other and squeeze through gaps, and thin tubes gather in bundles between thick ones, as in neuropil. A neurite with both
ends inside the box becomes a branch of its neighbour, so that no neuron lies completely inside the volume.
"""

import numpy as np
from scipy import ndimage

from emsuite.phantom.forest import Forest
from emsuite.phantom.tubes import TubeField

THINNEST = 20.0  # nm, smallest radius: the finest processes of real neuropil are 40 to 50 nm wide
_MARGIN = 160.0  # nm that the box is larger than the volume on each side, so that neurites pass through its faces
_GRID = 16.0  # nm per voxel of the map of free space
_TRIES = 16  # directions that a tip tries
_LONGEST = 2000  # largest number of steps of one tip
_BRANCHING = 0.07  # probability that a branch starts at a node
# Classes of neurites: radius relative to the thickest, and the filled fraction of space at which the next class begins
_CLASSES = ((1.0, 0.30), (0.6, 0.48), (0.36, 0.60), (0.22, 0.68), (0.14, 0.75), (0.09, 1.0))


def grow(extent: np.ndarray, thickest: float, rng: np.random.Generator) -> Forest:
    """Fill a box with neurites that share a random main direction.

    Args:
        extent: (3,) nm, z y x, of the phantom's volume. Neurites also grow in a margin around it.
        thickest: radius of the thickest class, nm. The smallest radius is 20 nm.
        rng: decides everything else.
    """
    return _Growth(np.asarray(extent, np.float64), thickest, rng).run()


class _Growth:
    def __init__(self, extent: np.ndarray, thickest: float, rng: np.random.Generator):
        self.low, self.high, self.rng = np.full(3, -_MARGIN), extent + _MARGIN, rng
        # a small volume has room for several neurites only if they are thin compared with it
        self.thickest = max(THINNEST, min(thickest, 0.2 * float((self.high - self.low).min())))
        shape = tuple(int(n) for n in np.ceil((self.high - self.low) / _GRID) + 1)
        self.space = TubeField.empty(shape, self.low, np.full(3, _GRID), 2 * self.thickest)
        self.tract = _unit(rng.normal(size=3))
        self.forest = Forest()

    def run(self) -> Forest:
        for factor, filled in _CLASSES:
            radius = max(1.25 * THINNEST, factor * self.thickest)
            self.reach = 1.5 * radius
            np.minimum(self.space.phi, self.reach, out=self.space.phi)
            failures = 0
            while failures < 12 and (self.space.phi < 0).mean() < filled:
                start = self._free_position(radius)
                if start is None:
                    break
                failures = 0 if self._neurite(start, radius * self.rng.uniform(0.75, 1.25)) else failures + 1
        return self.forest

    def _free_position(self, radius: float) -> np.ndarray | None:
        """Return the tightest of six random positions at which a tube of `radius` fits, None if it fits nowhere."""
        fits = np.flatnonzero(self.space.phi >= radius)
        if not len(fits):
            return None
        candidates = fits[self.rng.integers(len(fits), size=6)]
        best = candidates[np.argmin(self.space.phi.ravel()[candidates])]
        return self.low + _GRID * np.array(np.unravel_index(best, self.space.phi.shape))

    def _neurite(self, start: np.ndarray, radius: float) -> bool:
        """Grow from `start` in both directions, then grow branches. Return whether the neurite is longer than thick."""
        heading = _unit(self.tract + 0.7 * self.rng.normal(size=3))
        ahead, left_ahead = self._walk(start, heading, radius)
        behind, left_behind = self._walk(start, -heading, radius)
        positions, radii = _smoothed(ahead[::-1] + behind[1:])
        parent, neuron = -1, max(self.forest.neurons, default=0) + 1
        if not (left_ahead or left_behind) and (beside := self._neighbour(positions[0])) >= 0:
            parent, neuron = beside, self.forest.neurons[beside]
        for node in self._plant(positions, radii, parent, neuron):
            if self.rng.random() < _BRANCHING:
                self._branch(node)
        return float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum()) > 4 * radius

    def _branch(self, node: int) -> None:
        """Grow a branch from `node` in the direction with the most room, and sometimes a branch of the branch."""
        thick = self.forest.radii[node]
        radius = max(THINNEST, thick * self.rng.uniform(0.3, 0.8))
        headings = _unit(self.rng.normal(size=(_TRIES, 3)))
        starts = self.forest.positions[node] + headings * (thick + 1.3 * radius)
        room = self._room(starts)
        best = int(np.argmax(room))
        if room[best] < THINNEST:
            return
        chain, _ = self._walk(starts[best], headings[best], radius)
        nodes = self._plant(*_smoothed(chain), node, self.forest.neurons[node])
        if len(nodes) > 4 and self.rng.random() < 0.5:
            self._branch(int(self.rng.choice(nodes[2:-1])))

    def _plant(self, positions: np.ndarray, radii: np.ndarray, parent: int, neuron: int) -> range:
        nodes = self.forest.add(positions, radii, parent, neuron)
        self.space.add(self.forest.tubes(nodes, [node + 1 for node in nodes]), self.reach)
        return nodes

    def _walk(self, start: np.ndarray, heading: np.ndarray, target: float) -> tuple[list, bool]:
        """Return a chain of (position, radius) from `start`, and whether it left the box.

        `target` is the radius that the neurite has where space allows.
        """
        target = max(THINNEST, target)
        first = float(np.clip(self._room(start[None])[0], THINNEST, target))
        chain, position, swelling = [(start, first)], start, 0.0
        wiggle = 0.18 + 0.25 * THINNEST / target
        for _ in range(_LONGEST):
            if (position < self.low).any() or (position > self.high).any():
                return chain, True
            swelling = 0.8 * swelling + 0.14 * self.rng.normal()
            preferred_radius = max(THINNEST, target * np.exp(swelling))
            step = max(0.9 * _GRID, 0.55 * chain[-1][1])
            headings = _unit(heading + wiggle * self.rng.normal(size=(_TRIES, 3)))
            room = self._room(position + step * headings)
            snug = np.minimum(room, preferred_radius) - 0.25 * np.maximum(room - preferred_radius, 0)
            best = int(np.argmax(snug / preferred_radius + 0.8 * (headings * heading).sum(axis=1)))
            if room[best] < THINNEST:
                return chain, False
            heading, position = headings[best], position + step * headings[best]
            # no sudden jumps in thickness
            limits = chain[-1][1] + 0.4 * step * np.array([-1, 1])
            chain.append((position, max(THINNEST, float(np.clip(min(preferred_radius, room[best]), *limits)))))
        return chain, False

    def _room(self, positions: np.ndarray) -> np.ndarray:
        """Return the distance from each of `positions` to the nearest existing surface, nm."""
        voxels = ((positions - self.low) / _GRID).T
        return ndimage.map_coordinates(self.space.phi, voxels, order=1, mode="nearest")

    def _neighbour(self, position: np.ndarray) -> int:
        """Return the node whose tube is nearest to `position`, -1 if none is near."""
        index = np.clip(np.rint((position - self.low) / _GRID).astype(int), 0, np.array(self.space.phi.shape) - 1)
        node = int(self.space.owner[tuple(index)]) - 1
        parent = self.forest.parents[node] if node >= 0 else -1
        if parent < 0:
            return node
        return min(node, parent, key=lambda end: float(np.linalg.norm(self.forest.positions[end] - position)))


def _smoothed(chain: list) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and radii of a chain after smoothing its kinks. Both ends stay."""
    values = np.array([[*position, radius] for position, radius in chain])
    for _ in range(2):
        values[1:-1] = (values[:-2] + 2 * values[1:-1] + values[2:]) / 4
    return values[:, :3], values[:, 3]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
