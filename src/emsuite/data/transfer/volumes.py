"""The arrays of a domain: volumes of any format where they lie, or patches; in memory, or read as samples need them."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from emsuite.augment.resample import Source
from emsuite.common.device import free_memory
from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput
from emsuite.common.files import is_there
from emsuite.common.geometry import Coordinate, Roi
from emsuite.common.outputs import check_finished, check_whole
from emsuite.common.provenance import checksum
from emsuite.common.settings import Settings, load, validate
from emsuite.data.grey_values import GreyRange, in_grey_range, measure_range
from emsuite.data.labels_mask import mask_beside
from emsuite.data.raw import check_raw
from emsuite.data.training_volume import Ones, StoredVoxels, TrainingVolume, as_mask, is_full, labels_source, raw_source
from emsuite.data.transfer.patches import StoredPatch, check_match, grey_reader, label_patch, open_patches
from emsuite.data.transfer.settings import Box, DomainSettings, DomainVolume
from emsuite.io.fingerprint import content, seen
from emsuite.io.regions import parse_roi
from emsuite.io.volume import StatedOtherwise, Volume, is_url, open_volume, split_path

logger = logging.getLogger(__name__)


class BoxesFile(Settings):
    """A file of boxes."""

    boxes: tuple[Box, ...] = Field(min_length=1)


@dataclass(frozen=True)
class PlacedBox:
    """A box in one of the volumes of a domain."""

    volume: int
    """The number of the volume."""
    begin: tuple[int, int, int]
    """Its first voxel, from the first of the volume."""
    size: tuple[int, int, int]
    """Voxels, z y x."""
    class_name: str | None = None


@dataclass(frozen=True)
class Loaded:
    """Volumes and the boxes in them."""

    volumes: tuple[TrainingVolume, ...]
    boxes: tuple[PlacedBox, ...]
    contents: Callable[[], Sequence[dict[str, Any]]]
    """Returns what a record tells of the voxels of each volume."""
    grey_range: GreyRange | None = None
    """The grey values that stand for 0 and 1, unless they are those of the type."""


@dataclass(frozen=True)
class _Opened:
    raw: Volume
    labels: Volume | None
    mask: Volume | None
    """Of the labels."""
    boxes: Sequence[tuple[Roi, str | None]]

    @property
    def used(self) -> Roi:
        """The region of all boxes, nm."""
        whole = self.boxes[0][0]
        for roi, _ in self.boxes[1:]:
            whole = whole.union(roi)
        return whole

    def memory(self) -> int:
        """Return the bytes that it takes in memory at most."""
        each = 1 if self.raw.dtype == "uint8" else self.raw.dtype.itemsize + 4
        each += 0 if self.labels is None else self.labels.dtype.itemsize + 4
        each += 0 if self.mask is None else 1
        return math.prod(self.used.shape / self.raw.voxel_size) * each


def load_volumes(settings: DomainSettings, voxel_size: Coordinate, project: Path, recorded: GreyRange | None) -> Loaded:
    """Open the volumes of a domain and read their boxes, or leave them on disk; see `load_domain`."""
    opened = [_opened(volume, voxel_size, project) for volume in settings.volumes]
    stream = _is_streamed(settings, sum(one.memory() for one in opened))
    grey_range = _grey_range(settings, [one.raw for one in opened], recorded)
    volumes, boxes = [], []
    for number, one in enumerate(opened):
        raw = in_grey_range(one.raw, settings.normalization, grey_range)
        used, size = one.used, one.raw.voxel_size
        sources = [replace(raw_source(raw), roi=used)]
        if one.labels is not None:
            sources.append(labels_source(one.labels, used, mask=one.mask))
        if one.mask is not None:
            sources.append(StoredVoxels(one.mask, used, as_mask, torch.uint8))
        held = sources if stream else [source[:, :, :] for source in sources]
        labels = held[1] if one.labels is not None else None
        mask: Source | None = None if labels is None else Ones(tuple(labels.shape))
        mask = held[2] if one.mask is not None and not is_full(held[2]) else mask
        name = str(one.raw.path)
        volumes.append(TrainingVolume(held[0], labels, mask, size, used.offset, used.offset, name, grey_range))
        for roi, class_name in one.boxes:
            begin, shape = (roi.offset - used.offset) / size, roi.shape / size
            boxes.append(PlacedBox(number, _three(begin), _three(shape), class_name))
    return Loaded(tuple(volumes), tuple(boxes), partial(_contents, opened), grey_range)


def load_patches(settings: DomainSettings, voxel_size: Coordinate, project: Path, recorded: GreyRange | None) -> Loaded:
    """Open the patches of a domain, each a volume and a box of its own; see `load_domain`."""
    assert settings.patches is not None
    images = open_patches(_seen(settings.patches, project))
    labels = open_patches(_seen(settings.patch_labels, project)) if settings.patch_labels else None
    if labels is not None:
        check_match(labels, images)
    each = images.dtype.itemsize + (5 if labels is not None else 0)
    stream = _is_streamed(settings, len(images) * math.prod(images.shape) * each)
    read = grey_reader(images, settings, recorded)
    offset, volumes, boxes = voxel_size * 0, [], []
    for number in range(len(images)):
        sources: list[Source] = [StoredPatch(images, number, read, read.dtype)]
        if labels is not None:
            read_labels = partial(label_patch, name=f"{labels.path}/{labels.names[number]}")
            sources.append(StoredPatch(labels, number, read_labels, torch.int32))
        held = sources if stream else [source[:, :, :] for source in sources]
        own, mask = (held[1], Ones(images.shape)) if labels is not None else (None, None)
        name = f"{images.path}/{images.names[number]}"
        volumes.append(TrainingVolume(held[0], own, mask, voxel_size, offset, offset, name, read.grey_range))
        boxes.append(PlacedBox(number, (0, 0, 0), images.shape))
    paths = [images.path] + ([labels.path] if labels is not None else [])
    return Loaded(tuple(volumes), tuple(boxes), partial(_checksums, paths), read.grey_range)


def paths_of(settings: DomainSettings, project: Path) -> list[Path]:
    """Return the arrays, files and folders that a domain is read from, masks of labels included."""
    named = [path for one in settings.volumes for path in (one.raw, one.labels, one.boxes_file)]
    paths = [_seen(path, project) for path in (*named, settings.patches, settings.patch_labels) if path is not None]
    labels = [_seen(one.labels, project) for one in settings.volumes if one.labels is not None]
    return paths + [mask for mask in map(mask_beside, labels) if mask is not None]


def _seen(path: Path, project: Path) -> Path:
    """Return the path of a file, a folder or an array as seen from here, or else from the project."""
    if is_url(path):
        return path
    path = path.expanduser()
    return project / path if not is_there(path) and is_there(project / path) else path


def _opened(volume: DomainVolume, voxel_size: Coordinate, project: Path) -> _Opened:
    raw = _open(_seen(volume.raw, project), voxel_size)
    check_raw(raw, voxel_size)
    given = volume.boxes
    if volume.boxes_file:
        given = _read_boxes(_seen(volume.boxes_file, project))
    boxes = [(parse_roi(box.roi, raw), box.class_name) for box in given] or [(raw.roi, None)]
    labels = mask = None
    if volume.labels is not None:
        labels = _open(_seen(volume.labels, project), voxel_size)
        path = mask_beside(labels.path)
        mask = None if path is None else _open(path, voxel_size)
        for array in (labels, *([mask] if mask else [])):
            _check_labels(array, raw, [roi for roi, _ in boxes])
    return _Opened(raw, labels, mask, boxes)


def _read_boxes(path: Path) -> tuple[Box, ...]:
    """Read a file of boxes: yaml, or json, in which a filter may have written many."""
    if path.suffix != ".json":
        return load(BoxesFile, path).boxes
    check_finished(path)
    content = read_json(path)
    if not isinstance(content, dict):
        raise BadInput(f"{path}: is missing or holds no JSON, expected boxes")
    return validate(BoxesFile, content, str(path)).boxes


def _open(path: Path, voxel_size: Coordinate) -> Volume:
    check_whole(path, is_edited=True)
    try:
        return open_volume(path, voxel_size=[float(n) for n in voxel_size])
    except StatedOtherwise:
        return open_volume(path)  # it says another voxel size, of which messages tell


def _check_labels(labels: Volume, raw: Volume, boxes: Sequence[Roi]) -> None:
    if labels.dtype.kind not in "uib" or labels.channels is not None:
        raise BadInput(f"{labels.path}: {labels.dtype} {labels.shape}, expected labels (z, y, x), integers")
    if labels.voxel_size != raw.voxel_size:
        raise BadInput(f"{labels.path}: voxels of {labels.voxel_size} nm, expected raw's, {raw.voxel_size} nm")
    for box in boxes:
        if not labels.roi.contains(box):
            raise BadInput(f"{labels.path}: covers {labels.roi} nm, expected all of a box of images, {box} nm")
        labels.check(box)


def _grey_range(settings: DomainSettings, volumes: Sequence[Volume], recorded: GreyRange | None) -> GreyRange | None:
    said = settings.grey_range
    if said == "percentiles":
        return recorded or measure_range(volumes, settings.percentiles)
    return None if said == "dtype" else GreyRange(*said)


def _is_streamed(settings: DomainSettings, needed: int) -> bool:
    if settings.stream is not None:
        return settings.stream
    free = free_memory()
    if needed <= free // 2:
        return False
    logger.info("Images of %.1f GiB, memory of %.1f GiB free: read as needed", needed / 2**30, free / 2**30)
    return True


def _contents(opened: Sequence[_Opened]) -> list[dict[str, Any]]:
    told = []
    for one in opened:
        each = {"volume": _place_name(one.raw.path), "raw": content(one.raw, one.used)}
        each |= {} if one.labels is None else {"labels": content(one.labels, one.used)}
        told.append(each if one.mask is None else {**each, "mask": content(one.mask, one.used)})
    return told


def _place_name(path: Path) -> str:
    """Return the name of the container of an array, or of what stands for it in a URL."""
    return path.name if is_url(path) else split_path(path)[0].stem


def _checksums(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the files of patches by names, sizes and contents; of more than `MOST_BYTES` by their times."""
    files = [(path, seen(path)) for path in paths]
    return [
        {"patches": path.name, "checksum": checksum(path), "content": now["content" if _is_read(now) else "files"]}
        for path, now in files
    ]


def _is_read(now: Mapping[str, str]) -> bool:
    return now["content"].startswith("sha256:")


def _three(numbers: Coordinate) -> tuple[int, int, int]:
    z, y, x = map(int, numbers)
    return z, y, x
