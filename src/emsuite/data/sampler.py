"""Training samples: a random position in a random volume, augmented, the same for the same seed and iteration.

Coordinates stand in four frames, and the names of variables say which:

    _nm          the world
    _label_vx    voxels of the labels, from their first voxel
    _raw_vx      voxels of raw, from its first voxel
    _sample_vx   voxels from the first voxel of the sample's output region; the input begins at a negative one
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, model_validator
from torch import Tensor

from emsuite.augment.mirror import MirrorTranspose
from emsuite.augment.read_table import Placed
from emsuite.augment.registry import Augmentation, change_values, change_values_of_batch, check_order, draw_warp
from emsuite.augment.resample import Source, can_read_batches, read_batch, read_linear, read_nearest
from emsuite.augment.warp import Warp
from emsuite.common.arrays import stacked
from emsuite.common.device import one_core
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi, on_grid
from emsuite.common.profile import timed
from emsuite.common.settings import Distance, NonNegative, Probability, Settings
from emsuite.data.images.image_volume import ImageBoxes, ImageVolume, chances, read_images
from emsuite.data.sampling_locations import Locations
from emsuite.data.training_volume import Ones, TrainingVolume

_TRIES = 100  # of a position inside the volume where enough is masked in


class SamplingSettings(Settings):
    """Where samples are taken from."""

    label_padding: tuple[Distance, Distance, Distance] = (0, 0, 0)
    """How far the output may reach beyond the labels, nm, z y x. Labels and mask are 0 there."""
    min_masked: Probability = 0.5
    """Least share of the output, before augmentation, in which the mask is 1."""
    inside: bool = False
    """Whether all voxels of raw and labels that a sample reads lie inside them, as gunpowder's RandomLocation asks.
    Along an axis on which they do not fit, the sample lies in the middle."""
    probabilities: tuple[NonNegative, ...] | None = Field(default=None, min_length=1)
    """How often each volume is drawn, in the order of the volumes. Default: all alike."""
    seed: NonNegativeInt = 0
    """The same seed gives the same samples, on any number of workers and across a resume."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.inside and any(self.label_padding):
            raise ValueError("samples inside the labels reach nowhere beyond them: expected a label_padding of 0")
        return self


@dataclass(frozen=True)
class Sample:
    """The named arrays of one training sample, or of several samples stacked along a first axis.

    `raw`: (C, Z, Y, X) float32 of the input shape, 0 to 1; 0 outside the volume.
    `labels`: (Z, Y, X) int32 over the output and its label context; 0 is background, and outside the labels.
    `mask`: (Z, Y, X) uint8 {0, 1}, as `labels`. Both are missing where the volume has no labels.
    """

    arrays: Mapping[str, Tensor]
    volumes: tuple[int, ...] = ()
    """The number of the volume that each sample comes from."""
    origins: tuple[Coordinate, ...] = ()
    """The first voxel of each sample's output before augmentation, nm."""

    def __getitem__(self, name: str) -> Tensor:
        return self.arrays[name]


