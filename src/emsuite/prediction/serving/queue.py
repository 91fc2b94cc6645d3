"""One prediction after the other: a few requests have places, and those of clients that have gone are given up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import HTTPException, Request

_LOOK = 0.5
"""Seconds after which a request that waits looks whether its client is still connected."""


class Queue:
    """Runs one piece of work after the other in a thread, and refuses more than may wait."""

    def __init__(self, waiting: int):
        """Let so many wait."""
        self._most, self._lock, self.inside = waiting + 1, asyncio.Lock(), 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place, which a request needs before its body is read; raise HTTPException 503 if all are taken."""
        if self.inside >= self._most:
            raise HTTPException(503, "too many requests wait; try again later", {"Retry-After": "5"})
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    async def run(self, work: Callable[[], Any], request: Request) -> Any:
        """Return the result of `work`, in the order of the calls; raise HTTPException if the client has gone before."""
        await self._turn(request)
        try:
            return await anyio.to_thread.run_sync(work)
        finally:
            self._lock.release()

    async def _turn(self, request: Request) -> None:
        turn = asyncio.ensure_future(self._lock.acquire())
        try:
            while True:
                await asyncio.wait([turn], timeout=_LOOK)
                if await request.is_disconnected():
                    raise HTTPException(400, "the client has gone")  # nobody reads it
                if turn.done():
                    return
        except BaseException:
            if not turn.cancel():
                self._lock.release()
            raise
