"""One position of a plate after the other, corrected: flat field, resize, masks and weights, clip, CLAHE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.plates.corrections import (
    Factors,
    clipped,
    equalized,
    factors_of,
    flattened,
    resized,
    resized_empty,
    resized_mask,
    resized_shape,
)
from emsuite.plates.flat_field import empty_sections
from emsuite.plates.foreground_mask import border_weights, foreground_of_channels
from emsuite.plates.plate import MASK, WEIGHTS, FieldImage, Numbers, Plate, new_image, note_result, noted_result
from emsuite.plates.selection import Selection
from emsuite.plates.settings import PreprocessSettings
from emsuite.plates.statistics import Empty, Where


class Written(NamedTuple):
    """What a position holds."""

    inside: int
    """Voxels of its foreground; 0 without masks."""
    total: int
    """Voxels of its masks."""
    empty: list[list[int]]
    """Time, channel and slice of each section that is empty."""


@dataclass(frozen=True)
class Correction:
    """The steps that change voxels, for a plate."""

    settings: PreprocessSettings
    plate: Selection
    """What is read."""
    masks_from: Plate | None = None
    """Masks from elsewhere."""
    fields: Mapping[int, np.ndarray] = field(default_factory=dict)
    """The flat field (Y, X) of each channel that is corrected."""
    limits: Mapping[Where, tuple[float, float]] = field(default_factory=dict)
    """The grey values at which volumes are clipped."""

    @property
    def factors(self) -> Factors:
        """The factors of the resize along z, y, x."""
        return factors_of(self.settings.resize.scale if self.settings.resize else None)

    def resized(self, where: Where) -> np.ndarray:
        """Return a volume (Z, Y, X) after flat field and resize, in its own type if there is neither."""
        return self.judged(where)[0]

    def judged(self, where: Where) -> tuple[np.ndarray, np.ndarray]:
        """Return `resized`, and which of its sections are empty (Z,), judged on the images as they lie in the input."""
        volume = self.plate.read(*where)
        empty = empty_sections(volume)
        if where.channel in self.fields:
            volume = flattened(volume, self.fields[where.channel])
        if self.settings.resize:
            volume = resized(volume, self.factors)
        return volume, resized_empty(empty, len(volume))

    def write(self, position: str, plate: Path, done: Path) -> Written:
        """Write the images of a position, unless an earlier run has.

        Args:
            position: as `A/1/0`.
            plate: the plate to write into, which `create_plate` wrote.
            done: the folder with a record of each position that is complete.

        Returns:
            the voxels of its foreground, all voxels of its masks, and the empty sections.
        """
        if isinstance(earlier := noted_result(done, position, plate / position), dict):
            return Written(**earlier)
        image, mask, weights = self._create(position, plate)
        counts, empty = [0, 0], list[list[int]]()
        for time in range(image.shape[0]):
            judged = [self.judged(Where(position, time, channel)) for channel in range(image.shape[1])]
            volumes = [volume for volume, _ in judged]
            empty += [[time, c, int(z)] for c, (_, dark) in enumerate(judged) for z in np.flatnonzero(dark)]
            if mask is not None:
                found = self._mask(position, time, volumes)
                mask.write(time, 0, found.astype(np.uint8))
                counts = [counts[0] + int(found.sum()), counts[1] + found.size]
                if weights is not None and (step := self.settings.border_weights):
                    weights.write(time, 0, np.stack([border_weights(part, step.w0, step.sigma) for part in found]))
            for channel, volume in enumerate(volumes):
                image.write(time, channel, self._grey(Where(position, time, channel), volume))
        written = Written(counts[0], counts[1], empty)
        note_result(done, position, plate / position, written._asdict())
        return written

    def _create(self, position: str, plate: Path) -> tuple[FieldImage, FieldImage | None, FieldImage | None]:
        """Create the image of a position, its mask and its weights; None for those that are not asked for."""
        s, (t, c, *spatial) = self.settings, self.plate.shape(position)
        shape, size = resized_shape(spatial, self.factors), self.plate.voxel_size_nm
        if size is not None:
            z, y, x = (length / factor for length, factor in zip(size, self.factors, strict=True))
            size = (z, y, x)
        dtype = np.float32 if s.flat_field or s.resize or s.clip or s.clahe else self.plate.dtype
        one, told = (t, 1, *shape), self.plate.numbers(position)
        if shape[0] != spatial[0]:
            told = Numbers(told.times, tuple(range(shape[0])))
        return (
            new_image(plate, position, (t, c, *shape), dtype, self.plate.channels, size, "", told),
            new_image(plate, position, one, np.uint8, ["foreground"], size, MASK, told) if s.masks else None,
            new_image(plate, position, one, np.float32, [WEIGHTS], size, WEIGHTS, told) if s.border_weights else None,
        )

    def _grey(self, where: Where, volume: np.ndarray) -> np.ndarray:
        """Return a volume after clip and CLAHE."""
        if where in self.limits:
            volume = clipped(volume, *self.limits[where])
        step = self.settings.clahe
        if step and where.channel in self.plate.chosen_channels(step.channels):
            volume = equalized(volume, step.kernel_size, step.clip_limit)
        return volume

    def _mask(self, position: str, time: int, volumes: Sequence[np.ndarray]) -> np.ndarray:
        """Return the foreground (Z, Y, X) of a position and time, from thresholds or from elsewhere."""
        step, shape = self.settings.masks, volumes[0].shape
        assert step is not None
        if self.masks_from is None:
            chosen = [volumes[channel] for channel in self.plate.chosen_channels(step.channels)]
            return foreground_of_channels(chosen, step.method, step.radius, step.whole_volume)
        times, slices = self.mask_places(position)
        count = self.masks_from.shape(position)[1]
        read = [self.masks_from.read(position, times[time], channel)[slices] > 0 for channel in range(count)]
        return resized_mask(np.logical_or.reduce(read), shape)

    def mask_places(self, position: str) -> tuple[list[int], list[int]]:
        """Return where the masks from elsewhere lie that belong to the times and slices of a position.

        They belong together by their numbers, not by their places; by their places alone if they have the slices of a
        resize along z, which have no numbers.

        Raises:
            BadInput: the mask of a time or a slice is missing, or masks have another size than the images.
        """
        masks, (times, slices) = self.masks_from, self.plate.numbers(position)
        assert masks is not None
        before, held = self.plate.shape(position)[2:], masks.shape(position)[2:]
        after, has = resized_shape(before, self.factors), masks.numbers(position)
        if held[1:] not in (before[1:], after[1:]):
            raise BadInput(f"{masks.path}/{position}: masks of {held[1:]}, expected {before[1:]} as the images")
        if held == after and after[0] != before[0]:
            slices, has = tuple(range(after[0])), Numbers(has.times, tuple(range(after[0])))
        for what, each, known in (("time", times, has.times), ("slice", slices, has.slices)):
            if missing := [number for number in each if number not in known]:
                expected = f"expected one for each {what} of {self.plate.path}"
                raise BadInput(
                    f"{masks.path}/{position}: has no mask of {what} {missing[0]}, {expected}; it has "
                    f"{', '.join(map(str, known[:8]))}"
                )
        return [has.times.index(number) for number in times], [has.slices.index(number) for number in slices]


def volumes_of(plate: Plate) -> list[Where]:
    """Return every position, time and channel of a plate."""
    shapes = [(position, plate.shape(position)) for position in plate.positions]
    return [Where(position, int(t), int(c)) for position, shape in shapes for t, c in np.ndindex(*shape[:2])]


def empty_of(plate: Plate, written: Sequence[Written]) -> Empty:
    """Return the empty sections of a plate, of which each position was `written`."""
    empty = {where: np.zeros(plate.shape(where.position)[2], bool) for where in volumes_of(plate)}
    for position, one in zip(plate.positions, written, strict=True):
        for time, channel, z in one.empty:
            empty[Where(position, time, channel)][z] = True
    return empty
