"""Files of a phantom: a zarr container, or one HDF5 file in the layout of CREMI's.

    volumes/raw                  uint8
    volumes/labels/neuron_ids    uint64, smaller than raw if it is padded
    volumes/labels/clefts        uint64, CREMI's alone: 2**64 - 1 where there is no synaptic cleft

In CREMI's layout, arrays have `resolution`, and `offset` if it is not 0, both float64 nm, and the file has its
`file_format` (github.com/cremi/cremi_python, CremiFile). Annotations of synapses are left out, as there for a volume
without any.
"""

from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.io.single_file import write_hdf5
from emsuite.io.volume import LABELS, RAW, create_volume
from emsuite.phantom.settings import PhantomSettings
from emsuite.phantom.synthesize import Phantom

CLEFTS = "volumes/labels/clefts"
SUFFIXES = (".zarr", ".hdf", ".h5", ".hdf5")

_FORMAT = "0.2"  # of the layout, as CREMI's files say
_NO_CLEFT = np.uint64(2**64 - 1)


def check_suffix(path: Path) -> None:
    """Raise BadInput for a path of another format than those of phantoms."""
    if path.suffix not in SUFFIXES:
        expected = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise BadInput(f"--out {path}: expected a name that ends in {expected}")


def write_phantom(phantom: Phantom, path: Path, settings: PhantomSettings) -> None:
    """Write raw and labels into a new zarr container, or into one HDF5 file, by the suffix of `path`."""
    size = settings.voxel_size
    offset = tuple(border * nm for border, nm in zip(settings.padding, size, strict=True))
    arrays = [(RAW, phantom.raw, (0, 0, 0)), (LABELS, phantom.labels, offset)]
    if path.suffix == ".zarr":
        for name, voxels, begin in arrays:
            array = create_volume(path / name, voxels.shape, voxels.dtype, size, begin)
            array.write(array.roi, voxels)
        return
    arrays.append((CLEFTS, np.full(phantom.labels.shape, _NO_CLEFT), offset))
    write_hdf5(path, {name: (voxels, _grid(size, begin)) for name, voxels, begin in arrays}, {"file_format": _FORMAT})


def _grid(voxel_size: tuple[int, ...], offset: tuple[int, ...]) -> dict[str, Any]:
    """Return the attributes of an array, as CREMI's files have them."""
    attributes = {"resolution": list(map(float, voxel_size))}
    return attributes | ({"offset": list(map(float, offset))} if any(offset) else {})