class Sampler:
    """Draws samples. Every draw depends on the seed, the iteration and the index in the batch, on nothing else."""

    def __init__(
        self,
        volumes: Sequence[TrainingVolume],
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        label_context: tuple[Sequence[int], Sequence[int]] = ((0, 0, 0), (0, 0, 0)),
        augmentations: Sequence[Augmentation] = (),
        settings: SamplingSettings | None = None,
    ):
        """Find the positions in each volume that can be sampled.

        Args:
            volumes: of one voxel size, all with labels or all without.
            input_shape: voxels of raw, z y x.
            output_shape: voxels that the network predicts, z y x, in the middle of the input.
            label_context: voxels of labels, z y x, that the targets need before and behind the output.
            augmentations: applied in this order.
            settings: where samples are taken from.

        Raises:
            BadInput: a volume has no position to sample, or settings do not fit the volumes.
        """
        settings = settings or SamplingSettings()
        self._volumes, self._steps, self._seed = tuple(volumes), tuple(augmentations), settings.seed
        self._inside = settings.inside or isinstance(
            next(iter(volumes), None), ImageVolume
        )  # beyond an image is nothing
        _check_volumes(self._volumes, settings)
        _check_steps(self._steps, self._volumes[0])
        before, behind = (Coordinate(context) for context in label_context)
        output = Coordinate(output_shape)
        self._input_sample_vx = Roi((Coordinate(input_shape) - output) // 2 * -1, input_shape)
        self._labels_sample_vx = Roi(before * -1, output + before + behind)
        self._all_sample_vx = self._input_sample_vx.union(self._labels_sample_vx)
        self._centre_sample_vx = np.array(self._input_sample_vx.begin) + (np.array(input_shape) - 1) / 2
        self._locations = [_locations(volume, output, settings) for volume in self._volumes]
        self._labels_begin_raw_vx = [(v.labels_offset - v.raw_offset) / v.voxel_size for v in self._volumes]
        self._cumulative_chances = np.cumsum(settings.probabilities or chances(self._volumes, self._locations))

    @property
    def device(self) -> torch.device:
        """The device that samples are made on."""
        return self._volumes[0].raw.device

    @property
    def in_memory(self) -> bool:
        """Whether no sample reads from disk."""
        return all(volume.tensors for volume in self._volumes)

    @property
    def has_labels(self) -> bool:
        """Whether samples hold labels."""
        return self._volumes[0].labels is not None

    def draw(self, iteration: int, index: int = 0) -> Sample:
        """Return the sample `index` of the batch of `iteration`. On the CPU, one core makes it."""
        with one_core():
            drawn = self._draw(iteration, index)
            return Sample(self._read(drawn), (drawn.number,), (self._origin(drawn),))

    def batch(self, iteration: int, size: int, first: int = 0) -> Sample:
        """Return the samples `first` to `first + size - 1` of the batch of `iteration`, stacked along a first axis."""
        if self._reads_batches:
            drawn = [self._draw(iteration, index) for index in range(first, first + size)]
            return Sample(
                self._read_batch(drawn), tuple(one.number for one in drawn), tuple(self._origin(one) for one in drawn)
            )
        samples = [self.draw(iteration, index) for index in range(first, first + size)]
        return Sample(
            {name: stacked([sample[name] for sample in samples]) for name in samples[0].arrays},
            tuple(sample.volumes[0] for sample in samples),
            tuple(sample.origins[0] for sample in samples),
        )

    @cached_property
    def _reads_batches(self) -> bool:
        """Whether all samples of a batch can be read at once."""
        return can_read_batches(self.device) and all(map(_is_resident, self._volumes))

    def _draw(self, iteration: int, index: int) -> "_Drawn":
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, iteration, index])))
        chances = self._cumulative_chances
        number = int(np.searchsorted(chances, random.random() * chances[-1], side="right"))
        output_label_vx = Coordinate(self._locations[number].draw(random))
        warp = draw_warp(self._steps, self._all_sample_vx, self._centre_sample_vx, random)
        if self._inside:
            output_label_vx = self._drawn_inside(number, output_label_vx, warp, random)
        return _Drawn(number, output_label_vx, output_label_vx + self._labels_begin_raw_vx[number], warp, random)

    def _drawn_inside(
        self, number: int, output_label_vx: Coordinate, warp: Warp, random: np.random.Generator
    ) -> Coordinate:
        """Return the position if nothing outside the volume is read from there, else another one.

        The position is uniformly distributed over all legal ones from which the warp reads inside.
        """
        low, high = self._positions_inside(number, warp)
        if all(low <= np.array(output_label_vx)) and all(np.array(output_label_vx) <= high):
            return output_label_vx
        for _ in range(_TRIES):
            position = Coordinate(random.integers(low, high, endpoint=True).tolist())
            if position in self._locations[number]:
                return position
        return output_label_vx  # too little of the inside is masked in

    def _positions_inside(self, number: int, warp: Warp) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and the highest position from which `warp` reads inside raw and labels, label voxels."""
        volume, begin_raw_vx = self._volumes[number], np.array(self._labels_begin_raw_vx[number], int)
        lows, highs = [], []
        for source, box, begin in ((volume.labels, self._labels_sample_vx, 0 * begin_raw_vx),
                                   (volume.raw, self._input_sample_vx, begin_raw_vx)):  # fmt: skip
            if source is not None:
                first, last = warp.bounds(warp.permutation.image(box))
                lows.append(-first - begin)
                highs.append(np.array(source.shape) - last - begin)
        low, high = np.max(lows, axis=0), np.min(highs, axis=0)
        middle = (low + high) // 2
        return np.where(low <= high, low, middle), np.where(low <= high, high, middle)

    def _origin(self, drawn: "_Drawn") -> Coordinate:
        volume = self._volumes[drawn.number]
        return volume.labels_offset + drawn.output_label_vx * volume.voxel_size

    def _read(self, drawn: "_Drawn") -> dict[str, Tensor]:
        volume, arrays, warp = self._volumes[drawn.number], dict[str, Tensor](), drawn.warp
        if isinstance(volume, ImageVolume):
            boxes = self._input_sample_vx, self._labels_sample_vx, drawn.output_raw_vx, drawn.output_label_vx
            return read_images(volume, warp, self._steps, ImageBoxes(*boxes), drawn.random)
        if volume.labels is not None and volume.mask is not None:
            both = read_nearest((volume.labels, volume.mask), warp, self._labels_sample_vx, drawn.output_label_vx)
            arrays["labels"], arrays["mask"] = both
        raw = read_linear(volume.raw, warp, self._input_sample_vx, drawn.output_raw_vx)
        if volume.raw.dtype == torch.uint8:
            raw.div_(255)
        change_values(self._steps, raw, drawn.random)
        return arrays | {"raw": raw[None]}

    def _read_batch(self, drawn: Sequence["_Drawn"]) -> dict[str, Tensor]:
        samples = []
        for one in drawn:
            volume = self._volumes[one.number]
            labels, mask = (array if isinstance(array, Tensor) else None for array in (volume.labels, volume.mask))
            assert isinstance(volume.raw, Tensor)
            samples.append(Placed(volume.raw, labels, mask, one.warp, one.output_raw_vx, one.output_label_vx))
        with timed("warp", self.device):  # the volumes lie on the GPU, whose kernels read them through the warp
            arrays = read_batch(samples, self._input_sample_vx, self._labels_sample_vx, self.device)
        raw = arrays.pop("raw")
        change_values_of_batch(self._steps, raw, [one.random for one in drawn])
        return arrays | {"raw": raw[:, None]}


@dataclass(frozen=True)
class _Drawn:
    """Where a sample lies, and how it is warped; its values change by what `random` draws next."""

    number: int
    """The number of its volume."""
    output_label_vx: Coordinate
    output_raw_vx: Coordinate
    warp: Warp
    random: np.random.Generator


def _is_resident(volume: TrainingVolume) -> bool:
    """Return whether kernels can read the volume: its arrays are tensors of the types that they know."""
    if isinstance(volume, ImageVolume):
        return False
    types = {torch.uint8, torch.float32}, {torch.int32}, {torch.uint8}
    arrays = volume.raw, volume.labels, volume.mask
    return all(
        array is None or isinstance(array, Ones) or (isinstance(array, Tensor) and array.dtype in known)
        for array, known in zip(arrays, types, strict=True)
    )


def _check_volumes(volumes: Sequence[TrainingVolume], settings: SamplingSettings) -> None:
    if not volumes:
        raise BadInput("no volumes to train on, expected at least one")
    first = volumes[0]
    padding = on_grid(Coordinate(settings.label_padding), first.voxel_size)
    for volume in volumes:
        if volume.voxel_size != first.voxel_size:
            raise BadInput(
                f"{volume.name}: voxels of {volume.voxel_size} nm, expected those of {first.name}, {first.voxel_size}"
            )
        if (volume.labels is None) != (first.labels is None):
            raise BadInput(f"{volume.name}: labels in one volume alone, expected labels in all volumes or in none")
    if padding % first.voxel_size != padding * 0:
        raise BadInput(f"sampling.label_padding: {padding} nm, expected multiples of the voxels {first.voxel_size}")
    if settings.probabilities is not None:
        if len(settings.probabilities) != len(volumes):
            raise BadInput(
                f"sampling.probabilities: {len(settings.probabilities)} for {len(volumes)} volumes, expected one each"
            )
        if not sum(settings.probabilities) > 0:
            raise BadInput("sampling.probabilities: all are 0, expected one above 0")


def _check_steps(steps: tuple[Augmentation, ...], volume: TrainingVolume) -> None:
    try:
        check_order(steps)
    except ValueError as error:
        raise BadInput(f"augment: {error}") from None
    for step in steps:
        if isinstance(step, MirrorTranspose) and len({volume.voxel_size[axis] for axis in step.transpose}) > 1:
            raise BadInput(
                f"augment: transpose {list(step.transpose)} with voxels of {volume.voxel_size} nm, expected axes"
                " (0 z, 1 y, 2 x) of the same voxel size"
            )


def _locations(volume: TrainingVolume, output: Coordinate, settings: SamplingSettings) -> Locations:
    padding = on_grid(Coordinate(settings.label_padding), volume.voxel_size)
    mask = Ones(tuple(volume.raw.shape)) if volume.mask is None else volume.mask
    if isinstance(mask, Tensor):
        mask = mask.cpu()
    is_image = isinstance(volume, ImageVolume)
    least = volume.min_fraction if isinstance(volume, ImageVolume) else settings.min_masked
    locations = Locations(mask, output, padding / volume.voxel_size, least, isinstance(mask, Ones))
    if not len(locations) and not is_image:
        what = "raw" if volume.labels is None else "labels"
        raise BadInput(
            f"{volume.name}: {what} of {tuple(mask.shape)} voxels, {_share(mask):.0%} of them masked in, padded "
            f"by {padding} nm; expected room for an output of {tuple(output)} voxels with "
            f"{settings.min_masked:.0%} masked in"
        )
    return locations


def _share(mask: Source) -> float:
    sections = mask.shape[0]
    return float(np.mean([np.asarray(mask[z : z + 1, :, :]).mean() for z in range(sections)]))
