"""Where the blocks of a decoding leave what other blocks need; all of it is removed when the instances are written.

components/BLOCK.npz     surfaces of seed components, their sizes and first voxels
joins/BLOCK.parquet      pairs of components that touch across the borders of blocks
seeds.parquet            the seed of each component
faces/ROUND/BLOCK.npz    keys and labels at the faces of a block, where a round changed them
sizes/BLOCK.parquet      voxels of each label
instances.parquet        the instance of each label
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emsuite.blockwise.grid import BlockGrid
from emsuite.common.geometry import Coordinate
from emsuite.io.tables import read_columns, write_columns

NO_LABELS = np.empty(0, np.uint64)


@dataclass(frozen=True)
class Scratch:
    """The folder of one decoding, over the blocks of a grid."""

    folder: Path
    grid: BlockGrid
    voxel_size: Coordinate

    def done(self, step: str) -> Path:
        """Return the folder with the markers of blocks that finished a step."""
        return self.folder / "done" / step

    def components(self, block: int) -> Path:
        """Return the file of the seed components of a block."""
        return self.folder / "components" / f"{block}.npz"

    def joins(self, block: int) -> Path:
        """Return the table of the joins in front of a block."""
        return self.folder / "joins" / f"{block}.parquet"

    def sizes(self, block: int) -> Path:
        """Return the table of the sizes of labels in a block."""
        return self.folder / "sizes" / f"{block}.parquet"

    @property
    def seeds(self) -> Path:
        """The table of all components and their seeds."""
        return self.folder / "seeds.parquet"

    @property
    def instances(self) -> Path:
        """The table of all labels and their instances."""
        return self.folder / "instances.parquet"

    def faces(self, number: int, block: int) -> Path:
        """Return the file of the faces that a round changed."""
        return self.folder / "faces" / str(number) / f"{block}.npz"

    def latest_faces(self, number: int, block: int) -> Path | None:
        """Return the file of the faces of a block as they are behind a round; None if there is none yet."""
        files = (self.faces(n, block) for n in range(number, 0, -1))
        return next((file for file in files if file.exists()), None)


def write_lookup(path: Path, keys: np.ndarray, values: np.ndarray) -> None:
    """Write the value (uint64) of each key (uint64, ascending)."""
    write_columns(path, {"key": keys.astype(np.uint64), "value": values.astype(np.uint64)})


def read_lookup(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return keys and values that `write_lookup` wrote."""
    keys, values = read_columns(path, ["key", "value"])
    return keys, values
