"""A trained network behind HTTP: a client posts a block of raw, or names a volume that was allowed at the start.

    GET  /health                 whether it works, and how many requests run and wait; needs no token
    GET  /network                voxel size, context, heads
    GET  /volumes                those that may be predicted
    GET  /volumes/NAME?roi=&head=    a region of one, nm
    POST /predict?head=          a block, .npy or raw bytes (?shape=z,y,x&dtype=uint8)
    GET  /openapi.json           the same for programs

A client's text never becomes a path: volumes are opened before the first request, and have names. One prediction runs
at a time, a few wait, others are told to come later.
"""

import asyncio
import hmac
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from emsuite.common.errors import BadInput
from emsuite.io.volume import Volume
from emsuite.prediction.serving.arrays import HEADER, NPY, from_bytes, from_npy, to_npy
from emsuite.prediction.serving.model import Model
from emsuite.prediction.serving.queue import Queue
from emsuite.prediction.serving.served_volumes import Changed, ServedVolumes

logger = logging.getLogger(__name__)

_BYTES_OF_A_VOXEL = 8  # of the widest type that networks read
_SLOWEST = 30.0
"""Seconds without a byte after which a client that sends a block is given up."""
_LONGEST = 160
"""Characters of a region: two numbers of an axis, of every digit that a float has."""
_LEAST_RATE = 100_000
"""Bytes a second of a block, beside these seconds: it holds a place."""

_SHAPE = re.compile(r"[0-9]{1,12}(,[0-9]{1,12}){0,7}", re.ASCII)
_DTYPE = re.compile(r"[<>|=]?[A-Za-z]{1,8}[0-9]{0,6}", re.ASCII)
_PIECE = 2**20
"""Bytes of an answer that are on their way at once."""

Region = Annotated[str | None, Query(description="z0:z1,y0:y1,x0:x1, nm.")]
Head = Annotated[str | None, Query(description="Which head to return (default: the first).")]


@dataclass(frozen=True)
class Limits:
    """What one server takes on."""

    voxels: int = 2**26
    """Of a block or a region."""
    waiting: int = 8
    """Requests that wait for the one that runs."""
    token: str | None = None
    """What clients must send as `Authorization: Bearer TOKEN`; None: nothing."""
    hosts: tuple[str, ...] = ("*",)
    """Names under which the server may be asked: a web page of another name cannot reach it."""


def make_app(model: Model, volumes: Mapping[str, Volume], limits: Limits) -> FastAPI:
    """Return the application.

    Args:
        model: predicts.
        volumes: that clients may name, each as the network reads it.
        limits: of size, number and access.
    """
    app = FastAPI(title=f"emsuite: {model.name}", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(limits.hosts))
    for error, status in ((BadInput, 400), (Changed, 410), (ClientDisconnect, 400)):
        app.add_exception_handler(error, partial(_refused, status))
    queue, known = Queue(limits.waiting), [Depends(_known(limits.token))]
    files = ServedVolumes(volumes)

    _add_descriptions(app, model, volumes, limits, queue)

    @app.get("/volumes/{name}", dependencies=known, response_class=Response)
    async def region(request: Request, name: str, roi: Region = None, head: Head = None) -> Response:
        if name not in volumes:
            raise HTTPException(404, f"no volume {name[:80]!r}; there are: {', '.join(volumes) or 'none'}")
        wanted = _head(model, head)
        work = partial(_predict_region, model, volumes[name], name, roi, wanted, limits)
        async with AsyncExitStack() as held:
            await held.enter_async_context(queue.place())
            values = await queue.run(partial(_of_whole, files, name, work), request)
            return _Answer(wanted, values, held.pop_all())

    @app.post("/predict", dependencies=known, response_class=Response)
    async def block(request: Request, head: Head = None, shape: str | None = None, dtype: str = "uint8") -> Response:
        wanted, most = _head(model, head), limits.voxels * _BYTES_OF_A_VOXEL + HEADER
        if shape is not None:
            most = limits.voxels * min(_layout(shape, dtype)[1].itemsize, _BYTES_OF_A_VOXEL)
        async with AsyncExitStack() as held:
            await held.enter_async_context(queue.place())
            body = await _body(request, most)
            work = partial(_predict_block, model, body, shape, dtype, wanted, limits)
            values = await queue.run(work, request)
            return _Answer(wanted, values, held.pop_all())

    return app


