"""The images that a network of a plate reads, normalized as in training, and its predictions as grey values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.outputs import check_finished
from emsuite.data.images.scales import ImageScales, measured
from emsuite.data.images.volumes import ReadyPlate
from emsuite.plates.plate import Plate, open_plate
from emsuite.plates.selection import channel_numbers
from emsuite.plates.statistics import GreyScale
from emsuite.targets.heads import ImageHead


@dataclass(frozen=True)
class PlateSource:
    """A plate to predict, and the normalization that the checkpoint records."""

    path: Path
    """A plate or folder of frames, or the folder of a preprocessed plate."""
    channels: Sequence[int | str]
    """Those that the network reads."""
    recorded: Mapping[str, Any]
    """See `ImageScales.record`."""

    @cached_property
    def ready(self) -> ReadyPlate | None:
        """The folder of a preprocessed plate; None: a plate alone."""
        return ReadyPlate(self.path) if (self.path / "preprocessing.json").is_file() else None

    @cached_property
    def plate(self) -> Plate:
        """The images; raise BadInput if there are none."""
        check_finished(self.path)
        return self.ready.plate if self.ready else open_plate(self.path)

    @cached_property
    def numbers(self) -> list[int]:
        """The numbers of the channels that are read; BadInput if the plate lacks one."""
        return channel_numbers(self.plate, self.channels)

    @property
    def measures(self) -> tuple[str, tuple[float, float]] | None:
        """Method and percentiles, if each tile measures itself."""
        low, high = self.recorded["percentiles"]
        return (self.recorded["method"], (low, high)) if self.recorded["scope"] == "tile" else None

    def read(self, position: str, time: int) -> np.ndarray:
        """Return the input of a volume, (C, Z, Y, X) float32, normalized unless tiles measure themselves."""
        volumes = [self.plate.read(position, time, channel) for channel in self.numbers]
        if self.measures:
            return np.stack(volumes).astype(np.float32)
        scales = [
            self._scale(position, time, channel, voxels) for channel, voxels in zip(self.numbers, volumes, strict=True)
        ]
        return np.stack([scale.apply(voxels) for scale, voxels in zip(scales, volumes, strict=True)])

    def _scale(self, position: str, time: int, channel: int, voxels: np.ndarray) -> GreyScale:
        method, scope, known = (self.recorded[key] for key in ("method", "scope", "channels"))
        if scope == "dataset":
            name = self.plate.channels[channel]
            if name not in known:
                raise BadInput(
                    f"{self.plate.path}: the network was trained on the channels {', '.join(known)}, not {name}"
                )
            return GreyScale(*known[name])
        if self._stored is not None:
            scale = self._stored.scale(position, time, channel)
            assert scale is not None
            return scale
        if scope == "position":
            times = range(self.plate.shape(position)[0])
            voxels = np.concatenate([self.plate.read(position, t, channel) for t in times])
        return measured(voxels, method, tuple(self.recorded["percentiles"]))

    @cached_property
    def _stored(self) -> ImageScales | None:
        """The statistics that preprocessing stored, by the scope of training, if percentiles are the same."""
        method, scope, percentiles = (self.recorded[key] for key in ("method", "scope", "percentiles"))
        if self.ready is None or self.ready.scales.percentiles != tuple(percentiles):
            return None
        return ImageScales(method, scope, tuple(percentiles), self.ready.scales.rows)

    def positions(self, part: str | None, chosen: Sequence[str]) -> list[str]:
        """Return the positions of a part of the split, or those that are chosen, or all.

        Raises:
            BadInput: the plate lacks one, there is none, or its split is one of slices, times or images.
        """
        names = self.plate.positions
        by_field = {name.rpartition("/")[2]: name for name in reversed(names)} | {name: name for name in names}
        if odd := [name for name in chosen if name not in by_field]:
            raise BadInput(f"{self.plate.path}: has no position {odd[0]}; it has {', '.join(names[:8])}")
        if part is None:
            return [by_field[name] for name in chosen] or list(names)
        if self.ready is None:
            raise BadInput(f"{self.path}: a part '{part}' is one of a preprocessed plate, expected its folder")
        of_part = self.ready.slices(part)
        found = [name for name in names if any(s.any() for (p, _), s in of_part.items() if p == name)]
        if not all(s.all() for (p, _), s in of_part.items() if p in found):
            raise BadInput(f"{self.ready.folder}/split.json: splits positions, expected positions to predict, or all")
        if not found:
            raise BadInput(f"{self.ready.folder}/split.json: no positions in '{part}', expected some")
        return found


@dataclass(frozen=True)
class Channel:
    """A predicted channel, and its scale: grey values = prediction * scale + shift."""

    name: str
    scale: GreyScale
    is_variance: bool = False


def output_channels(heads: Mapping[str, ImageHead], recorded: Mapping[str, Any], variance: bool) -> list[Channel]:
    """Return the channels of a prediction, those of variances last.

    Grey values are those of the data set that the network was trained on.
    """
    known = recorded["channels"]
    channels = []
    for head in heads.values():
        for image in head.image_names:
            name = list(known)[image.channel] if isinstance(image.channel, int) else image.channel
            scale = GreyScale(*known[name]) if image.normalized else GreyScale(0.0, 1.0)
            channels.append(Channel(name, scale))
    names = [channel.name for channel in channels]
    if len(set(names)) < len(names):
        owners = [head for head, settings in heads.items() for _ in settings.target_channels]
        channels = [Channel(f"{owner}_{c.name}", c.scale) for owner, c in zip(owners, channels, strict=True)]
    return channels + [Channel(f"{c.name}_variance", c.scale, True) for c in channels if variance]


def as_grey(values: np.ndarray, channel: Channel) -> np.ndarray:
    """Return predicted values, or variances, in grey values (squared), float32."""
    if channel.is_variance:
        return np.asarray(values.astype(np.float64) * channel.scale.scale**2, np.float32)
    return channel.scale.undo(values)
