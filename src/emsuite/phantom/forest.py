"""Trees of neurites: nodes with a place and a radius, each hanging on its parent."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from emsuite.phantom.tubes import Tubes


@dataclass
class Forest:
    """Nodes by index: `positions` nm z y x from the cut-out's corner, `radii` nm, `parents` (-1 at a root),
    `neurons` (from 1)."""

    positions: list[np.ndarray] = field(default_factory=list)
    radii: list[float] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    neurons: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.radii)

    def add(self, positions: np.ndarray, radii: np.ndarray, parent: int, neuron: int) -> range:
        """Append a chain of nodes whose first hangs on node `parent`; returns their indices."""
        first = len(self)
        self.positions.extend(positions)
        self.radii.extend(float(radius) for radius in radii)
        self.parents.extend([parent, *range(first, first + len(radii) - 1)])
        self.neurons.extend([neuron] * len(radii))
        return range(first, len(self))

    def tubes(self, nodes: range | None = None, values: list[int] | None = None) -> Tubes:
        """The tube from each node's parent to it (a ball at a root); its value is the neuron, or what is given."""
        chosen = range(len(self)) if nodes is None else nodes
        before = [node if self.parents[node] < 0 else self.parents[node] for node in chosen]
        radii, leaving = np.array([[self.radii[node] for node in some] for some in (chosen, before)])
        # where a thin branch leaves a thick parent, it is thin from the parent's axis on
        leaving = np.where(leaving > 1.6 * radii, radii, leaving)
        starts, ends = (np.array([self.positions[node] for node in some]) for some in (before, chosen))
        value = [self.neurons[node] for node in chosen] if values is None else values
        return Tubes(starts, ends, np.stack([leaving, radii], 1), np.array(value, np.int32))

    def upstream(self, node: int, length: float, room: float) -> Iterator[int]:
        """The nodes from `node` towards the root, for `length` nm, while the neurite has `room` nm of radius."""
        while node >= 0 and length > 0 and self.radii[node] >= room:
            yield node
            parent = self.parents[node]
            if parent >= 0:
                length -= float(np.linalg.norm(self.positions[parent] - self.positions[node]))
            node = parent
