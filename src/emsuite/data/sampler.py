"""Training samples: a random place in a random volume, augmented, the same for the same seed and iteration."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from funlib.geometry import Coordinate, Roi
from pydantic import Field, NonNegativeInt

from emsuite.augment.mirror import MirrorTranspose
from emsuite.augment.registry import Augmentation, change_values, check_order, draw_warp
from emsuite.augment.resample import Source, read_linear, read_nearest
from emsuite.common.arrays import stacked
from emsuite.common.device import one_core
from emsuite.common.errors import BadInput
from emsuite.common.settings import NonNegative, Probability, Settings
from emsuite.data.sampling_locations import Locations
from emsuite.data.training_volume import Ones, TrainingVolume


class SamplingSettings(Settings):
    """Where samples are taken from."""

    label_padding: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = (0, 0, 0)
    """How far the output may reach beyond the labels, nm, z y x; there labels and mask are 0."""
    min_masked: Probability = 0.5
    """Least share of the output, before augmentation, in which the mask is set."""
    probabilities: tuple[NonNegative, ...] | None = Field(default=None, min_length=1)
    """How often each volume is drawn, in the order of the volumes; all alike by default."""
    seed: NonNegativeInt = 0
    """The same seed gives the same samples, on any number of workers and across a resume."""


@dataclass(frozen=True)
class Sample:
    """A training input with the labels that its targets need; stacked along a first axis in a batch."""

    raw: torch.Tensor
    """(Z, Y, X) float32 of the input shape, 0 to 1; 0 outside the volume."""
    labels: torch.Tensor
    """(Z, Y, X) int32 over the output and its label context; 0 outside the labels."""
    mask: torch.Tensor
    """(Z, Y, X) uint8 {0, 1}, as `labels`."""
    volumes: tuple[int, ...]
    """Which of the sampler's volumes; one per sample."""
    origins: tuple[Coordinate, ...]
    """Where the output begins before augmentation, nm; one per sample."""


class Sampler:
    """Draws samples; every draw is a function of the seed, the iteration and the index in the batch alone."""

    def __init__(
        self,
        volumes: Sequence[TrainingVolume],
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        label_context: tuple[Sequence[int], Sequence[int]] = ((0, 0, 0), (0, 0, 0)),
        augmentations: Sequence[Augmentation] = (),
        settings: SamplingSettings | None = None,
    ):
        """Shapes and context in voxels, z y x; the output lies in the middle of the input.

        `label_context` is how many voxels of labels the targets need (before, behind) the output.
        Raises BadInput for volumes without a place to sample, and for settings that do not fit the volumes.
        """
        settings = settings or SamplingSettings()
        self._volumes, self._steps, self._seed = tuple(volumes), tuple(augmentations), settings.seed
        _check_volumes(self._volumes, settings)
        _check_steps(self._steps, self._volumes[0])
        before, behind = (Coordinate(context) for context in label_context)
        output = Coordinate(output_shape)
        self._input = Roi((Coordinate(input_shape) - output) // 2 * -1, input_shape)
        self._labelled = Roi(before * -1, output + before + behind)
        self._all = self._input.union(self._labelled)
        self._centre = np.array(self._input.begin) + (np.array(input_shape) - 1) / 2
        self._locations = [_locations(volume, output, settings) for volume in self._volumes]
        self._in_raw = [(v.labels_offset - v.raw_offset) / v.voxel_size for v in self._volumes]
        self._chances = np.cumsum(settings.probabilities or [1.0] * len(self._volumes))

    @property
    def device(self) -> torch.device:
        """Where the samples are made."""
        return self._volumes[0].raw.device

    @property
    def in_memory(self) -> bool:
        """Whether no sample needs to read from disk."""
        return all(volume.tensors for volume in self._volumes)

    def draw(self, iteration: int, index: int = 0) -> Sample:
        """The sample `index` of the batch of `iteration`; on the CPU one core makes it."""
        with one_core():
            random = np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, iteration, index])))
            number = int(np.searchsorted(self._chances, random.random() * self._chances[-1], side="right"))
            place = Coordinate(self._locations[number].draw(random))
            raw, labels, mask = self._read(number, place, random)
        origin = self._volumes[number].labels_offset + place * self._volumes[number].voxel_size
        return Sample(raw, labels, mask, (number,), (origin,))

    def _read(self, number: int, place: Coordinate, random: np.random.Generator) -> tuple[torch.Tensor, ...]:
        volume = self._volumes[number]
        warp = draw_warp(self._steps, self._all, self._centre, random)
        labels, mask = read_nearest((volume.labels, volume.mask), warp, self._labelled, place)
        raw = read_linear(volume.raw, warp, self._input, place + self._in_raw[number])
        if volume.raw.dtype == torch.uint8:
            raw.div_(255)
        change_values(self._steps, raw, random)
        return raw, labels, mask

    def batch(self, iteration: int, size: int, first: int = 0) -> Sample:
        """The samples `first` to `first + size - 1` of the batch of `iteration`, stacked: (B, Z, Y, X)."""
        samples = [self.draw(iteration, index) for index in range(first, first + size)]
        return Sample(
            stacked([sample.raw for sample in samples]),
            stacked([sample.labels for sample in samples]),
            stacked([sample.mask for sample in samples]),
            tuple(sample.volumes[0] for sample in samples),
            tuple(sample.origins[0] for sample in samples),
        )


def _check_volumes(volumes: Sequence[TrainingVolume], settings: SamplingSettings) -> None:
    if not volumes:
        raise BadInput("no volumes to train on, expected at least one")
    first, padding = volumes[0], Coordinate(settings.label_padding)
    for volume in volumes:
        if volume.voxel_size != first.voxel_size:
            raise BadInput(
                f"{volume.name}: voxels of {tuple(volume.voxel_size)} nm, expected those of {first.name}, "
                f"{tuple(first.voxel_size)}"
            )
    if padding % first.voxel_size != padding * 0:
        raise BadInput(
            f"sampling.label_padding: {tuple(padding)} nm, expected multiples of the voxels {tuple(first.voxel_size)}"
        )
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
                f"augment: transpose {list(step.transpose)} with voxels of {tuple(volume.voxel_size)} nm, expected axes"
                " (0 z, 1 y, 2 x) of the same voxel size"
            )


def _locations(volume: TrainingVolume, output: Coordinate, settings: SamplingSettings) -> Locations:
    padding, mask = Coordinate(settings.label_padding), volume.mask
    if isinstance(mask, torch.Tensor):
        mask = mask.cpu()
    locations = Locations(mask, output, padding / volume.voxel_size, settings.min_masked, isinstance(mask, Ones))
    if not len(locations):
        raise BadInput(
            f"{volume.name}: labels of {tuple(mask.shape)} voxels, {_share(mask):.0%} of them masked in, padded "
            f"by {tuple(padding)} nm; expected room for an output of {tuple(output)} voxels with "
            f"{settings.min_masked:.0%} masked in"
        )
    return locations


def _share(mask: Source) -> float:
    sections = mask.shape[0]
    return float(np.mean([np.asarray(mask[z : z + 1, :, :]).mean() for z in range(sections)]))
