"""The volumes of a preprocessed plate that train, validate or test a network, by its split.json.

split.json     positions, slices, times or images of each part
empty slices   one value throughout in an input or target channel: never predicted in a sample
margin         voxels at the border of a stack that are context alone
    runs           what is left of a stack, each a volume with the whole stack as input
"""

import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from emsuite.augment.resample import Source
from emsuite.common.device import free_memory
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate
from emsuite.common.outputs import check_finished
from emsuite.data.images.image_volume import ImageVolume
from emsuite.data.images.scales import ImageScales, step_of
from emsuite.data.images.settings import PlateInput
from emsuite.data.images.stored_image import StoredImage
from emsuite.data.training_volume import Ones
from emsuite.plates.flat_field import empty_sections
from emsuite.plates.plate import MASK, WEIGHTS, ZarrPlate, open_plate
from emsuite.plates.selection import channel_numbers
from emsuite.plates.split import PARTS, read_split
from emsuite.targets.images import BORDERS, FOREGROUND, ImageName

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadyPlate:
    """The folder that preprocessing wrote."""

    folder: Path

    @cached_property
    def plate(self) -> ZarrPlate:
        """Its images; raise BadInput if the folder is unfinished, or something else."""
        check_finished(self.folder)
        if not (self.folder / "plate.zarr").is_dir():
            raise BadInput(f"{self.folder}: has no plate.zarr, expected a folder of a preprocessed plate")
        plate = open_plate(self.folder / "plate.zarr")
        assert isinstance(plate, ZarrPlate)
        return plate

    @cached_property
    def scales(self) -> ImageScales:
        """How it is normalized."""
        return ImageScales.of_folder(self.folder)

    @property
    def has_masks(self) -> bool:
        """Whether preprocessing wrote the foreground."""
        return bool(step_of(self.folder, "masks"))

    @cached_property
    def empty(self) -> dict[tuple[str, int, str], list[int]] | None:
        """The empty slices of each position, time and channel; None if preprocessing has not recorded them."""
        recorded = step_of(self.folder, "normalize", "result").get("empty")
        if not isinstance(recorded, list):
            return None
        found: dict[tuple[str, int, str], list[int]] = {}
        for one in recorded:
            found.setdefault((one["position"], one["time"], one["channel"]), []).append(one["slice"])
        return found

    def slices(self, part: str) -> dict[tuple[str, int], np.ndarray]:
        """Return, for each position and time of a part of the split, which slices belong to it, (Z,) bool."""
        path = self.folder / "split.json"
        by = step_of(self.folder, "split").get("by") if path.is_file() else None
        if by is None:
            raise BadInput(f"{self.folder}: has no split.json, expected `split` in the file of preprocessing")
        if by == "channel":
            raise BadInput(f"{path}: splits by channel, but a network names its channels; expected another split")
        chosen = set(read_split(path, by)[part])
        if by == "position" and (missing := sorted(chosen - set(self.plate.positions))):
            raise BadInput(f"{path}: {part}: the plate has no position {missing[0]}, expected positions of it")
        found = {}
        for position in self.plate.positions:
            shape = self.plate.shape(position)
            for time in range(shape[0]):
                values = [
                    {"position": position, "time": time, "slice": z, "index": f"{position} t{time} z{z}"}[by]
                    for z in range(shape[2])
                ]
                found[position, time] = np.array([value in chosen for value in values])
        return found


