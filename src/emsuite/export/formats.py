"""The formats of an export by name: each with the function that writes it."""

from collections.abc import Callable
from pathlib import Path

from emsuite.blockwise.run import BlockWorkers
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate
from emsuite.data.convert import Layout, convert
from emsuite.data.pyramid import make_pyramid
from emsuite.export.blocks import check_labels
from emsuite.export.export import Shapes, export_precomputed, export_table
from emsuite.io.chunks import CHUNK
from emsuite.io.single_file import holds_type, is_single_file
from emsuite.io.volume import LABELS, Volume, open_volume, split_path


def export(
    source: Path,
    out: Path,
    kind: str,
    *,
    roi: str | None = None,
    block_size: Coordinate | None = None,
    shapes: Shapes | None = None,
    workers: BlockWorkers = 1,
) -> str:
    """Write a segmentation in another format; a stopped run is continued.

    Args:
        source: Integers (Z, Y, X), in any format; 0 is background.
        out: What to write; its ending must be one of the format.
        kind: A key of `ENDINGS`.
        roi: The region, as `parse_roi` reads it; None: all.
        block_size: nm, z y x, of precomputed and csv; None: about 128 voxels along each axis.
        shapes: Meshes and skeletons of precomputed, which csv measures.
        workers: Processes on this machine, or jobs of Slurm. The result does not depend on them.

    Returns:
        What was written, in words.

    Raises:
        BadInput: The source is missing, unfinished or no segmentation, or `out` has an ending of another format.
    """
    endings = ENDINGS[kind]
    if not any(part.endswith(endings) for part in Path(out).parts):
        raise BadInput(f"{out}: expected a path of {kind}, with the ending {' or '.join(endings)}")
    if kind in SHAPED:
        number = SHAPED[kind](source, out, roi=roi, block_size=block_size, shapes=shapes, workers=workers)
        return f"{number} segments"
    volume = open_volume(source)
    check_labels(volume)
    out = out if split_path(out)[1] or kind not in _NAMES else out / _NAMES[kind]
    digest = convert(source, out, roi=roi, layout=Layout(_type_in(out, volume)), workers=workers)
    if kind == "ome-zarr" and max(open_volume(out).shape) > CHUNK:
        make_pyramid(out, kind="mode", workers=workers)
    return f"copied and compared, digest {digest[:16]}"


def _type_in(out: Path, volume: Volume) -> str | None:
    """Return the type of ids, if the format lacks that of the volume: TIFF has no 64 bits, and numbers alone."""
    if not is_single_file(out) or holds_type(out, volume.dtype):
        return None
    return "uint8" if volume.dtype.kind == "b" else "uint32"


_NAMES = {"ome-zarr": "segmentation", "n5": "segmentation", "hdf5": LABELS}
"""The names of arrays in containers of several."""
SHAPED: dict[str, Callable[..., int]] = {"precomputed": export_precomputed, "csv": export_table}
"""The formats of which more than voxels is made."""
ENDINGS: dict[str, tuple[str, ...]] = {
    "precomputed": (".precomputed",),
    "ome-zarr": (".zarr",),
    "n5": (".n5",),
    "hdf5": (".h5", ".hdf", ".hdf5"),
    "tiff": (".tif", ".tiff"),
    "csv": (".csv",),
}
"""The formats of an export, and the endings of their paths."""
