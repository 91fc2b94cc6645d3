"""The server's start: its socket, its network, its volumes and its token are there before the first request."""

import logging
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from emsuite.common.documents import read_text
from emsuite.common.errors import BadInput
from emsuite.io.volume import Volume
from emsuite.prediction.serving.app import Limits, make_app
from emsuite.prediction.serving.connections import MOST, Connection
from emsuite.prediction.serving.model import Model

logger = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
_KEEP_ALIVE = 5
"""Seconds that an idle connection stays open."""
_LEAST_TOKEN = 16


def listen(bind: str, port: int) -> socket.socket:
    """Return a socket that listens; raise BadInput if the address is none of this machine, or taken."""
    if not bind:
        raise BadInput("--bind: empty, which would listen on every address; expected one, as 127.0.0.1 or 0.0.0.0")
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    try:
        return socket.create_server((bind, port), family=family, backlog=MOST)
    except OSError as error:
        raise BadInput(f"--bind {bind} --port {port}: cannot listen there: {error}") from None


def read_token(path: Path | None) -> str | None:
    """Return the token in a file; raise BadInput if it is short, or holds blanks."""
    if path is None:
        return None
    token = read_text(path, "a file that holds a token").strip()
    if len(token) < _LEAST_TOKEN or not token.isascii() or len(token.split()) > 1:
        raise BadInput(f"{path} holds something else than one word of at least {_LEAST_TOKEN} ASCII characters")
    return token


def open_volumes(model: Model, named: Sequence[str]) -> dict[str, Volume]:
    """Open the volumes that clients may name, each given as `NAME=RAW`.

    Raises:
        BadInput: a name is missing or used twice, or the network cannot read the volume.
    """
    volumes: dict[str, Volume] = {}
    for text in named:
        name, equals, path = text.partition("=")
        if not equals or not path or not name.replace("-", "_").isidentifier() or name in volumes:
            raise BadInput(f"--volume {text}: expected NAME=RAW with a name of its own of letters, digits, - and _")
        volumes[name] = model.reads.open(Path(path))
    return volumes


def configured(app: FastAPI) -> uvicorn.Config:
    """Return how an application is served."""
    return uvicorn.Config(
        app, http=Connection, log_level="warning", access_log=False, server_header=False,
        timeout_keep_alive=_KEEP_ALIVE, limit_concurrency=MOST, ws="none", lifespan="off",
    )  # fmt: skip


def serve(
    model: Model,
    volumes: Mapping[str, Volume],
    listening: socket.socket,
    most_voxels: int,
    waiting: int,
    token: str | None,
) -> None:
    """Answer requests until this process gets SIGINT or SIGTERM; the prediction that runs is finished before.

    Args:
        model: predicts.
        volumes: that clients may name.
        listening: the socket.
        most_voxels: of one request.
        waiting: requests that wait for the one that runs.
        token: that clients must send, if any.
    """
    address, port = listening.getsockname()[:2]
    is_local = address in _LOOPBACK
    if not is_local and token is None:
        logger.warning("every machine that reaches %s can predict: there is no --token-file", address)
    limits = Limits(most_voxels, waiting, token, _LOOPBACK if is_local else ("*",))
    settings = configured(make_app(model, volumes, limits))
    host = f"[{address}]" if ":" in address else address
    print(f"http://{host}:{port}  serves {model.name}, iteration {model.iteration}; Ctrl-C ends it", flush=True)
    uvicorn.Server(settings).run(sockets=[listening])
