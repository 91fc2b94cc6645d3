"""The volumes that a network is trained on: named on the command line, or the training split of its data set."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from funlib.geometry import Coordinate, Roi
from pydantic import ValidationError

from emsuite.common.device import free_memory
from emsuite.common.errors import BadInput
from emsuite.config.dataset import load_dataset
from emsuite.config.layout import DATA, DATASETS
from emsuite.config.network import NetworkConfig
from emsuite.config.parts import VolumePart
from emsuite.data.training_volume import Ones, TrainingVolume, load_training_volume, memory_needed
from emsuite.io.fingerprint import content
from emsuite.io.volume import LABELS, MASK, RAW, Volume, open_volume, parse_roi

logger = logging.getLogger(__name__)


def load_training_data(config: NetworkConfig, volumes: Sequence[str], project: Path) -> list[TrainingVolume]:
    """Read the training volumes.

    They stay on disk if `training.stream` says so. If it says nothing, they stay on disk if they need more than half of
    the free memory.

    Args:
        config: of the network; names its voxel size and its data set.
        volumes: `VOLUME.zarr`, or `VOLUME.zarr@z0:z1,y0:y1,x0:x1` to use the labels inside this ROI (nm) alone; none:
            the training split of the data set.
        project: the folder of the project, with its `data` folder.

    Raises:
        BadInput: a volume is missing, or has another voxel size.
    """
    chosen = [_read_part(text) for text in volumes] or _split(config, project)
    parts = [_checked(config, part) for part in chosen]
    stream = config.training.stream
    if stream is None:
        needed, free = sum(memory_needed(path, roi) for path, roi in parts), free_memory()
        stream = needed > free // 2
        if stream:
            logger.info("Volumes of %.1f GiB, memory of %.1f GiB free: read as needed", needed / 2**30, free / 2**30)
    return [load_training_volume(path, roi, stream) for path, roi in parts]


def training_data(volumes: Sequence[TrainingVolume]) -> list[dict[str, Any]]:
    """Return what decides the samples of each volume: its name, and the contents of raw, labels and mask.

    Contents are hashes of voxels, so that a copy of a volume, or the same volume in another format, is the same. Of
    labels and mask, the region to train in counts.
    """
    return [_content(volume) for volume in volumes]


def _content(volume: TrainingVolume) -> dict[str, Any]:
    path = Path(volume.name)
    told: dict[str, Any] = {"volume": path.stem, "raw": content(open_volume(path / RAW))}
    if volume.labels is None or volume.mask is None:
        return told
    region = Roi(volume.labels_offset, Coordinate(volume.labels.shape) * volume.voxel_size)
    told["labels"] = content(open_volume(path / LABELS), region)
    told["mask"] = None if isinstance(volume.mask, Ones) else _mask_content(open_volume(path / MASK), region)
    return told


def _mask_content(mask: Volume, region: Roi) -> str | None:
    """Return the content of a mask, or None if it is 1 throughout, as in a volume without a mask."""
    full = list[bool]()

    def binary(voxels: np.ndarray) -> np.ndarray:
        full.append(bool(voxels.all()))
        return voxels != 0

    told = content(mask, region, binary)
    return None if full and all(full) else told


def _read_part(text: str) -> VolumePart:
    try:
        return VolumePart.model_validate(text)
    except ValidationError as error:
        raise BadInput(f"--data {text}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _split(config: NetworkConfig, project: Path) -> list[VolumePart]:
    dataset = load_dataset(config.dataset, project / DATASETS)
    parts = [
        VolumePart(volume=dataset.volume_path(part.volume, project / DATA), roi=part.roi)
        for part in dataset.split.train
    ]
    present = [part for part in parts if part.volume.is_dir()]
    if not present:
        raise BadInput(
            f"{parts[0].volume if parts else project / 'data'}: no volume of {config.dataset} to train on is there; "
            "fetch one, or name one with --data"
        )
    return present


def _checked(config: NetworkConfig, part: VolumePart) -> tuple[str, Roi | None]:
    labels = open_volume(part.volume / LABELS)
    if tuple(labels.voxel_size) != config.voxel_size:
        raise BadInput(
            f"{labels.path}: voxel size {tuple(labels.voxel_size)} nm, expected the network's {config.voxel_size}"
        )
    return str(part.volume), parse_roi(part.roi, labels) if part.roi else None
