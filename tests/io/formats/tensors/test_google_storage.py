"""Volumes in Google's storage, which a small server stands for; and a server so slow that memory could pile up."""

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from emsuite.io.volume import create_volume

VOXELS = np.random.default_rng(0).integers(0, 256, (64, 512, 512)).astype(np.uint8)
ARRAY = "em.zarr/raw"


class Server(ThreadingHTTPServer):
    """Answers Google's requests for the objects of bucket `cells`, and plain ones for the files of a folder."""

    folder: Path
    delay = 0.0
    token: str | None = None
    daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        file = self.server.folder / path.removeprefix("/storage/v1/b/cells/o/").lstrip("/")
        allowed = self.server.token in (None, self.headers.get("Authorization"))
        body = file.read_bytes() if allowed and file.is_file() else b""
        status = 403 if not allowed else 200 if body else 404
        time.sleep(self.server.delay if "/c/" in path else 0)
        self.send_response(status)
        self.send_header("x-goog-generation", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    volume = create_volume(tmp_path / ARRAY, VOXELS.shape, np.uint8, (40, 4, 4), (0, 0, 0), (64, 64, 64))
    volume.write(volume.roi, VOXELS)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.folder = tmp_path
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def read(server: Server, url: str, program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program with `volume`, the one at a URL, in an own process: tensorstore reads the environment once."""
    host = f"http://127.0.0.1:{server.server_port}"
    text = f"""
        import resource
        from emsuite.common.errors import BadInput
        from emsuite.io.volume import open_volume
        try:
            volume = open_volume({url.replace("HOST", host)!r})
            {program}
        except BadInput as error:
            print("BadInput:", error)
    """
    environment = {"TENSORSTORE_GCS_HTTP_URL": host, "PATH": "/usr/bin:/bin"} | environment
    arguments = [sys.executable, "-c", textwrap.dedent(text)]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120, check=True)


def test_a_public_bucket(server: Server) -> None:
    done = read(server, f"gs://cells/{ARRAY}", "print(volume.read().astype(int).sum(), *volume.voxel_size)")
    assert done.stdout.split() == [str(VOXELS.astype(int).sum()), "40", "4", "4"]


def test_a_private_bucket_asks_for_a_token(server: Server) -> None:
    server.token = "Bearer of-a-test"
    program = "print(volume.read().astype(int).sum())"
    signed = read(server, f"gs://cells/{ARRAY}", program, GOOGLE_AUTH_TOKEN_FOR_TESTING="of-a-test")
    assert signed.stdout.split() == [str(VOXELS.astype(int).sum())]
    refused = read(server, f"gs://cells/{ARRAY}", program)
    assert refused.stdout.startswith(f"BadInput: gs://cells/{ARRAY}: ")
    assert refused.stdout.count("\n") == 1


@pytest.mark.parametrize("url", [f"gs://cells/{ARRAY}", f"HOST/{ARRAY}"])
def test_a_slow_server_does_not_make_memory_grow(server: Server, url: str) -> None:
    server.delay = 0.05
    program = (
        "first = volume[:, :64, :64]; before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "sums = [volume[:, y:y + 64].sum(dtype=int) for y in range(0, 512, 64)]; "
        "print(sum(sums), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    total, grown = map(int, read(server, url, program).stdout.split())
    assert total == VOXELS.astype(int).sum()
    assert grown * 1024 < VOXELS.nbytes / 2  # one row of chunks is an eighth
