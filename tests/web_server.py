"""A web server on loopback that knows ranges of bytes, and that fails in the ways of real ones."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class WebServer:
    """What is served, by its path, and how. `asked` holds the range of each request, "" for a whole file."""

    files: dict[str, bytes]
    address: str = ""
    knows_ranges: bool = True
    etag: str = '"v1"'
    faults: list[str] = field(default_factory=list)
    """Of the next requests, one each: `503`, `truncate`, `reset`, `ignore range`, `no length`, or nothing."""
    asked: list[str] = field(default_factory=list)
    sent: int = 0
    hold: threading.Event | None = None
    """If set, bodies stop half-way until the event is."""

    def url(self, name: str) -> str:
        """The URL of a file."""
        return f"{self.address}/{name}"


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[WebServer]:
    """Serve files within the block."""
    state = WebServer(files)
    handler = type("Handler", (_Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        state.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield state
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    state: WebServer

    def do_GET(self) -> None:
        state, asked = self.state, self.headers.get("Range", "")
        state.asked.append(asked)
        fault = state.faults.pop(0) if state.faults else ""
        body = state.files.get(self.path.lstrip("/"))
        if body is None or fault.isdigit():
            return self.send_error(int(fault) if fault.isdigit() else 404)
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
        if match and state.knows_ranges and fault != "ignore range":
            begin, end = int(match[1]), min(int(match[2]) + 1, len(body))
            if begin >= len(body):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(body)}")
            body = body[begin:end]
        else:
            self.send_response(200)
        if fault != "no length":
            self.send_header("Content-Length", str(len(body)))
        if state.etag:
            self.send_header("ETag", state.etag)
        self.end_headers()
        self._send(body, fault)

    def _send(self, body: bytes, fault: str) -> None:
        half = len(body) // 2
        self.wfile.write(body[:half])
        self.state.sent += half
        if self.state.hold is not None and half:
            self.state.hold.wait(60)
        if fault == "reset":
            self.connection.close()
        elif fault != "truncate":
            self.wfile.write(body[half:])
            self.state.sent += len(body) - half

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
