"""Pairs of images and their labels on one region, as the next step of a workflow trains on them.

VOLUME.zarr, VOLUME.h5    volumes/raw and volumes/labels/neuron_ids, with the mask of labels if there is one
FOLDER                    images.h5 and labels.h5, each with the dataset `main`, as PyTorch Connectomics reads them
"""

from pathlib import Path

from emsuite.blockwise.run import BlockWorkers
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi
from emsuite.data.derived.arrays import DerivedArray, carried_mask, write_derived
from emsuite.data.grey_values import TYPES, is_grey
from emsuite.io.regions import format_roi, parse_roi
from emsuite.io.volume import LABELS, RAW, Volume, open_volume

MAIN = "main"
"""The dataset in files of a folder."""


def write_pairs(
    image: Path, labels: Path, to: Path, *, roi: str | None = None, as_main: bool = False, workers: BlockWorkers = 1
) -> Roi:
    """Write the region on which an image and labels both lie; a finished one of the same arrays is kept.

    Args:
        image: (Z, Y, X), or one channel, of a type of grey values, as a prediction of a transferred image.
        labels: (Z, Y, X) integers of the same voxels.
        to: The container to write, zarr or HDF5; or, `as_main`, a folder.
        roi: The region, as `parse_roi` reads it in the image; None: all that both cover.
        as_main: Whether two files with the dataset `main` are written.
        workers: Processes on this machine, or jobs of Slurm, for a zarr.

    Returns:
        The region that was written, nm.

    Raises:
        BadInput: Voxels differ in size or place, the region is not covered by both and by a mask of the labels, or `to`
            cannot be written.
    """
    pictures, objects = open_volume(image), open_volume(labels)
    region = _region(pictures, objects, roi)
    raw = DerivedArray(image, region, pictures.dtype)
    ids = DerivedArray(labels, region, objects.dtype)
    settings = {"roi": format_roi(region)}
    if not as_main:
        write_derived(to, {RAW: raw, LABELS: ids} | carried_mask(labels, region), settings, workers)
        return region
    if to.suffix:
        raise BadInput(f"{to}: expected a folder for images.h5 and labels.h5, a name without an ending")
    to.mkdir(parents=True, exist_ok=True)
    for name, array in (("images.h5", raw), ("labels.h5", ids)):
        write_derived(to / name, {MAIN: array}, settings)
    return region


def _region(image: Volume, labels: Volume, roi: str | None) -> Roi:
    for volume, what, is_good in (
        (image, f"images (z, y, x): {TYPES}", is_grey(image.dtype)),
        (labels, "labels (z, y, x), integers", labels.dtype.kind in "uib"),
    ):
        if volume.voxel_size.dims != 3 or volume.channels not in (None, 1) or not is_good:
            raise BadInput(f"{volume.path}: {volume.dtype} {volume.shape}, expected {what}")
    if image.voxel_size != labels.voxel_size:
        raise BadInput(f"{labels.path}: voxels of {labels.voxel_size} nm, expected the image's, {image.voxel_size} nm")
    if (labels.offset - image.offset) % image.voxel_size != Coordinate(0, 0, 0):
        raise BadInput(f"{labels.path}: begins at {labels.offset} nm, not whole voxels from the image's {image.offset}")
    region = image.roi.intersect(labels.roi) if roi is None else parse_roi(roi, image)
    if region.empty:
        raise BadInput(f"{labels.path}: covers {labels.roi} nm, expected it to overlap the image, {image.roi} nm")
    labels.check(region)
    return region
