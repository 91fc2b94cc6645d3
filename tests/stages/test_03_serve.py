"""The server as a user starts it, and the client of its page."""

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import builders
from builders import ROOT
from emsuite.config.network import load_network
from emsuite.training.trainer import train
from emsuite.training.volumes import load_training_data
from small_training import CPU, two_neurons

SERVE = ROOT / "03_predict/serve.py"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    network = builders.write_network(folder / "n")
    config = load_network(network)
    train(network, config, load_training_data(config, [str(two_neurons(folder / "v.zarr"))], ROOT), 2, CPU)
    return network


def test_the_client_of_the_page_gets_affinities(network: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    raw = network.parent / "v.zarr/volumes/raw"
    words = [network, "--port", 0, "--volume", f"cube={raw}", "--device", "cpu"]
    server = subprocess.Popen([sys.executable, SERVE, *map(str, words)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        url = line.split()[0]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url), line
        assert "iteration 2" in line
        (client,) = re.findall(
            r"^```python\n(.*?)^```$", (ROOT / "docs/serve.md").read_text(), re.MULTILINE | re.DOTALL
        )
        assert "http://127.0.0.1:8900" in client
        exec(client.replace("http://127.0.0.1:8900", url).replace("64, 64, 64", "30, 20, 20"), {})
        assert capsys.readouterr().out == "(3, 30, 20, 20) uint8\n"
        with urllib.request.urlopen(f"{url}/volumes/cube?roi=0:100,0:100,0:100") as answer:
            assert len(answer.read()) == 3 * 10**3 + 128
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
    assert server.returncode in (0, 130, -signal.SIGINT)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--volume", "raw"], "expected NAME=RAW"),
        (["--volume", "a/b=x"], "expected NAME=RAW"),
        (["--volume", "a=nothing.zarr"], "nothing.zarr"),
        (["--bind", ""], "an empty word"),
        (["--bind", "203.0.113.7"], "cannot listen there"),
        (["--token-file", "short"], "at least 16"),
        (["--token-file", "none"], "no such file; expected a file that holds a token"),
        (["--iteration", "77"], "77"),
    ],
)
def test_one_line_tells_what_is_wrong(network, tmp_path, monkeypatch, words, told, capsys):
    monkeypatch.chdir(tmp_path)
    Path("short").write_text("secret\n")
    with pytest.raises(SystemExit) as end:
        builders.command_of(SERVE).main([str(network), "--port", "0", *words])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert told in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken_is_told(network, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as end:
        builders.command_of(SERVE).main([str(network), "--port", str(taken.getsockname()[1])])
    assert end.value.code == 2
    assert "cannot listen there" in capsys.readouterr().err
