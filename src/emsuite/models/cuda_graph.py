"""Work that a GPU does the same way again and again, as a CUDA graph: one launch instead of hundreds.

call 1, 2, 3     as it is written: libraries choose their algorithms, memory is set up
call 4           recorded, then replayed
call 5, ...      replayed
"""

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from emsuite.common.device import CAPTURE

Result = TypeVar("Result")
logger = logging.getLogger(__name__)

_WARM_UP = 3


class Replayed:
    """Work on a GPU that is recorded and replayed."""

    def __init__(self, what: str):
        """Record nothing yet; `what` names the work in the log."""
        self._what, self._enabled = what, True
        self._key: Hashable = None
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Any = None
        self._inputs: list[Tensor] = []
        self._bytes = 0
        """Of the GPU's memory, that the work needs at its peak, and the recording keeps."""

    def __call__(
        self, function: Callable[[Sequence[Tensor]], Result], tensors: Sequence[Tensor], key: Hashable = None
    ) -> Result:
        """Return `function(tensors)`.

        Args:
            function: launches the same work for tensors of the same shapes, does not wait for the GPU, and reads no
                memory of the host.
            tensors: what changes from call to call, on the GPU. On a CPU the function runs as it is.
            key: what the function's work depends on, beside the shapes. If one of them changes, calls begin anew.

        Returns:
            the result of the function; the next call overwrites it.
        """
        if not self._enabled or tensors[0].device.type != "cuda":
            return function(tensors)
        key = (key, tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors))
        if key != self._key:
            self._key, self._calls, self._graph, self._result = key, 0, None, None
            self._stream = torch.cuda.Stream(tensors[0].device)
        if self._graph is None and self._calls < _WARM_UP:
            self._calls += 1
            return self._as_written(function, tensors)
        if self._graph is None and not self._record(function, tensors):
            return function(tensors)
        assert self._graph is not None
        torch._foreach_copy_(self._inputs, list(tensors))
        self._graph.replay()
        return self._result

    def make_room(self) -> None:
        """Give up the recording if the same work could not run beside it as it is; the next calls begin anew.

        Call it before such work is done elsewhere: a recording keeps all its memory.
        """
        if self._graph is None:
            return
        torch.cuda.empty_cache()
        if torch.cuda.mem_get_info(self._inputs[0].device)[0] < self._bytes:
            self._key, self._graph, self._result, self._inputs = None, None, None, []
            torch.cuda.empty_cache()

    def _as_written(self, function: Callable[[Sequence[Tensor]], Result], tensors: Sequence[Tensor]) -> Result:
        # on the stream of the recording, to which autograd binds the gradients
        current = torch.cuda.current_stream(tensors[0].device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = function(tensors)
        current.wait_stream(self._stream)
        return result

    def _record(self, function: Callable[[Sequence[Tensor]], object], tensors: Sequence[Tensor]) -> bool:
        """Record the function. Return False if the GPU refuses; then all calls run as they are from now on."""
        self._inputs = [torch.empty_like(tensor).copy_(tensor) for tensor in tensors]
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.memory_allocated()
        try:
            # other threads may go on: their work lies on other streams
            with CAPTURE, torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._result = function(self._inputs)
        except RuntimeError as error:
            logger.warning("%s: no CUDA graph, runs as it is: %s", self._what, str(error).splitlines()[0])
            self._enabled = False
            torch.cuda.synchronize()
            return False
        self._graph, self._bytes = graph, torch.cuda.max_memory_allocated() - before
        return True
