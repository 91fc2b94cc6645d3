"""The gateway through which workers on other machines reach the stage: they prove that they know the run's secret.

    worker --loopback--> relay == network ==> gateway --loopback--> daisy's server, which listens on loopback alone

daisy's protocol knows no proof of identity: whoever connects gets blocks. The gateway first sends a random challenge,
and passes on nothing before the answer, an HMAC of it. The gateway proves itself in the same way. The secret comes with
the environment of the job, and no command line shows it. What is passed on, numbers of blocks, is not encrypted.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ADDRESS, SECRET = "EMSUITE_GATEWAY", "EMSUITE_RUN_SECRET"
"""The environment variables of a job."""
_LENGTH, _WAIT = 32, 30.0  # bytes of a challenge and of a proof; seconds for a handshake


@dataclass(frozen=True)
class Gateway:
    """The address of a stage's gateway, and the secret of the run."""

    host: str
    port: int
    secret: str = field(repr=False)

    def environment(self) -> dict[str, str]:
        """Return the environment that a worker needs."""
        return {ADDRESS: f"{self.host}:{self.port}", SECRET: self.secret}

    @staticmethod
    def at(address: str, secret: str) -> "Gateway":
        """Return the gateway at an address, as the environment names it."""
        host, _, port = address.rpartition(":")
        return Gateway(host, int(port), secret)

    def connect(self, port: int = 0) -> socket.socket:
        """Return a connection to the stage's `port`; with 0 it says nothing and closes when the stage ends.

        Raises:
            ConnectionError: The stage has ended, or one of the two does not know the secret.
        """
        connection = socket.create_connection((self.host, self.port), timeout=_WAIT)
        challenge, own = _receive(connection, _LENGTH), secrets.token_bytes(_LENGTH)
        number = port.to_bytes(2, "big")
        connection.sendall(own + number + self._proof(b"worker", challenge + own + number))
        if not hmac.compare_digest(_receive(connection, _LENGTH), self._proof(b"stage", challenge + own)):
            raise ConnectionError("the process that answers is not the stage")
        connection.settimeout(None)
        return connection

    def relay(self, port: int) -> int:
        """Return a port on this machine that leads to the stage's `port`, for one connection of this user."""
        far = self.connect(port)
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=_relay_one, args=(listener, far), daemon=True).start()
        return int(listener.getsockname()[1])

    def _proof(self, who: bytes, said: bytes) -> bytes:
        return hmac.digest(self.secret.encode(), who + said, hashlib.sha256)

    def _serve(self, connection: socket.socket) -> None:
        """Be the gateway for one connection: close it unless it knows the secret."""
        with contextlib.suppress(OSError):
            connection.settimeout(_WAIT)
            challenge = secrets.token_bytes(_LENGTH)
            connection.sendall(challenge)
            answer = _receive(connection, 2 * _LENGTH + 2)
            said, proof = answer[: _LENGTH + 2], answer[_LENGTH + 2 :]
            if hmac.compare_digest(proof, self._proof(b"worker", challenge + said)):
                connection.sendall(self._proof(b"stage", challenge + said[:_LENGTH]))
                connection.settimeout(None)
                port = int.from_bytes(said[_LENGTH:], "big")
                if port:
                    _pass_on(connection, socket.create_connection(("127.0.0.1", port)))
                else:
                    connection.recv(1)
        connection.close()


@contextmanager
def open_gateway() -> Iterator[Gateway]:
    """Listen within the block, on the address of this machine that its name stands for."""
    with socket.create_server((_own_address(), 0), backlog=1024) as listener:
        host, port = listener.getsockname()[:2]
        gateway = Gateway(host, port, secrets.token_hex(_LENGTH))
        threading.Thread(target=_listen, args=(listener, gateway), daemon=True).start()
        try:
            yield gateway
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread


def _listen(listener: socket.socket, gateway: Gateway) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=gateway._serve, args=(connection,), daemon=True).start()


def _own_address() -> str:
    """Return the address by which other machines reach this one; that of loopback on a machine without a network."""
    address = "127.0.0.1"
    with contextlib.suppress(OSError):
        address = socket.gethostbyname(socket.gethostname())
    if address.startswith("127."):  # as Debian's /etc/hosts has it
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing, but chooses the address that leads to other networks
            address = probe.getsockname()[0]
    return address


def _relay_one(listener: socket.socket, far: socket.socket) -> None:
    with listener:
        while True:
            near, peer = listener.accept()
            if _user_of(peer) == os.getuid():
                break
            near.close()
    _pass_on(near, far)


def _user_of(address: tuple[str, int]) -> int | None:
    """Return the user id behind the end of a connection on this machine."""
    wanted = f"{int.from_bytes(socket.inet_aton(address[0]), 'little'):08X}:{address[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == wanted:
            return int(fields[7])
    return None


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    """Pass on what either side sends until both have ended."""
    back = threading.Thread(target=_copy, args=(other, one), daemon=True)
    back.start()
    _copy(one, other)
    back.join()
    one.close()
    other.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _receive(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise ConnectionError("the connection was closed before the proof of identity")
        data += part
    return data