@dataclass(frozen=True)
class ImageLoader:
    """Reads the volumes of a plate for a network."""

    ready: ReadyPlate
    settings: PlateInput
    names: Sequence[ImageName]
    """The images beside the input."""
    voxel_size: Coordinate
    margin: Sequence[int] = (0, 0, 0)
    """How much farther a sample reads than it predicts on each side, voxels z y x."""
    stream: bool | None = None
    """Whether voxels stay on disk; None: if memory does not hold them twice."""

    def load(self, part: str) -> list[ImageVolume]:
        """Return the volumes of `train`, `val` or `test`; raise BadInput if there are none, or a channel is missing."""
        assert part in PARTS
        self._check()
        volumes, empty = list[ImageVolume](), 0
        for (position, time), chosen in self.ready.slices(part).items():
            if chosen.any():
                dark = self._dark(position, time)
                empty += int((chosen & dark).sum())
                with_context = np.zeros(len(chosen), bool)
                with_context[self.margin[0] : len(chosen) - self.margin[0]] = True
                volumes += self._volumes(position, time, chosen & ~dark & with_context)
        where = self.ready.folder
        if not volumes:
            depth = 2 * self.margin[0] + 1
            few = f" in stacks of at least {depth} slices" if depth > 1 else ""
            raise BadInput(f"{where}: no image with light{few} in the part '{part}' of split.json, expected some")
        if empty:
            _log.info("%s, %s: %d empty slices are left out", where, part, empty)
        return volumes

    @cached_property
    def inputs(self) -> list[int]:
        """The numbers of the input channels."""
        return channel_numbers(self.ready.plate, self.settings.input_channels)

    @cached_property
    def targets(self) -> dict[ImageName, int]:
        """The numbers of the channels of images."""
        plate = self.ready.plate
        own = [
            name for name in self.names if name.channel in plate.channels or name.channel not in (FOREGROUND, BORDERS)
        ]
        return {name: channel_numbers(plate, [name.channel])[0] for name in own}

    def _check(self) -> None:
        plate, masks = self.ready.plate, self.ready.has_masks
        for name in self.names:
            if name not in self.targets and not masks:
                raise BadInput(f"{plate.path}: has no {name.channel}, expected `masks` in the file of preprocessing")
        if self.settings.min_fraction and not masks:
            raise BadInput(f"{plate.path}: has no foreground for plate.min_fraction, expected `masks` of preprocessing")
        size = plate.voxel_size_nm
        if size is not None and not np.allclose(size, [float(n) for n in self.voxel_size], rtol=1e-3):
            raise BadInput(f"{plate.path}: voxels of {size} nm, expected the network's, {self.voxel_size} nm")

    def _dark(self, position: str, time: int) -> np.ndarray:
        """Return which slices (Z,) are empty in any channel that is read."""
        plate, dark = self.ready.plate, np.zeros(self.ready.plate.shape(position)[2], bool)
        for channel in sorted({*self.inputs, *self.targets.values()}):
            if self.ready.empty is None:
                dark |= empty_sections(plate.read(position, time, channel))
            else:  # as images came: a flat field makes an image of one value uneven
                dark[self.ready.empty.get((position, time, plate.channels[channel]), [])] = True
        return dark

    def _volumes(self, position: str, time: int, chosen: np.ndarray) -> Iterator[ImageVolume]:
        """Yield a volume for each run of chosen slices."""
        edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
        size, around = self.ready.plate.shape(position)[3:], self.margin[1:]
        inside = [slice(margin, n - margin) for n, margin in zip(size, around, strict=True)]
        if all(part.start < part.stop for part in inside):
            for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
                yield self._volume(position, time, (slice(begin, end), *inside))

    def _volume(self, position: str, time: int, region: tuple[slice, ...]) -> ImageVolume:
        scales, zero, place = self.ready.scales, Coordinate(0, 0, 0), (self.ready.plate, position, time)
        units = tuple(scales.unit(channel) for channel in self.inputs)
        own = [scales.scale(position, time, channel) for channel in self.inputs]
        inputs = [StoredImage(*place, c, scale=unit) for unit, c in zip(units, self.inputs, strict=True)]
        images = {name.array: self._image(name, position, time, region) for name in self.names}
        mask = StoredImage(*place, 0, MASK, region, dtype=torch.uint8) if self.ready.has_masks else None
        content, sources = self._content((*inputs, *images.values(), *([mask] if mask else [])))
        raw, *further = sources[: len(inputs)]
        first, shape = zip(*((part.start, part.stop - part.start) for part in region), strict=True)
        return ImageVolume(
            raw, None, sources[-1] if mask else Ones(shape), self.voxel_size, zero,
            zero + Coordinate(first) * self.voxel_size, f"{self.ready.plate.path}/{position}",
            further=tuple(further),
            images=dict(zip(images, sources[len(inputs) :], strict=False)),
            units=units,
            scales=None if None in own else tuple(scale for scale in own if scale),
            measures=(scales.method, scales.percentiles),
            measured_images=frozenset(name.array for name in self.targets if name.normalized and None in own),
            min_fraction=self._min_fraction,
            content={"volume": f"{position} t{time} z{region[0].start}:{region[0].stop}", "voxels": content},
            normalization=scales.record(self.ready.plate),
        )  # fmt: skip

    def _content(self, sources: Sequence[StoredImage]) -> tuple[str, list[Source]]:
        """Return a digest of the voxels of sources, and the sources, in memory unless they stay on disk."""
        digest, kept = hashlib.sha256(), list[Source]()
        for source in sources:
            voxels = source[:, :, :]
            digest.update(str(source.region).encode() + voxels.numpy().tobytes())
            kept.append(source if self.stays_on_disk else voxels)
        return digest.hexdigest(), kept

    @cached_property
    def stays_on_disk(self) -> bool:
        """Whether samples read their voxels from disk: if asked for, or if voxels need half of the free memory."""
        if self.stream is not None:
            return self.stream
        plate = self.ready.plate
        channels = len(self.inputs) + len(self.names) + 1
        needed = 4 * channels * sum(math.prod(plate.shape(p)) // plate.shape(p)[1] for p in plate.positions)
        if needed > free_memory() // 2:
            _log.info("%s: images of %.1f GiB are read as needed", plate.path, needed / 2**30)
        return needed > free_memory() // 2

    @cached_property
    def _min_fraction(self) -> float:
        if self.settings.min_fraction is not None or not self.ready.has_masks:
            return self.settings.min_fraction or 0.0
        return float(step_of(self.ready.folder, "tiles").get("min_fraction", 0.0))

    def _image(self, name: ImageName, position: str, time: int, region: tuple[slice, ...]) -> StoredImage:
        plate = self.ready.plate
        if name not in self.targets:
            return StoredImage(plate, position, time, 0, WEIGHTS if name.channel == BORDERS else MASK, region)
        channel = self.targets[name]
        scale = self.ready.scales.scale(position, time, channel) if name.normalized else None
        return StoredImage(plate, position, time, channel, "", region, scale)
