"""Trees of neurites: nodes with a position, a radius and a parent."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from emsuite.phantom.tubes import Tubes


@dataclass
class Forest:
    """The nodes of all trees. A node is an index into these lists; a parent has a lower index than its children."""

    positions: list[np.ndarray] = field(default_factory=list)
    """nm, z y x, from the corner of the phantom's volume."""
    radii: list[float] = field(default_factory=list)
    """nm."""
    parents: list[int] = field(default_factory=list)
    """-1 at a root."""
    neurons: list[int] = field(default_factory=list)
    """Number of the neuron, from 1."""

    def __len__(self) -> int:
        return len(self.radii)

    def add(self, positions: np.ndarray, radii: np.ndarray, parent: int, neuron: int) -> range:
        """Append a chain of nodes, the first of which is a child of node `parent`. Return their indices."""
        first = len(self)
        self.positions.extend(positions)
        self.radii.extend(float(radius) for radius in radii)
        self.parents.extend([parent, *range(first, first + len(radii) - 1)])
        self.neurons.extend([neuron] * len(radii))
        return range(first, len(self))

    def tubes(self, nodes: range | None = None, values: list[int] | None = None) -> Tubes:
        """Return one tube per node, from its parent to it; the tube of a root is a ball.

        Args:
            nodes: default: all nodes.
            values: the values of the tubes; default: the numbers of the neurons.
        """
        ends = range(len(self)) if nodes is None else nodes
        starts = [node if self.parents[node] < 0 else self.parents[node] for node in ends]
        end_radii, start_radii = np.array([[self.radii[node] for node in side] for side in (ends, starts)])
        # a thin branch of a thick parent is thin from the parent's axis on
        start_radii = np.where(start_radii > 1.6 * end_radii, end_radii, start_radii)
        start_positions, end_positions = (np.array([self.positions[node] for node in side]) for side in (starts, ends))
        tube_values = [self.neurons[node] for node in ends] if values is None else values
        radii = np.stack([start_radii, end_radii], 1)
        return Tubes(start_positions, end_positions, radii, np.array(tube_values, np.int32))

    def upstream(self, node: int, length: float, min_radius: float) -> Iterator[int]:
        """Yield the nodes from `node` towards the root, over `length` nm, while radii are at least `min_radius` nm."""
        while node >= 0 and length > 0 and self.radii[node] >= min_radius:
            yield node
            parent = self.parents[node]
            if parent >= 0:
                length -= float(np.linalg.norm(self.positions[parent] - self.positions[node]))
            node = parent
