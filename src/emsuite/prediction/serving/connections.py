"""Connections that send nothing, or read nothing: they are closed after a while.

Those that send nothing give way to new ones before.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 256
"""Connections at once: those of a hundred clients who come together are all answered."""
_SLOWEST = 10.0
"""Seconds until the head of a request is there, from the connection, or from its first byte; and until a piece of an
answer is read."""


class Connection(H11Protocol):
    """HTTP of a connection, with a limit to the time before and between requests, and to that of reading an answer."""

    _stuck: asyncio.TimerHandle | None = None
    _end: asyncio.TimerHandle | None = None
    _since = 0.0

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request; close those that wait longest if there are too many."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # so that a piece of an answer is sent when the one before it is read
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
        self._stop_watching()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Give the client a while to read what was sent."""
        super().pause_writing()
        self._stop_watching()
        self._stuck = self.loop.call_later(_SLOWEST, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has read all of it."""
        self._stop_watching()
        super().resume_writing()

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

    def _stop_watching(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
