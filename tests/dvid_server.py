"""A DVID server on loopback: `info` and `raw` of arrays (Z, Y, X) whose first voxel lies anywhere, with faults."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

BLOCK = 32


class Dvid:
    """What the server has and does: `arrays` by name, `fail` the next answers, requests in `asked`."""

    def __init__(self) -> None:
        self.arrays: dict[str, tuple[np.ndarray, tuple[int, int, int]]] = {}
        self.types: dict[str, str] = {}
        self.fail: list[str] = []
        self.asked: list[str] = []
        self.address = ""

    def add(self, name: str, voxels: np.ndarray, first: tuple[int, int, int] = (0, 0, 0), kind: str = "") -> str:
        """Serve an array, whose first voxel lies at `first` (z, y, x); return its URL."""
        self.arrays[name] = voxels, first
        self.types[name] = kind or {"uint8": "uint8blk", "uint64": "labelmap"}[str(voxels.dtype)]
        return f"dvid://{self.address}/a1b2c3/{name}"

    def info(self, name: str) -> dict[str, object]:
        """The document of an array, in the order x, y, z."""
        voxels, first = self.arrays[name]
        last = [begin + n - 1 for begin, n in zip(first, voxels.shape, strict=True)]
        extended = {"BlockSize": [BLOCK] * 3, "VoxelSize": [4, 8, 40], "VoxelUnits": ["nanometers"] * 3,
                    "MinPoint": list(first)[::-1], "MaxPoint": last[::-1]}  # fmt: skip
        return {"Base": {"TypeName": self.types[name], "Name": name}, "Extended": extended}

    def answer(self, path: str) -> tuple[int, bytes]:
        """The status and the body for a path below api/node/UUID/."""
        name, what, *rest = path.split("/")
        if name not in self.arrays:
            return 400, b"no data instance of that name"
        if what == "info":
            return 200, json.dumps(self.info(name)).encode()
        assert (what, rest[0]) == ("raw", "0_1_2")
        voxels, first = self.arrays[name]
        shape, corner = ([int(n) for n in text.split("_")][::-1] for text in rest[1:])
        begin = [c - f for c, f in zip(corner, first, strict=True)]
        assert min(begin) >= 0
        box = voxels[tuple(slice(b, b + n) for b, n in zip(begin, shape, strict=True))]
        assert box.shape == tuple(shape)
        return 200, box.astype(box.dtype.newbyteorder("<")).tobytes()


@contextmanager
def serve_dvid() -> Iterator[Dvid]:
    """Serve until the block ends."""
    dvid = Dvid()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            dvid.asked.append(self.path)
            status, body = dvid.answer(self.path.removeprefix("/api/node/a1b2c3/"))
            fault = dvid.fail.pop(0) if dvid.fail else ""
            if fault.isdigit():
                status, body = int(fault), b"busy"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if fault == "cut" else body + bytes(9) * (fault == "long"))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    dvid.address = f"127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield dvid
    finally:
        server.shutdown()
        server.server_close()
