"""Flat fields: the light that reaches each pixel, estimated from the mean of all images of a channel.

    mean image  ->  medians of blocks  ->  least squares of nine terms  ->  polynomial / its mean
    (Y, X)          at their centres       y^m x^n, m, n = 0, 1, 2          (Y, X), an image is divided by it

The nine terms and the medians of blocks are microDL's (czbiohub, `estimate_flat_field.py`).
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput
from emsuite.common.files import atomic_path, write_json
from emsuite.common.outputs import check_finished

_log = logging.getLogger(__name__)
_TERMS = [(m, n) for m in range(3) for n in range(3)]


class Light(NamedTuple):
    """The images that a flat field belongs to."""

    channel: int
    """The number of the channel in the plate."""
    name: str
    """The name of the channel."""
    size: tuple[int, int]
    """Pixels along y and x."""
    pixel_size_nm: tuple[float, float] | None
    """Along y and x; None if it is unknown."""


class SumOfImages(NamedTuple):
    """The number of images, and their sum (Y, X) float64; images of one value throughout do not count."""

    images: int
    total: np.ndarray


def sum_of_images(volume: np.ndarray) -> SumOfImages:
    """Return the sum of the sections of a volume (Z, Y, X) that are not empty."""
    sections = volume[~empty_sections(volume)]
    return SumOfImages(len(sections), sections.sum(0, dtype=np.float64))


def empty_sections(volume: np.ndarray) -> np.ndarray:
    """Return for each section of a volume (Z, Y, X) whether it is empty: one value throughout, as without light."""
    flat = volume.reshape(len(volume), -1)
    return np.asarray(flat.min(1) == flat.max(1))


def block_medians(image: np.ndarray, block_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the medians of the blocks of an image (Y, X), and their centres y and x in pixels.

    Whole blocks count; the rest at the end of an axis is left out, as in microDL.
    """
    rows, columns = (length // block_size for length in image.shape)
    whole = image[: rows * block_size, : columns * block_size]
    blocks = whole.reshape(rows, block_size, columns, block_size).swapaxes(1, 2).reshape(rows, columns, -1)
    centres = [(np.arange(count) + 0.5) * block_size - 0.5 for count in (rows, columns)]
    y, x = np.meshgrid(*centres, indexing="ij")
    return np.median(blocks, axis=2).ravel(), y.ravel(), x.ravel()


def fit_flat_field(image: np.ndarray, block_size: int) -> np.ndarray:
    """Return the flat field of the mean image of a channel.

    Args:
        image: (Y, X), the mean of many images.
        block_size: pixels along y and x of the blocks whose medians are fitted.

    Returns:
        (Y, X) float64 with mean 1.

    Raises:
        BadInput: fewer than 3 blocks along an axis, or a fit that is not above 0 everywhere.
    """
    if min(length // block_size for length in image.shape) < 3:
        raise BadInput(
            f"images of {image.shape} have fewer than 3 blocks of {block_size}, expected a smaller block_size"
        )
    medians, y, x = block_medians(image, block_size)
    terms = np.linalg.lstsq(_powers(y, x, image.shape), medians, rcond=None)[0]
    at = np.meshgrid(*map(np.arange, image.shape), indexing="ij")
    fitted = (_powers(at[0].ravel(), at[1].ravel(), image.shape) @ terms).reshape(image.shape)
    if fitted.min() <= 0:
        raise BadInput(f"the fitted light falls to {fitted.min():.3g}, expected values above 0 everywhere")
    return np.asarray(fitted / fitted.mean())


def _powers(y: np.ndarray, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the nine terms at pixels; pixels count from -1 to 1, where powers stay small."""
    y, x = (2 * place / max(1, length - 1) - 1 for place, length in zip((y, x), shape, strict=True))
    return np.stack([y**m * x**n for m, n in _TERMS], axis=1)


def flat_field_path(folder: Path, channel: int) -> Path:
    """Return the path of the flat field of a channel, by microDL's name."""
    return folder / f"flat-field_channel-{channel}.npy"


def write_flat_field(folder: Path, field: np.ndarray, light: Light) -> None:
    """Store a flat field (Y, X), and beside it the record of the channel that it belongs to."""
    path = flat_field_path(folder, light.channel)
    with atomic_path(path) as part, open(part, "wb") as file:
        np.save(file, field)
    write_json(path.with_suffix(".json"), light._asdict())


def read_flat_field(folder: Path, light: Light) -> np.ndarray:
    """Return a stored flat field.

    Args:
        folder: of an earlier run; or of microDL, without records, where the number of the channel alone counts.
        light: the channel that is corrected.

    Returns:
        (Y, X) float64.

    Raises:
        BadInput: it is missing, damaged, of another channel, size or pixel size, or not above 0.
    """
    check_finished(folder)
    path = flat_field_path(folder, light.channel)
    try:
        field = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file, expected the flat field of channel {light.channel}") from None
    except (ValueError, EOFError) as error:
        raise BadInput(f"{path}: cannot be read as NPY: {error}") from None
    if field.shape != light.size or field.dtype.kind != "f":
        raise BadInput(f"{path}: {field.shape} {field.dtype}, expected floats {light.size}")
    if not (field > 0).all():
        raise BadInput(f"{path}: holds values that are not above 0")
    _check_light(path.with_suffix(".json"), light)
    return np.asarray(field, np.float64)


def _check_light(record: Path, light: Light) -> None:
    """Compare the record of a stored field, if there is one, with the channel that is corrected."""
    if not record.exists():
        _log.warning("%s: no such file; only the number tells that the field is that of %s", record, light.name)
        return
    told: Any = read_json(record)
    try:
        name, size = str(told["name"]), told["pixel_size_nm"]
        same = size is None or light.pixel_size_nm is None or np.allclose(size, light.pixel_size_nm, rtol=1e-6, atol=0)
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{record}: cannot be read, expected the record of a flat field") from None
    if name != light.name:
        raise BadInput(f"{record}: a flat field of channel {name}, expected {light.name}, channel {light.channel}")
    if not same:
        raise BadInput(
            f"{record}: a flat field of pixels of {size} nm (y, x), expected {list(light.pixel_size_nm or ())}"
        )


def estimate_flat_field(sums: Iterable[SumOfImages], block_size: int, where: str) -> tuple[np.ndarray, int]:
    """Return the flat field of a channel, and the number of images that it was estimated from.

    Args:
        sums: of volumes, all of one size (Y, X).
        block_size: see `fit_flat_field`.
        where: the plate and the channel, for messages.

    Raises:
        BadInput: as `fit_flat_field`, and if all images are constant.
    """
    images, total = 0, np.zeros(())
    for count, one in sums:
        images, total = images + count, total + one
    if not images:
        raise BadInput(f"{where}: all images are constant, expected some with light")
    try:
        return fit_flat_field(total / images, block_size), images
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
