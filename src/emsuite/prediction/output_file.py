"""A prediction in one HDF5 file, beside that in a zarr.

    predictions.hdf.unfinished.zarr     all workers write tiles there; a stopped run is continued
    predictions.hdf                     written by one process from it, read back and compared, then renamed
    predictions.hdf.manifest.json       written last; the zarr is gone by then

A run that is stopped while the file is written writes the file again, from the finished tiles. So both kinds of output
hold the same voxels, whatever the number of workers and however often a run was stopped. The disk holds both for a
while.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.geometry import Roi
from emsuite.common.outputs import is_finished, lock_path, output, unfinished_path
from emsuite.common.state.lock import OutputInUse, owned
from emsuite.common.state.origins import manifest_path
from emsuite.common.state.ownership import mark_path
from emsuite.data.copied_blocks import compare
from emsuite.io.compression import ZSTD
from emsuite.io.single_file import plan_array, writing_arrays
from emsuite.io.volume import (
    Volume,
    array_names,
    fingerprint,
    further_attributes,
    name_of_format,
    open_volume,
    split_path,
)
from emsuite.prediction.predict import predict_to
from emsuite.prediction.predictor import Predictor
from emsuite.prediction.request import EVERYTHING, Request
from emsuite.prediction.settings import decided_settings, same_weights

_KEPT = 64  # voxels along an axis that are compared at once, in whole chunks


def predict_into(
    out: Path,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Path],
    predictor: Predictor,
    raw: Volume,
    roi: Roi,
    workers: int = 1,
    request: Request = EVERYTHING,
) -> bool:
    """Predict a region to a zarr container or an HDF5 file, as the name `out` says, unless it is there already.

    Arguments and result are those of `predict_to`, but `settings` lack the predictor's and the voxels'. An HDF5 file
    gets one array per head under the same names, and holds nothing else; its chunks are packed by gzip.

    Raises:
        BadInput: `out` names neither, or the request names a compression for HDF5.
    """
    is_hdf5 = name_of_format(out) == "hdf5"
    _check(out, is_hdf5, request)
    decided = decided_settings(settings, predictor, raw, roi)
    if not is_hdf5:
        return predict_to(out, decided, inputs, predictor, raw, roi, workers, request)
    tiles = out.with_name(out.name + ".unfinished.zarr")
    of_file = decided | {"file": "hdf5"}
    upgrade = same_weights(of_file)
    if is_finished(out, of_file, upgrade):
        _remove_left_tiles(out, tiles)
        return False
    with output(out, of_file, inputs=inputs, upgrade=upgrade, fingerprint=fingerprint):
        predict_to(tiles, decided, inputs, predictor, raw, roi, workers, request)
        _write(out, [open_volume(tiles / name) for name in array_names(tiles)])
    _remove_tiles(tiles)
    return True


def _check(out: Path, is_hdf5: bool, request: Request) -> None:
    """Raise BadInput for a name or a compression that cannot be, before anything is read or written."""
    if not is_hdf5 and out.suffix != ".zarr":
        raise BadInput(f"{out}: predictions are written as zarr, expected a name that ends in .zarr, or in .hdf")
    if is_hdf5 and split_path(out)[1]:
        raise BadInput(f"{out}: lies in an HDF5 file; expected the name of the file, which gets an array per head")
    if is_hdf5 and request.compression != ZSTD:
        raise BadInput(f"{out}: HDF5 files are packed by gzip, not by {request.compression}; leave out --compression")


def _write(out: Path, sources: Iterable[Volume]) -> None:
    """Write the arrays to a file, one process and one array after the other, and compare each with its source."""
    named = {split_path(source.path)[1]: source for source in sources}
    planned = {}
    for name, source in named.items():
        more, chunks = further_attributes(source), tuple(source.array.chunks)
        new = plan_array(out / name, source.shape, source.dtype, source, source.offset, chunks, **more)
        planned[name] = new, _reader(source)
    with writing_arrays(out, planned) as file:
        for name, source in named.items():
            block = [-(-_KEPT // n) * n for n in planned[name][0].chunks[1:]]
            compare(source, open_volume(file / name), source.roi, source.dtype, block)


def _reader(source: Volume) -> Callable[[tuple[slice, ...]], np.ndarray]:
    def read(box: tuple[slice, ...]) -> np.ndarray:
        return source[box]

    return read


def _remove_left_tiles(out: Path, tiles: Path) -> None:
    """Remove the tiles of a run that was killed behind the manifest of its file, unless another run writes."""
    if any(path.exists() for path in (manifest_path(tiles), mark_path(tiles))):
        with suppress(OutputInUse, OSError), owned(lock_path(out), out):
            if not unfinished_path(out).exists():
                _remove_tiles(tiles)


def _remove_tiles(tiles: Path) -> None:
    for path in (manifest_path(tiles), tiles, mark_path(tiles), lock_path(tiles)):
        remove(path)
