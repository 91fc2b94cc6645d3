"""The volumes that a network is trained on: named on the command line, or the training split of its data set."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from emsuite.augment.missing_sections import ArtifactVolume
from emsuite.augment.registry import Augmentations
from emsuite.common.device import free_memory
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi, json_numbers
from emsuite.config.dataset import Part, load_dataset
from emsuite.config.layout import DATA, DATASETS
from emsuite.config.network import NetworkConfig
from emsuite.config.parts import VolumePart
from emsuite.data.artifact_sections import artifacts_of, open_artifacts
from emsuite.data.grey_values import GreyRange, in_grey_range, measure_range, tell_range
from emsuite.data.images.image_volume import ImageVolume
from emsuite.data.images.volumes import ImageLoader, ReadyPlate
from emsuite.data.labels_mask import MaskRule
from emsuite.data.training_volume import Ones, TrainingVolume, check_grey, load_training_volume, memory_needed
from emsuite.data.transfer.volumes import paths_of
from emsuite.io.fingerprint import content
from emsuite.io.regions import parse_roi, shared_volume
from emsuite.io.volume import LABELS, MASK, RAW, Volume, holds_array, is_url, open_volume
from emsuite.models.receptive_field import output_shape
from emsuite.training.transfer.domains import DomainVolume, Statistics, load_domains, load_held_out_domains

logger = logging.getLogger(__name__)


def load_training_data(
    config: NetworkConfig, volumes: Sequence[str], project: Path, recorded: GreyRange | Statistics | None = None
) -> list[TrainingVolume]:
    """Read the training volumes.

    Labels that the data set calls unlabelled are masked out, also if a volume has no mask, and are never objects.

    They stay on disk if `training.stream` says so. If it says nothing, they stay on disk if they need more than half of
    the free memory.

    Args:
        config: of the network; names its voxel size and its data set.
        volumes: `VOLUME.zarr`, or `VOLUME.zarr@z0:z1,y0:y1,x0:x1` to use the labels inside this ROI (nm) alone; none:
            the training split of the data set.
        project: the folder of the project, with its `data` folder.
        recorded: the range of grey values that a checkpoint to go on from was trained with; None: it is measured, if
            `normalization.grey_range` says so. Of domain transfer, the statistics of both domains.

    Raises:
        BadInput: a volume is missing, has another voxel size, or no volume holds a label; the data set has no split of
            the network's name.
    """
    if config.plate:
        return list[TrainingVolume](_image_loader(config, volumes, project).load("train"))
    if config.transfer:
        return load_domains(config, volumes, project, recorded if isinstance(recorded, Mapping) else None)
    chosen = [_read_part(text) for text in volumes] or _split(config, project)
    parts = [_checked(config, part) for part in chosen]
    stream = config.training.stream
    if stream is None:
        needed = sum(memory_needed(path, roi, config.normalization) for path, roi in parts)
        free = free_memory()
        stream = needed > free // 2
        if stream:
            logger.info("Volumes of %.1f GiB, memory of %.1f GiB free: read as needed", needed / 2**30, free / 2**30)
    rule = _mask_rule(config, project)
    measured = _grey_range(config, [path for path, _ in parts], recorded if isinstance(recorded, GreyRange) else None)
    loaded = [load_training_volume(path, roi, stream, rule, config.normalization, measured) for path, roi in parts]
    _check_labels(loaded)
    return loaded


def load_held_out(config: NetworkConfig, project: Path, training: Sequence[TrainingVolume]) -> list[TrainingVolume]:
    """Read the volumes that `training.validation` validates on; none without validation.

    They are those of `training.validation.data`, or the parts `validation`, else `test`, of the data set's split.

    Args:
        config: of the network.
        project: the folder of the project.
        training: the training volumes, whose range of grey values is taken.

    Raises:
        BadInput: there are no such volumes, or a part shares voxels with a training volume, or as `load_training_data`.
    """
    if config.training.validation is None:
        return []
    if config.plate:
        folder = str(Path(training[0].name).parents[3])
        return list[TrainingVolume](_image_loader(config, [folder], project).load("val"))
    if config.transfer:
        return load_held_out_domains(config, project, training)
    parts = list(config.training.validation.data) or _held_out_of_split(config, project)
    volumes = load_training_data(config, [part.argument for part in parts], project, training[0].grey_range)
    if shared := shared_volume(map(_placed, volumes), map(_placed, training)):
        raise BadInput(f"{shared}: held out for validation and trained on; expected other parts of it")
    return volumes


def plate_folder(config: NetworkConfig, project: Path) -> Path:
    """Return the folder of the network's plate, as seen from here, or else from the project."""
    assert config.plate is not None
    path = config.plate.path.expanduser()
    return path if path.exists() else project / path


