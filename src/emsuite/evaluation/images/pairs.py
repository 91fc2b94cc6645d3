"""A plate of predicted images beside its target: the same positions and sizes, and channels that belong together.

prediction    positions A/1/0, ...    channels nuclei, membranes
target        positions A/1/0, ...    channels phase, nuclei, membranes
                                               ^ inputs: those that are no target
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.evaluation.images.views import (
    FOREGROUND,
    FOREGROUND_IMAGE,
    predicted,
    with_foreground,
    without_variances,
)
from emsuite.plates.plate import Numbers, Plate, ZarrPlate, open_plate
from emsuite.plates.selection import Selection, Some
from emsuite.plates.statistics import Where


class Pair(NamedTuple):
    """A volume of a position, a time and a channel. Each array is (Z, Y, X)."""

    prediction: np.ndarray
    target: np.ndarray
    mask: np.ndarray | None
    """bool, True where a voxel counts; None: all count."""


@dataclass(frozen=True)
class Masks:
    """Which voxels count: images of a plate; above 0 counts, in any channel."""

    plate: Plate
    image: str = ""
    """A further image of each position, as `labels/foreground`; empty: the main one."""

    def shape(self, position: str) -> tuple[int, int, int, int, int]:
        """Return T, C, Z, Y, X."""
        if self.image and isinstance(self.plate, ZarrPlate):
            return self.plate.shape(position, self.image)
        return self.plate.shape(position)

    def read(self, position: str, time: int) -> np.ndarray:
        """Return the voxels (Z, Y, X) that count, bool."""
        channels = range(self.shape(position)[1])
        if self.image and isinstance(self.plate, ZarrPlate):
            return np.logical_or.reduce([self.plate.read(position, time, c, self.image) > 0 for c in channels])
        return np.logical_or.reduce([self.plate.read(position, time, c) > 0 for c in channels])


@dataclass(frozen=True)
class Chosen:
    """What is compared."""

    target_channels: Some = "all"
    """Of the target, in the order of the prediction's channels; `all`: those with the names of the prediction's."""
    input_channels: Some = "all"
    """Of the target's plate, shown beside them; `all`: those that are no target."""
    positions: Some = "all"
    masks: Path | None = None
    """A plate or a folder of masks; the target itself: its `labels/foreground`."""


@dataclass(frozen=True)
class Pairs:
    """Predictions, targets and inputs, which fit each other. Reads may come from several threads at once."""

    prediction: Plate
    target: Plate
    inputs: Plate | None
    masks: Masks | None
    whole: Plate
    """The target's plate, with all its positions and channels."""

    @classmethod
    def of(cls, prediction: Path, target: Path, chosen: Chosen) -> "Pairs":
        """Open the plates.

        Args:
            prediction: a plate of OME-NGFF, or a folder of frames.
            target: the same.
            chosen: the channels, the positions and the masks.

        Raises:
            BadInput: one is missing, a position, a channel or a mask is, or sizes differ.
        """
        made, opened = predicted(open_plate(prediction)), open_plate(target)
        made, whole = Selection(made, chosen.positions, without_variances(made)), with_foreground(opened, made.channels)
        names = _target_channels(made, whole, _numbered(whole, chosen.target_channels))
        true = Selection(whole, chosen.positions, names)
        _check_positions(made, true)
        rest = [name for name in whole.channels if name not in (*true.channels, FOREGROUND)]
        inputs = rest if chosen.input_channels == "all" else _numbered(whole, chosen.input_channels)
        shown = Selection(whole, chosen.positions, inputs) if inputs else None
        pairs = cls(made, true, shown, _masks(opened, chosen.masks), whole)
        pairs._check_sizes()
        return pairs

    def volumes(self) -> list[Where]:
        """Return every position, time and channel."""
        shapes = [(position, self.target.shape(position)) for position in self.target.positions]
        return [Where(position, int(t), int(c)) for position, shape in shapes for t, c in np.ndindex(*shape[:2])]

    def read(self, where: Where) -> Pair:
        """Read a volume; raise BadInput for NaN and damaged files."""
        mask = self.masks.read(where.position, where.time) if self.masks else None
        return Pair(self.prediction.read(*where), self.target.read(*where), mask)

    def _check_sizes(self) -> None:
        for position in self.target.positions:
            held, expected = self.prediction.shape(position), self.target.shape(position)
            if held != expected:
                raise BadInput(
                    f"{self.prediction.path}/{position}: images (t, c, z, y, x) {held}, expected {expected} as in "
                    f"{self.target.path}"
                )
            _check_numbers(self.prediction, self.target, position)
            if self.masks is None:
                continue
            if position not in self.masks.plate.positions:
                raise BadInput(f"{self.masks.plate.path}: has no masks of position {position}, expected some for each")
            masks = self.masks.shape(position)
            if (masks[0], *masks[2:]) != (expected[0], *expected[2:]):
                here = f"{self.masks.plate.path}/{position}/{self.masks.image}".rstrip("/")
                raise BadInput(
                    f"{here}: masks (t, z, y, x) {(masks[0], *masks[2:])}, expected {(expected[0], *expected[2:])}"
                )


def _numbered(plate: Plate, chosen: Some) -> Some:
    """Return a choice of channels with numbers that were given as text, unless a channel has this name."""
    if chosen == "all":
        return chosen
    return [int(c) if isinstance(c, str) and c.isdecimal() and c not in plate.channels else c for c in chosen]


def _target_channels(prediction: Plate, target: Plate, chosen: Some) -> Sequence[int | str]:
    names = prediction.channels
    if chosen == "all":
        if missing := [name for name in names if name not in target.channels]:
            raise BadInput(
                f"{target.path}: has no channel {missing[0]}, which {prediction.path} predicts; it has "
                f"{', '.join(target.channels)}: expected target channels to be named, one for each prediction"
            )
        return names
    if len(chosen) != len(names):
        raise BadInput(
            f"{prediction.path}: {len(names)} channels ({', '.join(names)}), expected {len(chosen)}, "
            "one for each target channel"
        )
    return chosen


def _check_positions(prediction: Plate, target: Plate) -> None:
    for held, other in ((prediction, target), (target, prediction)):
        if missing := [position for position in other.positions if position not in held.positions]:
            raise BadInput(
                f"{held.path}: has no position {missing[0]}, which {other.path} has; expected the same positions, or "
                "a choice of them"
            )


def _check_numbers(prediction: Plate, target: Plate, position: str) -> None:
    """Raise BadInput for images of other times or slices; plates of other programs, which count from 0, may be."""
    for what, made, true in zip(Numbers._fields, prediction.numbers(position), target.numbers(position), strict=True):
        from_zero = tuple(range(len(true)))
        if made != true and from_zero not in (made, true):
            raise BadInput(f"{prediction.path}/{position}: {what} {made}, expected {true} as in {target.path}")


def _masks(target: Plate, masks: Path | None) -> Masks | None:
    if masks is None:
        return None
    if masks != target.path:
        return Masks(open_plate(masks))
    if without := [position for position in target.positions if FOREGROUND not in target.labels(position)]:
        expected = "expected the masks that preprocessing writes"
        raise BadInput(f"{target.path}/{without[0]}: has no {FOREGROUND_IMAGE}, {expected}")
    return Masks(target, FOREGROUND_IMAGE)
