"""Batches for training: samples with their targets on the training device, prepared ahead of time where that pays."""

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from emsuite.common.arrays import to_device
from emsuite.common.device import use_one_core
from emsuite.common.pipelining import in_bursts, prefetch
from emsuite.common.profile import timed
from emsuite.data.sampler import Sample, Sampler
from emsuite.losses.target import Target
from emsuite.targets.graph import TargetGraph
from emsuite.targets.images import PREFIX
from emsuite.targets.make import TargetMaker

_MOST_WORKERS = 8  # threads that draw samples


Drawn = TypeVar("Drawn", covariant=True)


class Draws(Protocol[Drawn]):
    """What draws samples: `Sampler` or `UnpairedSampler`."""

    @property
    def device(self) -> torch.device:
        """The device that samples are made on."""

    @property
    def in_memory(self) -> bool:
        """Whether no sample reads from disk."""

    def batch(self, iteration: int, size: int, first: int = 0) -> Drawn:
        """Return the samples `first` to `first + size - 1` of an iteration, stacked."""


@dataclass(frozen=True)
class Batch:
    """The input of one pass through the network, and the targets of its heads."""

    iteration: int
    arrays: Mapping[str, Tensor]
    """The arrays of the samples that the network reads, by name: `raw`, (B, C, Z, Y, X) float32, 0 to 1."""
    targets: dict[str, Target]
    """By head."""
    mask: Tensor
    """(B, Z, Y, X) uint8 {0, 1} with the label context of the targets: 0 where nobody labelled."""

    @property
    def raw(self) -> Tensor:
        """(B, C, Z, Y, X) float32, 0 to 1."""
        return self.arrays["raw"]

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors of the batch."""
        return [*self.arrays.values(), *self.target_tensors, self.mask]

    @property
    def target_tensors(self) -> list[Tensor]:
        """Values, weights and labels of each head's target, head after head."""
        return [tensor for target in self.targets.values() for tensor in (target.values, target.weights, target.labels)]

    def with_target_tensors(self, tensors: Sequence[Tensor]) -> "Batch":
        """Return the batch with other `target_tensors`."""
        parts = zip(self.targets.items(), zip(*[iter(tensors)] * 3, strict=True), strict=True)
        targets = {
            name: replace(target, values=values, weights=weights, labels=labels)
            for (name, target), (values, weights, labels) in parts
        }
        return replace(self, targets=targets)

    def with_arrays(self, **arrays: Tensor) -> "Batch":
        """Return the batch with more arrays."""
        return replace(self, arrays={**self.arrays, **arrays})


@dataclass(frozen=True)
class BatchShare:
    """The part of each batch that one process trains on: `parts` passes of `size` samples, from sample `first` on."""

    first: int
    size: int
    parts: int = 1


def make_batch(targets: TargetMaker | TargetGraph, sample: Sample, iteration: int, device: torch.device) -> Batch:
    """Return a batch on `device`, with targets computed there, from `sample`, several samples stacked."""
    with timed("copy", device):
        arrays = {name: to_device(voxels, device) for name, voxels in sample.arrays.items()}
    mask = arrays.pop("mask")
    images = {name: arrays.pop(name) for name in list(arrays) if name.startswith(PREFIX)}
    with timed("targets", device):
        if images:
            assert isinstance(targets, TargetMaker)
            return Batch(iteration, arrays, targets(mask.int(), mask, iteration, images), mask)
        return Batch(iteration, arrays, targets(arrays.pop("labels"), mask, iteration), mask)


def prepared_targets(maker: TargetMaker, sampler: Sampler) -> TargetMaker | TargetGraph:
    """Return what makes the targets of `Batches`: a CUDA graph where one thread makes all of them on a GPU."""
    return TargetGraph(maker) if sampler.device.type == "cuda" and sampler.has_labels else maker


class Batches:
    """The batches of `iterations`, in order, `share.parts` for each iteration."""

    def __init__(
        self,
        make: Callable[[Drawn, int], Batch],
        sampler: Draws[Drawn],
        share: BatchShare,
        iterations: range,
        device: torch.device,
    ):
        """Start to prepare batches.

        On a GPU, batches are prepared ahead on a separate CUDA stream: by one thread if the volumes are on the GPU,
        else by several. On a CPU, one batch per core is prepared between steps, or ahead of time if volumes are read
        from disk.

        Args:
            make: makes the batch of samples and an iteration, on `device`.
            sampler: draws the samples.
            share: the part of each batch that this process trains on.
            iterations: which batches, in this order.
            device: trains the network.
        """
        self._make_from: Callable[[Any, int], Batch] = make
        self._sampler, self._share = sampler, share
        self.waited = 0.0
        """Seconds that the training loop has waited for batches so far."""
        first, last = iterations.start * share.parts, iterations.stop * share.parts
        cores = len(os.sched_getaffinity(0))
        if device.type == "cuda":
            workers = 1 if sampler.device.type == "cuda" else min(_MOST_WORKERS, cores)
            # High priority: otherwise each of a batch's many small kernels waits for a large one of the network.
            stream = torch.cuda.Stream(device, priority=-1)
            prepared = prefetch(lambda number: self._make_on(stream, number), first, last, workers + 1, workers)
            self._batches = _received(prepared, device)
        elif sampler.in_memory:
            # The network trains on the same cores. A thread that draws meanwhile delays every convolution (two cores:
            # 143 ms per iteration instead of 120; at the lowest priority 107 instead of 102). So each core makes a
            # batch of its own between steps.
            self._batches = in_bursts(self._make, first, last, min(_MOST_WORKERS, cores), use_one_core)
        else:
            self._batches = prefetch(self._make, first, last, ahead=2, initializer=use_one_core)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        start = time.perf_counter()
        batch = next(self._batches)
        self.waited += time.perf_counter() - start
        return batch

    def close(self) -> None:
        """End the threads that prepare batches."""
        self._batches.close()

    def _make(self, number: int) -> Batch:
        iteration, part = divmod(number, self._share.parts)
        with timed("sample", self._sampler.device):
            sample = self._sampler.batch(iteration, self._share.size, self._share.first + part * self._share.size)
        return self._make_from(sample, iteration)

    def _make_on(self, stream: torch.cuda.Stream, number: int) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            return self._make(number), stream.record_event()


def _received(prepared: Iterable[tuple[Batch, torch.cuda.Event]], device: torch.device) -> Generator[Batch, None, None]:
    for batch, ready in prepared:
        stream = torch.cuda.current_stream(device)
        stream.wait_event(ready)
        for tensor in batch.tensors:
            # Without this, the memory of the tensor could be reused for the next batch while this one is in use.
            tensor.record_stream(stream)
        yield batch
