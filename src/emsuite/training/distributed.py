"""The processes of a run: those that train one network together, and the signals that ask them to end.

`torchrun` starts several; each has its share of every batch. At a signal, a run finishes its iteration, saves, and ends
with a code that names the signal. A second Ctrl-C ends it at once, without saving.
"""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from emsuite.common.errors import BadInput
from emsuite.training.batches import BatchShare

_PATIENCE = timedelta(hours=1)
"""How long processes wait for another, as for the first one while it compares volumes on servers and saves."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""Schedulers send SIGTERM before they kill a job. Slurm sends SIGUSR1 some time before, if the job asks for it. Ctrl-C
sends SIGINT."""
_SAID = b"\nCtrl-C: saving behind this iteration; once more ends at once\n"


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

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes; every process must call this."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of `values` over all processes; every process must call this."""
        return self.total(values) / self.count if self.count > 1 else values


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
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE, **where)
    try:
        # A group on the host: messages beside gradients must not wait for the GPU.
        yield Processes(device, rank, count, distributed.new_group(backend="gloo", timeout=_PATIENCE))
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


def seed_iteration(seed: int, iteration: int) -> None:
    """Set torch's random state for an iteration: another one in each process, the same again after a resume."""
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    torch.manual_seed(hash((seed, iteration, rank)) % 2**63)


@dataclass
class StopRequest:
    """The signal that asked the run to end."""

    signal: int = 0
    """Its number, as soon as this process has heard it; 0 without a signal."""
    agreed: int = 0
    """Its number, once the run ends for it: all processes at the same iteration, which they save."""

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal that the run ended for, as shells report it; 0 without one."""
        return 128 + self.agreed if self.agreed else 0


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Record the first of `SIGNALS` inside the block, instead of ending the process. Call it from the main thread.

    A signal that the process was started to ignore, as SIGINT by a shell in the background, stays ignored.

    Raises:
        KeyboardInterrupt: On the second Ctrl-C.
    """
    request = StopRequest()

    def note(number: int, _frame: FrameType | None) -> None:
        request.signal = number

    def note_interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        note(number, frame)
        os.write(2, _SAID)

    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {n: signal.signal(n, note_interrupt if n == signal.SIGINT else note) for n in heard}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
