"""What a network to a vector predicts of a plate: a table of one value for each volume and target channel.

volume  ->  tiles of the training's samples, the last of an axis moved inside  ->  network  ->  mean over the tiles
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.files import write_table
from emsuite.common.outputs import is_finished, output
from emsuite.io.fingerprint import origin_of
from emsuite.io.volume import fingerprint
from emsuite.plates.plate import check_outside, in_threads
from emsuite.plates.tiles import tiles_of
from emsuite.prediction.plate.forward import ImagePredictor
from emsuite.prediction.plate.source import Channel, PlateSource, as_grey

COLUMNS = ("position", "time", "channel", "value")


def write_vectors(
    out: Path, source: PlateSource, predictor: ImagePredictor, shape: Sequence[int], channels: Sequence[Channel],
    positions: Sequence[str], settings: Mapping[str, Any], inputs: Mapping[str, Path], workers: int,
) -> bool:  # fmt: skip
    """Write the table, unless it is there already, made with the same settings.

    Args:
        out: the CSV file.
        source: the plate.
        predictor: its network has the output vector.
        shape: voxels of a tile, z y x, those of a sample in training.
        channels: what is predicted.
        positions: of which.
        settings: all that decide the bytes, beside the plate.
        inputs: the checkpoint and the plate.
        workers: threads; the bytes do not depend on them.

    Returns:
        Whether anything was written.

    Raises:
        BadInput: an image is smaller than a tile.
    """
    check_outside(out, source.path)
    record = dict(settings) | {"origin": origin_of(source.plate.path)}
    if is_finished(out, record):
        return False

    def rows(position: str) -> list[dict[str, Any]]:
        found = []
        for time in range(source.plate.shape(position)[0]):
            values = mean_vector(predictor, source.read(position, time), shape, f"{source.plate.path}/{position}")
            for channel, value in zip(channels, values, strict=True):
                grey = float(as_grey(np.array(value), channel))
                found.append(dict(zip(COLUMNS, (position, time, channel.name, grey), strict=True)))
        return found

    with output(out, record, inputs=inputs, fingerprint=fingerprint) as made:
        tables = in_threads(rows, positions, workers, "predict")
        write_table(made.file, COLUMNS, itertools.chain.from_iterable(tables))
        made.become_file()
    return True


def mean_vector(predictor: ImagePredictor, image: np.ndarray, shape: Sequence[int], where: str) -> np.ndarray:
    """Return the mean (T,) over the tiles of an image (C, Z, Y, X); `where` names it in messages."""
    try:
        boxes = list(tiles_of(image.shape[1:], shape, None))
    except ValueError as error:
        raise BadInput(f"{where}: {error}") from None
    return np.mean(list(_each(predictor, image, boxes)), axis=0)


def _each(predictor: ImagePredictor, image: np.ndarray, boxes: Sequence[tuple[slice, ...]]) -> Iterator[np.ndarray]:
    for box in boxes:
        yield predictor.pass_through(image[:, *box])[:, 0, 0, 0].astype(np.float64)