def _add_descriptions(app: FastAPI, model: Model, volumes: Mapping[str, Volume], limits: Limits, queue: Queue) -> None:
    """Add what tells of the server and predicts nothing."""
    known = [Depends(_known(limits.token))]

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "requests": queue.inside}

    @app.get("/openapi.json", dependencies=known, include_in_schema=False)
    async def schema() -> dict[str, Any]:
        return app.openapi()

    @app.get("/network", dependencies=known)
    async def network() -> dict[str, Any]:
        return model.describe() | {"most_voxels": limits.voxels}

    @app.get("/volumes", dependencies=known)
    async def names() -> dict[str, Any]:
        return {name: {"shape": raw.shape, "roi_nm": str(raw.roi)} for name, raw in volumes.items()}


def _known(token: str | None) -> Callable[[Request], None]:
    """Return what refuses requests without the token."""

    def check(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "expected the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    return check


async def _refused(status: int, request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status)


def _head(model: Model, head: str | None) -> str:
    if head is not None and head not in model.heads:
        raise HTTPException(404, f"no head {head[:80]!r}; there are: {', '.join(model.heads)}")
    return head or model.heads[0]


async def _body(request: Request, most: int) -> bytearray:
    """Return the body.

    Raises:
        HTTPException: it is too large, which is told before it is read, or too slow.
        ClientDisconnect: the client has gone.
    """
    too_large = HTTPException(413, f"a body of more than {most:,} bytes; post smaller blocks")
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > most:
        raise too_large
    body, chunks, begin = bytearray(), request.stream(), time.monotonic()
    while True:
        left = begin + _SLOWEST + len(body) / _LEAST_RATE - time.monotonic()
        try:
            chunk = await asyncio.wait_for(anext(chunks, None), min(left, _SLOWEST))
        except TimeoutError:
            raise HTTPException(408, f"less than {_LEAST_RATE:,} bytes a second") from None
        if chunk is None:
            return body
        body += chunk
        if len(body) > most:
            raise too_large


def _predict_block(
    model: Model, body: bytearray, shape: str | None, dtype: str, head: str, limits: Limits
) -> np.ndarray:
    raw = model.block(from_npy(body) if shape is None else from_bytes(body, *_layout(shape, dtype)))
    return model.predict(raw, model.region(raw, None, limits.voxels), [head])[head]


def _layout(shape: str, dtype: str) -> tuple[tuple[int, ...], np.dtype]:
    try:
        if not _SHAPE.fullmatch(shape) or not _DTYPE.fullmatch(dtype):
            raise ValueError
        return tuple(map(int, shape.split(","))), np.dtype(dtype)
    except (ValueError, TypeError):
        raise BadInput(f"shape {shape[:80]!r}, dtype {dtype[:80]!r}: expected as 64,64,64 and uint8") from None


def _predict_region(model: Model, raw: Volume, name: str, roi: str | None, head: str, limits: Limits) -> np.ndarray:
    if roi is not None and len(roi) > _LONGEST:
        raise BadInput(f"ROI {roi[:80]!r}: {len(roi)} characters, expected z0:z1,y0:y1,x0:x1 in nm")
    try:
        return model.predict(raw, model.region(raw, roi, limits.voxels), [head])[head]
    except BadInput as error:  # where the volume lies is not the client's business
        logger.warning("%s", error)
        raise BadInput(str(error).replace(str(raw.path), name)) from None


def _of_whole(files: ServedVolumes, name: str, predict: Callable[[], np.ndarray]) -> np.ndarray:
    """Return what a volume predicts; raise Changed if its files have changed up to the end."""
    try:
        return predict()
    finally:
        files.check(name)


class _Answer(StreamingResponse):
    """An array on its way to a client, piece by piece; its place is taken until the client has read it."""

    def __init__(self, head: str, values: np.ndarray, held: AsyncExitStack):
        """Send the values of a head as .npy, and close `held` behind them."""
        file = to_npy(values)
        super().__init__(_pieces(file), media_type=NPY, headers={"X-Head": head, "Content-Length": str(len(file))})
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or end where the client has gone."""
        async with self._held:
            await super().__call__(scope, receive, send)


async def _pieces(file: bytes) -> AsyncIterator[memoryview]:
    for begin in range(0, len(file), _PIECE):
        yield memoryview(file)[begin : begin + _PIECE]
