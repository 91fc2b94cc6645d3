"""Processes that train one network together, started by `torchrun`; each has its share of every batch."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from emsuite.common.errors import BadInput
from emsuite.training.batches import BatchShare


@dataclass(frozen=True)
class Processes:
    """This process among all processes that train together."""

    device: torch.device
    """The device of this process."""
    rank: int = 0
    count: int = 1
    _host: "distributed.ProcessGroup | None" = field(default=None, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs, snapshots and checkpoints."""
        return self.rank == 0

    def share(self, batch_size: int, parts: int) -> BatchShare:
        """Return the samples of a batch for this process; raise BadInput if processes would get unequal shares."""
        if batch_size % (self.count * parts):
            raise BadInput(
                f"training.batch_size: {batch_size} samples for {self.count} processes with training.accumulate "
                f"{parts}, expected a multiple of {self.count * parts}"
            )
        size = batch_size // (self.count * parts)
        return BatchShare(self.rank * size * parts, size, parts)

    def parallel(self, network: nn.Module) -> nn.Module:
        """Return the network with gradients that are averaged over all processes."""
        if self.count == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, devices, gradient_as_bucket_view=True)

    def all_reduce_max(self, number: int) -> int:
        """Return the highest `number` of all processes; every process must call this."""
        if self.count == 1:
            return number
        highest = torch.tensor(number)
        distributed.all_reduce(highest, distributed.ReduceOp.MAX, self._host)
        return int(highest)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of `values` over all processes; every process must call this."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
            values /= self.count
        return values


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that `torchrun` has started, each with its own GPU or all on the CPU; else yield one."""
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
        logging.getLogger("emsuite").setLevel(logging.WARNING)  # the main process reports for all
    store = _store_of_files(count)
    where: dict[str, Any] = {} if store is None else {"store": store, "rank": rank, "world_size": count}
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", **where)
    try:
        # A group on the host: messages beside gradients must not wait for the GPU.
        yield Processes(device, rank, count, distributed.new_group(backend="gloo"))
    finally:
        distributed.destroy_process_group()


def _store_of_files(count: int) -> "distributed.FileStore | None":
    """Return a store by which the processes find each other, in the temporary folder of their `torchrun`.

    torch's own store listens on every address of the machine. None if the processes are on several machines.
    """
    record = os.environ.get("TORCHELASTIC_ERROR_FILE")  # FOLDER/attempt_N/RANK/error.json; torchrun makes FOLDER
    if record is None or os.environ.get("LOCAL_WORLD_SIZE") != str(count):
        return None
    return distributed.FileStore(str(Path(record).parents[1] / "processes"), count)
