"""Measure the cost of work: wall and CPU seconds as medians after a warm-up, and the peak of resident memory."""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from table import memory

from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.process import set_up_process

set_up_process()  # benchmarks import this module before others load NumPy and torch

PEERS = Path(__file__).resolve().parent / "peers"
ENOUGH = 20.0
"""Seconds after which work is not repeated any more."""
_LAUNCH = """
import json, os, subprocess, sys
child = subprocess.Popen(sys.argv[2:])
_, status, used = os.wait4(child.pid, 0)
cost = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss
open(sys.argv[1], "w").write(json.dumps(cost))
"""
# A process between us and the measured one: Linux counts the memory of the starting process as that of its child.


def _check_device(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if value == "cuda":
        from emsuite.common.device import pick_device

        pick_device(value)
    return value


device = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    callback=_check_device,
    help="Device of the suite.",
)


@dataclass(frozen=True)
class Cost:
    """Wall seconds, CPU seconds of all threads and finished children, and the peak memory of a process in bytes."""

    wall: float
    cpu: float
    memory: int


def measure(work: Callable[[], Any], repeats: int = 5, warm_up: int = 1, device: str = "cpu") -> Cost:
    """Return the median cost of `work` in this process.

    On a GPU, times include all work on the GPU, and memory is that of the GPU. Long work is repeated less often.
    """
    synchronise, most = _on_gpu() if device == "cuda" else (_nothing, _resident)
    for _ in range(warm_up):
        work()
    wall, cpu = [], []
    for _ in range(repeats):
        synchronise()
        started, cpu_before = time.perf_counter(), _cpu_seconds()
        work()
        synchronise()
        wall.append(time.perf_counter() - started)
        cpu.append(_cpu_seconds() - cpu_before)
        if sum(wall) > ENOUGH:
            break
    return Cost(statistics.median(wall), statistics.median(cpu), most())


def peak(cost: Cost, device: str) -> str:
    """Return the peak memory as text: on a GPU that of the GPU and that of the process so far."""
    return f"{memory(cost.memory)} GPU, {memory(_resident())} host" if device == "cuda" else memory(cost.memory)


def run(command: Sequence[str | Path], **environment: str) -> Cost:
    """Return the cost of a process and its children; memory is that of the largest. Raises RunFailed if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        answer, started = Path(folder) / "cost.json", time.perf_counter()
        launched = [sys.executable, "-S", "-c", _LAUNCH, answer, *map(str, command)]
        done = subprocess.run(launched, env=os.environ | environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
        wall = time.perf_counter() - started
        code, cpu, largest = json.loads(answer.read_text())
    if code:
        raise RunFailed(f"{Path(command[1]).name}: ended with {code}: {_last_line(done.stderr)}")
    return Cost(wall, cpu, largest * 1024)


def has_peer(name: str) -> bool:
    """Return whether `make bench` has built the environment of this peer."""
    return (PEERS / name / ".venv" / "installed").exists()


def ask_peer(name: str, script: str, *arguments: Any, **environment: str) -> Any:
    """Run benchmarks/peers/NAME/SCRIPT and return its last line of output, which is JSON. Give absolute paths."""
    if not has_peer(name):
        raise BadInput(f"{PEERS / name}: the peer is not installed; 'make bench' does that, --no-peers goes without")
    python = PEERS / name / ".venv/bin/python"
    environment = {"OMP_NUM_THREADS": "1", "PATH": f"{python.parent}:{os.environ['PATH']}"} | environment
    command = [python, PEERS / name / script, *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:  # some peers write logs to the current folder
        done = subprocess.run(command, cwd=folder, env=os.environ | environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False)  # fmt: skip
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise RunFailed(f"{PEERS / name / script}: ended with {done.returncode}: {_last_line(done.stderr)}") from None


def peer_cost(answer: dict[str, float]) -> Cost:
    """Return the cost that the script of a peer measured."""
    return Cost(answer["wall"], answer["cpu"], int(answer["memory"]))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]


def _cpu_seconds() -> float:
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, _EVERYONE))


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # without children, which may be peers


def _on_gpu() -> tuple[Callable[[], None], Callable[[], int]]:
    import torch

    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.synchronize, torch.cuda.max_memory_allocated


def _nothing() -> None:
    pass


_EVERYONE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
