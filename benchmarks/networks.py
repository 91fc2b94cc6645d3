"""Copies of a network's folder, so that training and prediction leave the original unchanged."""

from collections.abc import Sequence
from pathlib import Path

import click
import yaml

from emsuite.common.files import write_text
from emsuite.config.network import NetworkConfig, frozen_network_folder, load_network

TRAIN = Path(__file__).resolve().parents[1] / "02_train"
SMALL = TRAIN / "fib25" / "small"

network = click.argument("network", type=click.Path(path_type=Path), default=SMALL, metavar="[NETWORK_DIR]")


def copy_network(network: Path, into: Path, overrides: Sequence[str] = ()) -> tuple[Path, NetworkConfig]:
    """Write a copy of a network with `overrides` (KEY=VALUE), without checkpoints. Return its folder and settings.

    The frozen network of an autocontext network is copied as well, with fresh weights.
    """
    config = load_network(network, overrides)
    folder = into / config.dataset / config.network
    content = config.model_dump(mode="json", exclude={"dataset", "network"}, exclude_none=True)
    write_text(folder / "network.yaml", yaml.safe_dump(content))
    frozen = frozen_network_folder(network, config)
    if frozen is not None:
        save_untrained(*copy_network(frozen, into), config.autocontext.iteration or 1)
    return folder, load_network(folder)


def save_untrained(folder: Path, config: NetworkConfig, iteration: int = 1) -> None:
    """Save a checkpoint of an iteration with fresh weights: speed does not depend on their values."""
    import torch

    from emsuite.common.provenance import provenance
    from emsuite.models.network import trained_part
    from emsuite.training import checkpoint
    from emsuite.training.trained_network import build_with_frozen

    torch.manual_seed(0)
    network, frozen_digest = build_with_frozen(folder, config)
    weights = trained_part(network).state_dict()
    about = provenance(config.model_dump(mode="json"))
    checkpoint.save(
        folder,
        checkpoint.Checkpoint(
            iteration=iteration,
            architecture=config.architecture(),
            networks={"network": weights},
            frozen_digest=frozen_digest,
            provenance=about,
        ),
    )
