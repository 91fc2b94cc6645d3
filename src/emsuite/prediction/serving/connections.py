"""Connections that send nothing: they are closed after a while, and give way to new ones before."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 64
"""Connections at once."""
_SLOWEST = 10.0
"""Seconds until the head of a request is there, from the connection, or from its first byte."""


class Connection(H11Protocol):
    """HTTP of a connection, with a limit to the time before and between requests."""

    _end: asyncio.TimerHandle | None = None
    _since = 0.0

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request; close those that wait longest if there are too many."""
        super().connection_made(transport)
        self._wait()
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        others = [other for other in others if not other.transport.is_closing()]
        idle = sorted((other for other in others if other._is_idle), key=lambda other: other._since)
        for other in idle[: max(0, len(others) + 2 - MOST)]:
            other.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Wait no more if the head of a request is whole, else no longer than since its first byte."""
        super().data_received(data)
        if not self._is_idle:
            self._stop_waiting()
        elif self._end is None and not self.transport.is_closing():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        self._since = self.loop.time()
        self._end = self.loop.call_later(_SLOWEST, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
