"""Batches for training: samples and their targets on the device that trains, made ahead of the step where it pays."""

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from emsuite.common.arrays import to_device
from emsuite.common.device import use_one_core
from emsuite.common.pipelining import in_bursts, prefetch
from emsuite.data.sampler import Sample, Sampler
from emsuite.losses.target import Target
from emsuite.targets.make import TargetMaker

_MOST_WORKERS = 8  # threads that draw


@dataclass(frozen=True)
class Batch:
    """What one pass through the network takes."""

    iteration: int
    arrays: Mapping[str, Tensor]
    """The arrays of the samples that the network reads, by name: `raw`, (B, C, Z, Y, X) float32, 0 to 1."""
    targets: dict[str, Target]
    """By head."""

    @property
    def raw(self) -> Tensor:
        """(B, C, Z, Y, X) float32, 0 to 1."""
        return self.arrays["raw"]

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors of the batch."""
        tensors = list(self.arrays.values())
        for target in self.targets.values():
            tensors += [target.values, target.weights, target.labels]
        return tensors

    def with_arrays(self, **arrays: Tensor) -> "Batch":
        """Return the batch with more arrays."""
        return replace(self, arrays={**self.arrays, **arrays})


@dataclass(frozen=True)
class BatchShare:
    """The samples of a batch that one process trains on, in `parts` passes of `size` samples, from `first` on."""

    first: int
    size: int
    parts: int = 1


def make_batch(targets: TargetMaker, sample: Sample, iteration: int, device: torch.device) -> Batch:
    """Move `sample`, a stack of samples, to `device`, and make its targets there."""
    arrays = {name: to_device(voxels, device) for name, voxels in sample.arrays.items()}
    labels, mask = arrays.pop("labels"), arrays.pop("mask")
    return Batch(iteration, arrays, targets(labels, mask, iteration))


class Batches:
    """The batches of `iterations`, in order, `share.parts` for each; `waited` is how long they were waited for."""

    def __init__(
        self,
        make: Callable[[Sample, int], Batch],
        sampler: Sampler,
        share: BatchShare,
        iterations: range,
        device: torch.device,
    ):
        """A GPU's batches are made ahead, on a stream of their own, by one thread, or by several if the volumes do not
        lie on it; a processor's between its steps, one per core at once, or ahead if they are read from disk."""
        self._make_from, self._sampler, self._share = make, sampler, share
        self.waited = 0.0
        """Seconds."""
        first, last = iterations.start * share.parts, iterations.stop * share.parts
        cores = len(os.sched_getaffinity(0))
        if device.type == "cuda":
            workers = 1 if sampler.device.type == "cuda" else min(_MOST_WORKERS, cores)
            # its many small kernels go first where the network's large ones wait too: else each waits for one of those
            stream = torch.cuda.Stream(device, priority=-1)
            made = prefetch(lambda number: self._make_on(stream, number), first, last, workers + 1, workers)
            self._batches = _received(made, device)
        elif sampler.in_memory:
            # Where the network trains on the processors too, a thread that draws meanwhile only gets into its way:
            # every convolution waits for the core that draws (two cores: 143 ms per iteration, not 120, and 107, not
            # 102, at the lowest priority). Between steps each core makes a batch of its own, which wastes least.
            self._batches = in_bursts(self._make, first, last, min(_MOST_WORKERS, cores), use_one_core)
        else:
            self._batches = prefetch(self._make, first, last, ahead=2)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        asked = time.perf_counter()
        batch = next(self._batches)
        self.waited += time.perf_counter() - asked
        return batch

    def close(self) -> None:
        """End the threads."""
        self._batches.close()

    def _make(self, number: int) -> Batch:
        iteration, part = divmod(number, self._share.parts)
        sample = self._sampler.batch(iteration, self._share.size, self._share.first + part * self._share.size)
        return self._make_from(sample, iteration)

    def _make_on(self, stream: torch.cuda.Stream, number: int) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            return self._make(number), stream.record_event()


def _received(made: Iterable[tuple[Batch, torch.cuda.Event]], device: torch.device) -> Generator[Batch, None, None]:
    for batch, ready in made:
        stream = torch.cuda.current_stream(device)
        stream.wait_event(ready)
        for tensor in batch.tensors:
            tensor.record_stream(stream)  # else its memory could go to the next batch while this one is in use
        yield batch
