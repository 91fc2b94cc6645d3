"""Copies of a network's folder, so that training and prediction leave the original unchanged."""

from collections.abc import Sequence
from pathlib import Path

import click
import yaml

from emsuite.common.files import write_text
from emsuite.config.network import NetworkConfig, load_network

TRAIN = Path(__file__).resolve().parents[1] / "02_train"
SMALL = TRAIN / "fib25" / "small"

network = click.argument("network", type=click.Path(path_type=Path), default=SMALL, metavar="[NETWORK_DIR]")


def copy_network(network: Path, into: Path, overrides: Sequence[str] = ()) -> tuple[Path, NetworkConfig]:
    """Write a copy of a network with `overrides` (KEY=VALUE), without checkpoints. Return its folder and settings."""
    config = load_network(network, overrides)
    folder = into / config.dataset / config.network
    content = config.model_dump(mode="json", exclude={"dataset", "network"}, exclude_none=True)
    write_text(folder / "network.yaml", yaml.safe_dump(content))
    return folder, load_network(folder)


def save_untrained(folder: Path, config: NetworkConfig) -> None:
    """Save a checkpoint of iteration 1 with fresh weights: speed does not depend on their values."""
    import torch

    from emsuite.common.provenance import provenance
    from emsuite.config.network import build_network
    from emsuite.training import checkpoint

    torch.manual_seed(0)
    weights = build_network(config).state_dict()
    about = provenance(config.model_dump(mode="json"))
    checkpoint.save(
        folder,
        checkpoint.Checkpoint(
            iteration=1, architecture=config.architecture(), networks={"network": weights}, provenance=about
        ),
    )
