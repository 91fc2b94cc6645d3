#!/usr/bin/env python
"""Ask a served network for blocks from several clients at once: requests a second, median and 99th percentile."""

import io
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
from measure import device as device_option
from networks import copy_network, save_untrained
from networks import network as network_argument
from table import Row, rate, report, seconds
from table import save as save_option

from emsuite.cli import options
from emsuite.cli.command import stage
from emsuite.config.network import load_network

SERVE = Path(__file__).resolve().parents[1] / "03_predict/serve.py"


@stage(example="python benchmarks/serving.py\npython benchmarks/serving.py --shape 128,128,128 --clients 8")
@network_argument
@click.option("--shape", type=options.VOXELS, default="64,64,64", help="Of a block, voxels.")
@click.option("--clients", type=click.IntRange(1, 64), default=4, help="That ask at once.")
@click.option("--requests", type=click.IntRange(10), default=100, help="Of all clients together.")
@device_option
@options.overrides
@save_option
def main(
    network: Path,
    shape: tuple[int, ...],
    clients: int,
    requests: int,
    device: str,
    overrides: tuple[str, ...],
    json_path: Path | None,
) -> None:
    """Serve the network in NETWORK_DIR (default: fib25/small) with fresh weights, and ask for its first head.

    A network of domain transfer is served as it was trained, from A to B. Beside it is the time of one request after
    the other, from one client.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder, config = network, load_network(network, overrides)
        if not config.transfer:
            folder, config = copy_network(network, Path(temporary), overrides)
            save_untrained(folder, config)
        words = [sys.executable, SERVE, folder, "--port", "0", "--device", device, "--waiting", str(clients)]
        words += ["--direction", "A2B"] if config.transfer else []
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[0]
            body = block(shape)
            ask(url, body)  # the first one loads libraries
            alone = [ask(url, body) for _ in range(max(5, requests // 10))]
            start = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                took = sorted(pool.map(lambda _: ask(url, body), range(requests)))
            wall = time.perf_counter() - start
        finally:
            server.terminate()
            server.wait()
    voxels = int(np.prod(shape)) * requests
    what = f"served {config.dataset} {config.network}, {clients} clients, {'x'.join(map(str, shape))}"
    late = took[min(len(took) - 1, int(0.99 * len(took)))]
    times = f"median {seconds(statistics.median(took))}, 99 % within {seconds(late)}; {rate(voxels, wall)}"
    report([Row(what, times, f"one client {seconds(statistics.median(alone))}")], json_path)


def block(shape: tuple[int, ...]) -> bytes:
    """Return a block of random raw as a .npy file."""
    file = io.BytesIO()
    np.save(file, np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    return file.getvalue()


def ask(url: str, body: bytes) -> float:
    """Return the seconds until a request is answered."""
    start = time.perf_counter()
    with urllib.request.urlopen(f"{url}/predict", body, timeout=300) as answer:
        answer.read()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
