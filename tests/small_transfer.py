"""Networks of domain transfer and two domains that train in milliseconds."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

import builders
from emsuite.config.network import NetworkConfig, load_network
from emsuite.training.resume import recorded_grey_range
from emsuite.training.trainer import train
from emsuite.training.volumes import load_held_out, load_training_data
from small_training import CPU

VALID = {
    "generator": {"kind": "valid_unet", "dims": 2, "width": 2, "dropout": 0.0},
    "discriminator": {"kind": "valid", "dims": 2, "width": 2},
    "losses": {
        "adversarial": {"loss": "focal"},
        "cycle": {"loss": "focal", "weight": 2},
        "identity": {"loss": "focal", "weight": 1},
    },
    "pool": 0,
    "optimizers": "each",
    "cycle_padding": "context",
}
"""transfer_em's form on sections of 74 pixels."""
PADDED = {
    "generator": {"kind": "resnet", "width": 2, "blocks": 1},
    "discriminator": {"kind": "patch", "width": 2, "layers": 2},
}
"""CCGAN's form, with CycleGAN's losses."""


def two_domains(folder: Path, shape: tuple[int, int, int] = (6, 80, 80)) -> dict[str, Any]:
    """Volumes a, with labels, and b, of other contrast, in `folder`; as `transfer.domains`."""
    random = np.random.default_rng(0)
    a = random.integers(20, 200, shape, np.uint8)
    labels = (np.indices(shape)[1:].sum(0) // 12).astype(np.uint64)
    builders.write_array(folder / "a.zarr/volumes/raw", a, (10, 10, 10))
    builders.write_array(folder / "a.zarr/volumes/labels/neuron_ids", labels, (10, 10, 10))
    builders.write_array(folder / "b.zarr/volumes/raw", 255 - random.integers(60, 120, shape, np.uint8), (10, 10, 10))
    names = {"raw": "volumes/raw", "labels": "volumes/labels/neuron_ids"}
    return {
        "a": {"volumes": [{key: str(folder / "a.zarr" / name) for key, name in names.items()}]},
        "b": {"volumes": [{"raw": str(folder / "b.zarr/volumes/raw")}]},
    }


def write_transfer(folder: Path, transfer: dict[str, Any], **sections: Any) -> Path:
    """A network of domain transfer in `folder`, its domains beside it; saves every second iteration of four."""
    content: dict[str, Any] = {
        "voxel_size": [10, 10, 10],
        "step": "cyclegan",
        "transfer": {"domains": two_domains(folder.parent / "data")} | transfer,
        "training": {"iterations": 4, "input_shape": [2, 16, 16], "sampling": {}, "log_every": 1, "checkpoint_every": 2,
                     "optimizer": {"learning_rate": 0.01, "betas": [0.5, 0.999], "eps": 1e-7}},
        "prediction": {"input_shape": [1, 64, 64]},
    }  # fmt: skip
    for key in ("training", "prediction"):
        content[key] |= sections.pop(key, {})
    folder.mkdir(parents=True)
    (folder / "network.yaml").write_text(yaml.safe_dump(content | sections, sort_keys=False))
    return folder


def write_valid(folder: Path, transfer: dict[str, Any] | None = None, **sections: Any) -> Path:
    """transfer_em's form in 2-D."""
    training = {"input_shape": [2, 74, 74]} | sections.pop("training", {})
    return write_transfer(folder, VALID | (transfer or {}), training=training, **sections)


def write_padded(
    folder: Path, transfer: dict[str, Any] | None = None, heads: tuple[str, ...] = (), **more: Any
) -> Path:
    """CCGAN's form in 2-D, in the signed unit range, its images through tanh."""
    named = {"mask": "foreground", "contour": "contour", "distance": "distance"}
    all_heads: dict[str, Any] = {"image": {"target": "transferred", "output": "tanh"}}
    all_heads |= {name: {"target": named[name]} for name in heads}
    path = write_transfer(folder, PADDED | (transfer or {}), heads=all_heads, **more)
    content = yaml.safe_load((path / "network.yaml").read_text())
    for domain in content["transfer"]["domains"].values():
        domain["scaling"] = "signed_unit_range"
    (path / "network.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def run(folder: Path, until: int, *overrides: str) -> NetworkConfig:
    """Train a network of domain transfer; return its configuration."""
    config = load_network(folder, overrides)
    loaded = load_training_data(config, [], folder, recorded_grey_range(folder, config))
    assert train(folder, config, loaded, until, CPU, "refuse", load_held_out(config, folder, loaded)) == 0
    return config
