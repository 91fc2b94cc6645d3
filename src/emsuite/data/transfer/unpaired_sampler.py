"""Pairs of samples that do not belong together: one of domain A, with its labels if it has some, and one of domain B.

Each domain is sampled as any training volume is: boxes are its volumes. Sample `number` of an iteration depends on the
seed, the iteration and the number alone, in each of the domains.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emsuite.augment.registry import Augmentation
from emsuite.common.device import one_core
from emsuite.common.errors import BadInput
from emsuite.data.sampler import Sample, Sampler, SamplingSettings
from emsuite.data.transfer.domain import Domain
from emsuite.data.transfer.settings import NormalizedChange, UnpairedSettings

_NO_CHANGE = UnpairedSettings()


@dataclass(frozen=True)
class UnpairedSample:
    """Several samples of each domain, stacked."""

    a: Tensor
    """(B, 1, Z, Y, X) float32, normalized by the statistics of its domain."""
    b: Tensor
    """As `a`."""
    labels: Tensor | None
    """Those of `a`, (B, Z, Y, X) int32, 0 is background; None without labels."""
    mask: Tensor | None = None
    """Where somebody labelled `a`, as `labels`, uint8 {0, 1}."""


class UnpairedSampler:
    """Draws samples of two domains."""

    def __init__(
        self,
        a: Domain,
        b: Domain,
        shape: Sequence[int],
        settings: UnpairedSettings | None = None,
        augment: Sequence[Augmentation] = (),
        seed: int = 0,
    ):
        """Find the positions that can be sampled.

        Args:
            a: the first domain.
            b: the second domain, without labels.
            shape: of a sample of either, voxels, z y x.
            settings: changes of normalized values.
            augment: applied to samples of both, by draws of their own; those that change values work on grey values
                from 0 to 1, before they are normalized.
            seed: decides all draws.

        Raises:
            BadInput: a box is smaller than a sample, or as `Sampler`.
        """
        if b.has_labels:
            raise BadInput("domain b: has labels, expected labels of domain a alone")
        self._change = (settings or _NO_CHANGE).change
        self._domains, self._seed = (a, b), seed
        self._samplers = tuple(
            _sampler(domain, shape, augment, seed, number) for number, domain in enumerate(self._domains)
        )

    @property
    def device(self) -> torch.device:
        """The device that samples are made on."""
        return self._samplers[0].device

    @property
    def in_memory(self) -> bool:
        """Whether no sample reads from disk."""
        return all(sampler.in_memory for sampler in self._samplers)

    @property
    def has_labels(self) -> bool:
        """Whether samples of A hold labels."""
        return self._domains[0].has_labels

    def batch(self, iteration: int, size: int, first: int = 0) -> UnpairedSample:
        """Return the samples `first` to `first + size - 1` of an iteration. On the CPU, one core makes them."""
        with one_core():
            a, b = (sampler.batch(iteration, size, first) for sampler in self._samplers)
            numbers = range(first, first + size)
            images = [self._normalized(each, domain, iteration, numbers) for domain, each in enumerate((a, b))]
        return UnpairedSample(images[0], images[1], a.arrays.get("labels"), a.arrays.get("mask"))

    def _normalized(self, sample: Sample, domain: int, iteration: int, numbers: range) -> Tensor:
        """Normalize the images of samples in place, and change them by draws that depend on their numbers."""
        images, (gain, shift) = sample["raw"], self._domains[domain].statistics.scale
        if self._change is None:
            return images.mul_(gain).add_(shift)
        for image, number in zip(images, numbers, strict=True):
            seeds = np.random.SeedSequence([self._seed, iteration, number, domain])
            scale, further = _drawn(self._change, np.random.Generator(np.random.Philox(seeds)))
            image.mul_(gain * scale).add_(shift * scale + further)  # both at once: each reads and writes all voxels
        return images


def _drawn(change: NormalizedChange, random: np.random.Generator) -> tuple[float, float]:
    return random.uniform(*change.scale), random.uniform(*change.shift)


def _sampler(domain: Domain, shape: Sequence[int], augment: Sequence[Augmentation], seed: int, number: int) -> Sampler:
    """Return the sampler of one domain, with draws of its own."""
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    sampling = SamplingSettings(inside=True, probabilities=domain.probabilities, seed=own)
    return Sampler(domain.windows(shape), shape, shape, augmentations=augment, settings=sampling)
