import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from emsuite.blockwise import gateway as module
from emsuite.blockwise.gateway import Gateway, open_gateway
from emsuite.blockwise.grid import BlockGrid
from emsuite.blockwise.run import run_blocks
from emsuite.blockwise.slurm_settings import SlurmSettings
from emsuite.common.geometry import Coordinate, Roi


@pytest.fixture
def echo() -> int:
    """The port of a server on loopback that sends back what it gets, in capitals."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            while data := connection.recv(100):
                connection.sendall(data.upper())
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def test_who_knows_the_secret_is_passed_on(echo: int) -> None:
    with open_gateway() as gateway:
        assert gateway.secret not in repr(gateway)
        environment = gateway.environment()
        worker = Gateway.at(environment[module.ADDRESS], environment[module.SECRET])
        assert worker == gateway
        with socket.create_connection(("127.0.0.1", worker.relay(echo))) as connection:
            for word in (b"one", b"two"):
                connection.sendall(word)
                assert connection.recv(100) == word.upper()


@pytest.mark.parametrize("attempt", ["no answer", "noise", "a wrong secret", "the answer of another connection"])
def test_who_does_not_know_it_gets_nothing(echo: int, attempt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAIT", 0.5)
    with open_gateway() as gateway:
        if attempt == "a wrong secret":
            with pytest.raises(ConnectionError):
                Gateway(gateway.host, gateway.port, "guessed").connect(echo)
            return
        with socket.create_connection((gateway.host, gateway.port)) as connection:
            challenge = connection.recv(32)
            if attempt == "noise":
                connection.sendall(os.urandom(66))
            elif attempt == "the answer of another connection":
                said = bytes(32) + echo.to_bytes(2, "big")
                connection.sendall(said + gateway._proof(b"worker", bytes(len(challenge)) + said))
            connection.settimeout(5)
            assert connection.recv(100) == b""


def test_a_process_that_is_not_the_stage_is_not_believed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        false = Gateway("127.0.0.1", listener.getsockname()[1], "secret")

        def serve() -> None:
            connection, _ = listener.accept()
            connection.sendall(bytes(32))
            connection.recv(100)
            connection.sendall(bytes(32))

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(ConnectionError, match="not the stage"):
            false.connect()


def test_a_connection_without_a_port_lasts_as_long_as_the_stage() -> None:
    with open_gateway() as gateway:
        connection = gateway.connect()
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.close()


SRUN = """#!/bin/bash
# what srun does, on this machine: run the command behind the options
echo "$@" >> "$SRUN_LOG"
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""


def test_workers_of_a_cluster_come_through_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for srun; the command line of the job does not show the secret."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/srun").write_text(SRUN)
    (tmp_path / "bin/srun").chmod(0o755)
    (tmp_path / "slow_block.py").write_text(
        "from pathlib import Path\nimport os\n"
        f"def work(block):\n    Path({str(tmp_path)!r}, f'{{block.index}}.seen').write_text(str(dict(os.environ)))\n"
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SRUN_LOG", str(tmp_path / "log"))
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[Gateway] = []
    monkeypatch.setattr(module, "Gateway", lambda *parts: made.append(Gateway(*parts)) or made[-1])
    import slow_block

    grid = BlockGrid(Roi((0,), (6,)), Coordinate((1,)), Coordinate((0,)))
    begin = time.monotonic()
    run_blocks("test", grid, slow_block.work, SlurmSettings(workers=2), tmp_path / "done")
    assert time.monotonic() - begin < 60
    seen = [path.read_text() for path in tmp_path.glob("*.seen")]
    assert len(seen) == 6
    assert made[0].secret not in "".join(seen), "blocks and what they start do not see the secret"
    assert made[0].secret not in (tmp_path / "log").read_text()
    assert "emsuite.blockwise.worker" in (tmp_path / "log").read_text()
    sys.modules.pop("slow_block")
