"""A network and a volume that train in milliseconds."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import builders
from emsuite.training import checkpoint as checkpoints

CPU = torch.device("cpu")
LSDS = {"target": "lsds", "sigma": 30, "downsample": 1}
AFFS = {"target": "affinities", "neighborhood": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]}


def write_network(folder: Path, heads: dict, **more: Any) -> Path:
    """A network of two levels that saves every second iteration, in `folder`."""
    training = {"iterations": 6, "checkpoint_every": 2, "snapshot_every": 100, "optimizer": {"learning_rate": 0.003}}
    training |= more.pop("training", {})
    return builders.write_network(folder, heads=heads, training=training, **more)


def two_neurons(path: Path) -> Path:
    """Two neurons side by side and a dark wall between them, 28^3 voxels of 10 nm."""
    labels = np.ones((28, 28, 28), np.uint64)
    labels[:, :, 14:] = 7
    raw = np.full(labels.shape, 200, np.uint8)
    raw[:, :, 13:15] = 50
    builders.write_array(path / "volumes/raw", raw, (10, 10, 10))
    builders.write_array(path / "volumes/labels/neuron_ids", labels, (10, 10, 10))
    return path


def end_after_three_checkpoints(command: list[Any], killed: Path, number: signal.Signals) -> int:
    """Train in a process of its own and end it; return the iteration of its last checkpoint."""
    deadline = time.monotonic() + 120
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, cwd=killed) as process:
        while len(checkpoints.iterations(killed)) < 3:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline, "it did not begin"
            time.sleep(0.002)
        process.send_signal(number)
        said = process.communicate()[1]
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    reached = checkpoints.iterations(killed)[-1]
    assert (f"asked to end, saved at iteration {reached}\n" in said) == (number == signal.SIGTERM)
    return reached
