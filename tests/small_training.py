"""A network and a volume that train in milliseconds."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

import builders

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
