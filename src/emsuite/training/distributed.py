"""The processes that train one network together, each on its share of every batch, as `torchrun` starts them."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from emsuite.common.errors import BadInput
from emsuite.training.batches import BatchShare


@dataclass(frozen=True)
class Processes:
    """This process among all that train together."""

    device: torch.device
    """its own"""
    rank: int = 0
    count: int = 1
    _host: "distributed.ProcessGroup | None" = field(default=None, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this one writes what all have computed."""
        return self.rank == 0

    def share(self, batch_size: int, parts: int) -> BatchShare:
        """The samples of a batch for this process; raises BadInput if they cannot be shared out evenly."""
        if batch_size % (self.count * parts):
            raise BadInput(
                f"training.batch_size: {batch_size} samples for {self.count} processes with training.accumulate "
                f"{parts}, expected a multiple of {self.count * parts}"
            )
        size = batch_size // (self.count * parts)
        return BatchShare(self.rank * size * parts, size, parts)

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network, with gradients that are the mean of all processes' ones."""
        if self.count == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, devices, gradient_as_bucket_view=True)

    def all_reduce_max(self, number: int) -> int:
        """The highest of what the processes say; all must ask."""
        if self.count == 1:
            return number
        told = torch.tensor(number)
        distributed.all_reduce(told, distributed.ReduceOp.MAX, self._host)
        return int(told)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes; all must ask."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
            values /= self.count
        return values


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that `torchrun` has started, each with a GPU of its own, or none; else this one is alone."""
    count, rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", 1), ("RANK", 0)))
    if count == 1:
        yield Processes(device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if device.index >= torch.cuda.device_count():
            raise BadInput(
                f"torchrun: {device.index + 1} processes or more on this machine, expected at most one for each of its "
                f"{torch.cuda.device_count()} GPUs"
            )
        torch.cuda.set_device(device)
    if rank:
        logging.getLogger("emsuite").setLevel(logging.WARNING)  # all would say the same
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        # what the processes tell each other beside gradients must not wait for the GPU
        yield Processes(device, rank, count, distributed.new_group(backend="gloo"))
    finally:
        distributed.destroy_process_group()
