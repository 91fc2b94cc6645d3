"""Tiles on a GPU: each is one CUDA graph's replay, and copies to it and from it run beside the tiles before and behind.

    copied in     | 2 | 3 | 4 |                a stream of its own, from pinned memory
    computed    | 1 |  2  |  3  |  4  |        the caller's stream; a graph for each shape, from raw to bytes
    copied out        | 1 |    | 2 |           a stream of its own, into pinned memory

The first tile of a shape is computed operation by operation, then a graph is recorded. What cannot be recorded is
computed like the first tile, with the same bytes. The host is at most two tiles ahead of the GPU. torch keeps memory
that is freed, on the GPU and pinned, for the next tile; pinning costs half a second for each GB, so that a thread pins
memory for the outputs that wait to be written, while tiles are computed.
"""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from emsuite.common.device import CAPTURE
from emsuite.models.upsample import Upsample
from emsuite.prediction.tile.predicted import Outputs

_AHEAD = 2  # tiles that the GPU has been given and has not finished, at most
_WAITING = 4  # outputs on the host, for which memory is pinned beforehand
logger = logging.getLogger(__name__)


class _Recorded(NamedTuple):
    """The graph of a tile, and the memory that it reads and writes at each replay."""

    graph: Any
    inputs: list[Tensor]
    outputs: Outputs


class GpuTiles:
    """Computes tiles on one GPU."""

    def __init__(self, compute: Callable[..., Outputs], device: torch.device, recordable: bool = True):
        """Prepare; nothing runs yet.

        Args:
            compute: computes the outputs of a tile from inputs on the GPU. Its keyword `fused` asks for kernels of the
                suite's own.
            device: the GPU.
            recordable: whether `compute` never waits for the GPU.
        """
        self._compute, self._device, self._recordable = compute, device, recordable
        self._fused = True
        self._copy_in, self._copy_out = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self._recorded: dict[Any, _Recorded | None] = {}
        self._given: deque[torch.cuda.Event] = deque()
        self._pinned: queue.SimpleQueue[Outputs] = queue.SimpleQueue()
        self._tiles = 0

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Outputs, "torch.cuda.Event"]:
        """Compute one tile from inputs in pinned memory.

        Returns:
            outputs in pinned memory, and the event behind which they are there.
        """
        while len(self._given) >= _AHEAD:
            self._given.popleft().synchronize()
        current = torch.cuda.current_stream(self._device)
        with torch.inference_mode():
            with torch.cuda.stream(self._copy_in):
                staged = [tensor.to(self._device, non_blocking=True) for tensor in inputs]
            current.wait_stream(self._copy_in)
            for tensor in staged:
                tensor.record_stream(current)
            outputs = self._outputs(staged)
            self._copy_out.wait_stream(current)
            with torch.cuda.stream(self._copy_out):
                fetched = self._fetched(outputs)
                ready = torch.cuda.Event(blocking=True)  # a thread that waits leaves the core to those that compress
                ready.record(self._copy_out)
        self._given.append(ready)
        return fetched, ready

    def _fetched(self, outputs: Outputs) -> Outputs:
        """Begin to copy outputs into pinned memory."""
        self._tiles += 1
        if self._tiles == 2:  # more tiles will follow
            threading.Thread(target=self._pin, args=(outputs.each(_without_memory),)).start()
        try:
            host = self._pinned.get_nowait()
        except queue.Empty:
            host = outputs.each(_empty_pinned)
        for copies, tensors in zip(host, outputs, strict=True):
            for name, tensor in tensors.items():
                if copies[name].shape != tensor.shape:
                    copies[name] = _empty_pinned(tensor)
                copies[name].copy_(tensor, non_blocking=True)
                tensor.record_stream(self._copy_out)
        return host

    def _pin(self, like: Outputs) -> None:
        with suppress(RuntimeError):  # where memory is short, the next tile tells
            for _ in range(_WAITING):
                self._pinned.put(like.each(_empty_pinned))

    def _outputs(self, staged: list[Tensor]) -> Outputs:
        """Return outputs on the GPU, in memory that the next tile does not write."""
        kind = tuple((tuple(tensor.shape), tensor.dtype) for tensor in staged)
        if kind not in self._recorded:
            first = self._warmed_up(staged)
            self._recorded[kind] = self._record(staged) if self._recordable else None
            return first
        recorded = self._recorded[kind]
        if recorded is None:
            return self._compute(*staged, fused=self._fused)
        for static, tensor in zip(recorded.inputs, staged, strict=True):
            static.copy_(tensor)
        recorded.graph.replay()
        return recorded.outputs.each(torch.clone)

    def _warmed_up(self, staged: list[Tensor]) -> Outputs:
        """Compute the first tile: libraries are loaded, kernels compiled and algorithms chosen."""
        if self._fused:
            try:
                return self._compute(*staged, fused=True)
            except Exception as error:  # triton is missing, or does not know the GPU: its errors have no common kind
                self._fused = False
                logger.info("values are rounded by torch: %s: %s", type(error).__name__, _first_line(error))
        return self._compute(*staged, fused=False)

    def _record(self, staged: list[Tensor]) -> _Recorded | None:
        """Record the graph of a tile; None, with a line in the log, where that is impossible."""
        inputs = [tensor.clone() for tensor in staged]
        graph = torch.cuda.CUDAGraph()
        try:
            with CAPTURE, torch.cuda.graph(graph, capture_error_mode="thread_local"):
                outputs = self._compute(*inputs, fused=self._fused)
        except Exception as error:  # of torch, CUDA or triton: nothing that a tile needs is lost
            torch.cuda.synchronize(self._device)
            logger.warning("tiles are computed without a CUDA graph, more slowly: %s", _first_line(error))
            return None
        return _Recorded(graph, inputs, outputs)


def pinned(tensor: Tensor) -> Tensor:
    """Return a copy in pinned memory, which torch keeps for the next one when this one is dropped."""
    return _empty_pinned(tensor).copy_(tensor)


def _empty_pinned(like: Tensor) -> Tensor:
    with CAPTURE:  # memory is not pinned while a graph is recorded
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)


def _without_memory(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")


def round_kernels(network: nn.Module) -> None:
    """Round the kernels and biases of convolutions to bfloat16, as autocast does in each pass; nothing else."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | Upsample):
            layer.to(torch.bfloat16)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason"])[0]
