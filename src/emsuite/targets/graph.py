"""Targets as a CUDA graph: the kernels of a `TargetMaker` are recorded once, and started together for each batch.

Started one by one, the many short kernels of boundary, affinities, descriptors and weights keep the host busy for
longer than the GPU. What is recorded reads labels and mask from tensors of its own and writes into memory of its own,
so a batch is copied in, and its targets are copied out.

A recording replays kernels alone. Whatever the host computes or copies on the way would be missing from it, so an
ordinary call is watched first: a `TargetMaker` that waits for the host stays as it is.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from emsuite.common.device import CAPTURE
from emsuite.losses.target import Target
from emsuite.targets.make import TargetMaker

logger = logging.getLogger(__name__)

_DEVICE = "cuda"
_WARM_UP = 3
"""Ordinary calls before the recording: libraries prepare themselves, and kernels are compiled."""
_WAITS = frozenset({
    "_local_scalar_dense", "_unique", "_unique2", "unique_dim", "unique_consecutive", "nonzero", "masked_select",
    "_pin_memory", "pin_memory", "is_pinned", "repeat_interleave", "bincount", "_assert_async_host",
})  # fmt: skip
"""Operations whose result the host waits for, or that take memory of the host."""


class TargetGraph:
    """Makes what a `TargetMaker` makes, on the GPU of its labels; for one thread and one CUDA stream."""

    def __init__(self, maker: TargetMaker):
        """Record nothing yet: the first batches are made as `maker` makes them.

        Args:
            maker: makes the targets. If it renumbers components from the iteration on, it makes them from there on.
        """
        self._maker = maker
        self._key: tuple[Any, ...] | None = None
        """Shapes and heads of the batches that are made now."""
        self._calls = 0
        self._recording: _Recording | None = None
        self._is_refused = False

    def __call__(self, labels: Tensor, mask: Tensor, iteration: int) -> dict[str, Target]:
        """Return the target of each head; arguments and result as of `TargetMaker`."""
        if self._is_refused or not self._can_record(labels, iteration):
            return self._maker(labels, mask, iteration)
        heads = [head.settings_at(iteration) for head in self._maker.heads.values()]
        key = (labels.shape, labels.dtype, mask.shape, mask.dtype, labels.device, heads)
        if key != self._key:
            self._key, self._calls, self._recording = key, 0, None
        self._calls += 1
        if self._calls < _WARM_UP:
            return self._maker(labels, mask, iteration)
        if self._calls == _WARM_UP:  # by now, tables that are made once are made
            return self._watched(labels, mask, iteration)
        if self._recording is None:
            self._record(labels, mask, iteration)
        if self._recording is None:
            return self._maker(labels, mask, iteration)
        return self._recording.replay(labels, mask)

    def _can_record(self, labels: Tensor, iteration: int) -> bool:
        """Return whether all is done on a GPU: connected components are numbered on the host."""
        renumber_from = self._maker.renumber_from
        renumbers = renumber_from is not None and iteration > renumber_from
        return labels.device.type == _DEVICE and not renumbers and not torch.are_deterministic_algorithms_enabled()

    def _watched(self, labels: Tensor, mask: Tensor, iteration: int) -> dict[str, Target]:
        with HostTraffic() as traffic:
            targets = self._maker(labels, mask, iteration)
        if traffic.found:
            self._refuse(f"they need the host ({', '.join(sorted(traffic.found))})")
        return targets

    def _record(self, labels: Tensor, mask: Tensor, iteration: int) -> None:
        try:
            self._recording = _record(partial(self._maker, iteration=iteration), labels, mask)
        except Exception as error:  # of many kinds: without a graph the same batches are made, more slowly
            self._refuse(f"recording failed ({str(error).strip().splitlines()[0] if str(error).strip() else error!r})")

    def _refuse(self, reason: str) -> None:
        self._is_refused = True
        logger.warning("targets are made without a CUDA graph: %s", reason)


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    labels: Tensor
    mask: Tensor
    targets: Mapping[str, Target]

    def replay(self, labels: Tensor, mask: Tensor) -> dict[str, Target]:
        """Return the targets of a batch, in memory of their own: the next replay overwrites that of the graph."""
        self.labels.copy_(labels)
        self.mask.copy_(mask)
        self.graph.replay()
        return copied(self.targets)


def _record(make: Callable[..., dict[str, Target]], labels: Tensor, mask: Tensor) -> _Recording:
    """Record `make` on the current stream; raise whatever it raises, with the stream in order again."""
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    inputs = labels.clone(), mask.clone()
    stream = torch.cuda.current_stream(labels.device)
    with CAPTURE:
        stream.synchronize()
        # other threads go on with kernels and memory of their own
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            targets = make(*inputs)
        except BaseException:
            _abandon(graph, pool, labels.device.index)
            raise
        try:
            graph.capture_end()
        except BaseException:
            _release(pool, labels.device.index)
            raise
    return _Recording(graph, *inputs, targets)


def _abandon(graph: torch.cuda.CUDAGraph, pool: Any, device: int) -> None:
    """End a recording that failed."""
    try:
        graph.capture_end()
    except RuntimeError:
        _release(pool, device)


def _release(pool: Any, device: int) -> None:
    # A recording that ends with an error leaves its pool open, and then no memory that another stream has used would
    # ever be free again.
    with suppress(Exception):
        torch._C._cuda_endAllocateToPool(device, pool)


def copied(targets: Mapping[str, Target]) -> dict[str, Target]:
    """Return targets in memory of their own. What is shared or repeated in them stays so."""
    copies: dict[tuple[Any, ...], Tensor] = {}

    def copy(tensor: Tensor) -> Tensor:
        key = tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
        if key not in copies:
            once = tensor
            for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
                once = once.narrow(axis, 0, 1) if size > 1 and stride == 0 else once
            copies[key] = once.clone().expand(tensor.shape)
        return copies[key]

    return {
        name: replace(target, values=copy(target.values), weights=copy(target.weights), labels=copy(target.labels))
        for name, target in targets.items()
    }


class HostTraffic(TorchDispatchMode):
    """Watches this thread's operations, and finds those that a CUDA graph could not replay."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        """The names of such operations."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in _WAITS or (name in ("index", "index_put", "index_put_") and _has_booleans(args)):
            self.found.add(name)
        devices = {value.device.type for value in (result, *args) if isinstance(value, Tensor) and value.dim()}
        if len(devices) > 1:
            self.found.add(f"{name} between devices")
        return result


def _has_booleans(args: Any) -> bool:
    indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)
