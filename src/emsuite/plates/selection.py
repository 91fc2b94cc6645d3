"""A part of a plate: some positions, channels, times and slices of another one, as a plate itself."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.plates.plate import Numbers, Plate

Some = Sequence[int | str] | Literal["all"]


class Selection:
    """The chosen part of a plate; channels, times and slices are numbered anew from 0, see `chosen_channels`."""

    def __init__(self, plate: Plate, positions: Some = "all", channels: Some = "all", times: Some = "all",
                 slices: Some = "all"):  # fmt: skip
        self._plate, self._times, self._slices = plate, times, slices
        self._channels = channel_numbers(plate, channels)
        self._positions = _chosen_positions(plate, positions)
        for position in self._positions:
            t, _, z = plate.shape(position)[:3]
            for what, chosen, count in (("time", times, t), ("slice", slices, z)):
                _check_once(plate, what, chosen)
                if chosen != "all" and (odd := [n for n in chosen if not 0 <= int(n) < count]):
                    raise BadInput(f"{plate.path}/{position}: has no {what} {odd[0]}, expected 0 to {count - 1}")

    @property
    def path(self) -> Path:
        """See `Plate`."""
        return self._plate.path

    @property
    def voxel_size_nm(self) -> tuple[float, float, float] | None:
        """See `Plate`."""
        return self._plate.voxel_size_nm

    @property
    def dtype(self) -> np.dtype:
        """See `Plate`."""
        return self._plate.dtype

    @property
    def positions(self) -> tuple[str, ...]:
        """See `Plate`."""
        return self._positions

    @property
    def channels(self) -> tuple[str, ...]:
        """See `Plate`."""
        return tuple(self._plate.channels[number] for number in self._channels)

    @property
    def channel_numbers(self) -> tuple[int, ...]:
        """The numbers of the channels in the plate that this is a part of."""
        return tuple(self._channels)

    def chosen_channels(self, chosen: Some) -> list[int]:
        """Return the channels that are chosen by their names or their numbers in the plate that this is a part of.

        Returns:
            their numbers here, from 0.

        Raises:
            BadInput: see `channel_numbers`; and one of them is not in this part.
        """
        if chosen == "all":
            return list(range(len(self._channels)))
        numbers = channel_numbers(self._plate, chosen)
        if other := [number for number in numbers if number not in self._channels]:
            name, held = (
                self._plate.channels[other[0]],
                ", ".join(f"{n} ({self._plate.channels[n]})" for n in self._channels),
            )
            raise BadInput(f"{self.path}: channel {other[0]} ({name}) is not among those that are kept: {held}")
        return [self._channels.index(number) for number in numbers]

    def part(self, channel: int, times: Some, slices: Some) -> "Selection":
        """Return a part of this one, of one channel here, by places of times and slices in the plate that it is of.

        Raises:
            BadInput: one of them is not in this part, or is chosen twice.
        """
        chosen = [self._here(what, kept, some)
                  for what, kept, some in (("time", self._times, times), ("slice", self._slices, slices))]  # fmt: skip
        return Selection(self, "all", [channel], chosen[0], chosen[1])

    def _here(self, what: str, kept: Some, chosen: Some) -> Some:
        if kept == "all" or chosen == "all":
            return chosen
        if other := [place for place in chosen if place not in kept]:
            held = ", ".join(map(str, kept))
            raise BadInput(f"{self.path}: {what} {other[0]} is not among those that are kept: {held}")
        return [kept.index(place) for place in chosen]

    def shape(self, position: str) -> tuple[int, int, int, int, int]:
        """See `Plate`."""
        t, _, z, y, x = self._plate.shape(position)
        counts = [n if chosen == "all" else len(chosen) for chosen, n in ((self._times, t), (self._slices, z))]
        return counts[0], len(self._channels), counts[1], y, x

    def read(self, position: str, time: int, channel: int) -> np.ndarray:
        """See `Plate`."""
        at = time if self._times == "all" else int(self._times[time])
        voxels = self._plate.read(position, at, self._channels[channel])
        return voxels if self._slices == "all" else voxels[[int(z) for z in self._slices]]

    def numbers(self, position: str) -> Numbers:
        """See `Plate`; those of the plate that this is a part of."""
        times, slices = self._plate.numbers(position)
        picked = [each if chosen == "all" else tuple(each[int(n)] for n in chosen)
                  for each, chosen in ((times, self._times), (slices, self._slices))]  # fmt: skip
        return Numbers(picked[0], picked[1])

    def labels(self, position: str) -> tuple[str, ...]:
        """See `Plate`."""
        return self._plate.labels(position)


def channel_numbers(plate: Plate, chosen: Some) -> list[int]:
    """Return the numbers of channels that are chosen by number or name.

    Raises:
        BadInput: the plate lacks one, one is chosen twice, or a number or a name stands for two channels.
    """
    if chosen == "all":
        return list(range(len(plate.channels)))
    numbers = [_channel_number(plate, channel) for channel in chosen]
    _check_once(plate, "channel", [plate.channels[number] for number in numbers])
    return numbers


def _channel_number(plate: Plate, channel: int | str) -> int:
    names = plate.channels
    meant = {number for number, name in enumerate(names) if name == str(channel)}
    if isinstance(channel, int) and 0 <= channel < len(names):
        meant.add(channel)
    if not meant:
        raise BadInput(f"{plate.path}: channel {channel} has no images; the channels are {', '.join(names)}")
    if len(meant) > 1:
        others = " or ".join(f"number {number} ({names[number]})" for number in sorted(meant))
        raise BadInput(f"{plate.path}: channel {channel} may be {others}, expected what stands for one")
    return meant.pop()


def _chosen_positions(plate: Plate, chosen: Some) -> tuple[str, ...]:
    if chosen == "all":
        return plate.positions
    positions = []
    for name in map(str, chosen):
        held = [position for position in plate.positions if name in (position, position.rpartition("/")[2])]
        if not held:
            raise BadInput(f"{plate.path}: has no position {name}; it has {', '.join(plate.positions[:8])}")
        if len(held) > 1 and name not in held:
            raise BadInput(f"{plate.path}: position {name} may be {held[0]} or {held[1]}, expected the whole name")
        positions.append(name if name in held else held[0])
    _check_once(plate, "position", positions)
    return tuple(positions)


def _check_once(plate: Plate, what: str, chosen: Some) -> None:
    """Raise BadInput for what is chosen twice, as by its name and by its number: it would count twice."""
    if chosen != "all" and (double := [one for one, count in Counter(chosen).items() if count > 1]):
        raise BadInput(f"{plate.path}: {what} {double[0]} is chosen twice, expected once")