def _image_loader(config: NetworkConfig, folders: Sequence[str], project: Path) -> ImageLoader:
    assert config.plate is not None
    if len(folders) > 1:
        raise BadInput(f"--data {folders[1]}: a second plate, expected the folder of one preprocessed plate")
    ready = ReadyPlate(Path(folders[0]) if folders else plate_folder(config, project))
    names = dict.fromkeys(name for head in config.image_heads.values() for name in head.names_read)
    shape, is_vector = config.training.input_shape, config.supervised_unet.output == "vector"
    output = shape if is_vector else output_shape(config.supervised_unet, shape)
    margin = [(n - m) // 2 for n, m in zip(shape, output, strict=True)]
    size, stream = Coordinate(config.voxel_size), config.training.stream
    return ImageLoader(ready, config.plate, list(names), size, margin, stream)


def _placed(volume: TrainingVolume) -> tuple[str, Roi]:
    assert volume.labels is not None
    return volume.name, Roi(volume.labels_offset, Coordinate(volume.labels.shape) * volume.voxel_size)


def _held_out_parts(config: NetworkConfig, project: Path) -> list[VolumePart]:
    dataset = load_dataset(config.dataset, project / DATASETS)
    split = dataset.named_split(config.training.split)
    parts = split.validation or split.test
    return [VolumePart(volume=dataset.volume_path(part.volume, project / DATA), roi=part.roi) for part in parts]


def _held_out_of_split(config: NetworkConfig, project: Path) -> list[VolumePart]:
    parts = _held_out_parts(config, project)
    there = [part for part in parts if part.volume.exists()]
    if not there:
        raise BadInput(
            f"{parts[0].volume if parts else project / DATA}: no held-out volume of {config.dataset} is there; "
            "fetch one, or name one as training.validation.data"
        )
    return there


def _grey_range(config: NetworkConfig, paths: Sequence[str], recorded: GreyRange | None) -> GreyRange | None:
    """Return the range that was measured on the volumes, or is recorded, if the network has one; log that of each."""
    volumes, measured = [open_volume(Path(path) / RAW) for path in paths], None
    for volume in volumes:
        check_grey(volume)
    if config.normalization.grey_range == "percentiles":
        measured = recorded or measure_range(volumes, config.normalization.percentiles)
    for volume in volumes:
        tell_range(volume, in_grey_range(volume, config.normalization, measured))
    return measured


def with_probabilities(config: NetworkConfig, volumes: Sequence[str], project: Path) -> NetworkConfig:
    """Return the configuration with the probabilities of the split that `load_training_data` reads.

    Volumes that are named, and probabilities that the configuration holds itself, leave it as it is; arguments are
    those of `load_training_data`.
    """
    if volumes or config.plate or config.transfer or config.training.sampling.probabilities is not None:
        return config
    present = [part for path, part in _parts_of_split(config, project) if path.exists()]
    given = tuple(part.probability for part in present if part.probability is not None)
    sampling = config.training.sampling.model_copy(update={"probabilities": given or None})
    return config.model_copy(update={"training": config.training.model_copy(update={"sampling": sampling})})


def paths_read(config: NetworkConfig, volumes: Sequence[str], project: Path) -> list[Path]:
    """Return the arrays, files and folders that training reads, see `load_training_data`; some need not exist."""
    if config.plate:
        read = [Path(folder) for folder in volumes] or [plate_folder(config, project)]
    elif config.transfer:
        domains = config.transfer.domains
        read = [path for domain in (domains.a, domains.b) for path in paths_of(domain, project)]
    else:
        parts = [_read_part(text).volume for text in volumes] or [path for path, _ in _parts_of_split(config, project)]
        read = _arrays_of(path for path in parts if is_url(path) or path.exists())
        if config.training.validation is not None and not config.training.validation.data:
            held_out = (part.volume for part in _held_out_parts(config, project))
            read += _arrays_of(path for path in held_out if path.exists())
    return read + paths_named(config, project)


def paths_named(config: NetworkConfig, project: Path) -> list[Path]:
    """Return the arrays and files that a network's file names beside its training volumes.

    They decide on weights: volumes of artifacts, and volumes of a validation, which can end training.
    """
    named = [
        Path(one.volume) / name for one in artifacts_of(config.training.augment) for name in (one.raw, one.opacity)
    ]
    if config.training.validation is not None:
        named += _arrays_of(part.volume for part in config.training.validation.data)
    if config.transfer is not None and config.transfer.held_out is not None:
        for domain in (config.transfer.held_out.a, config.transfer.held_out.b):
            named += paths_of(domain, project)
    return named


def _arrays_of(volumes: Iterable[Path]) -> list[Path]:
    return [volume / name for volume in volumes for name in (RAW, LABELS, MASK)]


def _check_labels(volumes: Sequence[TrainingVolume]) -> None:
    """Raise BadInput if no volume holds a label, and warn of each that holds none: it teaches boundary alone."""
    empty = [volume.name for volume in volumes if not volume.has_labels()]
    if len(empty) == len(volumes):
        raise BadInput(f"{', '.join(empty)}: all labels are 0 or masked out, expected neurons to train on")
    for name in empty:
        logger.warning("%s: all labels are 0 or masked out; this volume teaches background alone", name)


def training_data(volumes: Sequence[TrainingVolume], augment: Augmentations = ()) -> list[dict[str, Any]]:
    """Return what decides the samples of each volume: its name, and the contents of raw, labels and mask.

    Contents are hashes of voxels, so that a copy of a volume, or the same volume in another format, is the same. Of
    labels and mask, the region to train in counts. Volumes of artifacts that `augment` names come last.
    """
    voxel_size = volumes[0].voxel_size if volumes else Coordinate(1, 1, 1)
    return [*map(_content, volumes), *(_content_of_artifacts(one, voxel_size) for one in artifacts_of(augment))]


def _content_of_artifacts(artifacts: ArtifactVolume, voxel_size: Coordinate) -> dict[str, Any]:
    raw, opacity = open_artifacts(artifacts, json_numbers(voxel_size))
    return {"volume": Path(artifacts.volume).stem, "raw": content(raw), "opacity": content(opacity)}


def _content(volume: TrainingVolume) -> dict[str, Any]:
    if isinstance(volume, ImageVolume | DomainVolume):
        return dict(volume.content)
    path = Path(volume.name)
    told: dict[str, Any] = {"volume": path.stem, "raw": content(open_volume(path / RAW))}
    if volume.labels is None or volume.mask is None:
        return told
    region = Roi(volume.labels_offset, Coordinate(volume.labels.shape) * volume.voxel_size)
    told["labels"] = content(open_volume(path / LABELS), region)
    if isinstance(volume.mask, Ones):
        told["mask"] = None
    elif holds_array(path / MASK):
        told["mask"] = _mask_content(open_volume(path / MASK), region)
    else:
        told["mask"] = "unlabelled voxels"
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
    parts = _parts_of_split(config, project)
    missing = [path.stem for path, _ in parts if not path.exists()]
    if len(missing) == len(parts):
        raise BadInput(
            f"{parts[0][0] if parts else project / 'data'}: no volume of {config.dataset} to train on is there; "
            "fetch one, or name one with --data"
        )
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        logger.warning("%d of %d volumes to train on are missing, and left out: %s", len(missing), len(parts), names)
    return [VolumePart(volume=path, roi=part.roi) for path, part in parts if path.exists()]


def _parts_of_split(config: NetworkConfig, project: Path) -> list[tuple[Path, Part]]:
    """Return the parts of the network's split to train on, with the paths of their volumes."""
    dataset = load_dataset(config.dataset, project / DATASETS)
    split = dataset.named_split(config.training.split)
    return [(dataset.volume_path(part.volume, project / DATA), part) for part in split.train]


def _mask_rule(config: NetworkConfig, project: Path) -> MaskRule:
    """Return the rule of the network's data set, for volumes without a mask; none if no file describes it."""
    is_described = (project / DATASETS / f"{config.dataset}.yaml").is_file()
    return load_dataset(config.dataset, project / DATASETS).mask if is_described else MaskRule()


def _checked(config: NetworkConfig, part: VolumePart) -> tuple[str, Roi | None]:
    labels = open_volume(part.volume / LABELS)
    if labels.voxel_size != Coordinate(config.voxel_size):
        raise BadInput(f"{labels.path}: voxel size {labels.voxel_size} nm, expected the network's {config.voxel_size}")
    return str(part.volume), parse_roi(part.roi, labels) if part.roi else None
