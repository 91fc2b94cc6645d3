"""The networks of a run of domain transfer, with the trained network that a discriminator reads beside images."""

from pathlib import Path

from torch import nn

from emsuite.common.errors import BadInput
from emsuite.config.network import NetworkConfig, load_network
from emsuite.config.transfer_networks import build_networks
from emsuite.models.network import Network
from emsuite.training.step import FrozenWeights
from emsuite.training.trained_network import load_trained, prior_folder, weights_told


def build(folder: Path, config: NetworkConfig) -> tuple[dict[str, nn.Module], FrozenWeights | None]:
    """Return all networks with fresh weights, and which weights the prior of `d_b` has, if it has one.

    Raises:
        BadInput: the network of the prior is missing, or its features do not fit.
    """
    transfer = config.generators
    prior, frozen = load_prior(folder, config)
    return build_networks(transfer, config.heads, prior), frozen


def load_prior(folder: Path, config: NetworkConfig) -> tuple[Network | None, FrozenWeights | None]:
    """Return the trained network of a discriminator's prior and which weights it has; None, None without a prior.

    Args:
        folder: of the network that has the prior.
        config: its configuration, which names the folder of the trained one.

    Raises:
        BadInput: the network of the prior is missing or not trained, or reads other than raw.
    """
    prior = config.generators.prior
    if prior is None:
        return None, None
    where = prior_folder(folder, prior)
    trained = load_network(where)
    if trained.autocontext is not None or trained.in_channels != 1 or trained.transfer is not None:
        raise BadInput(f"{where}: reads other than raw alone, expected a network of raw for the discriminator's prior")
    network, checkpoint = load_trained(where, trained, prior.iteration or trained.training.iterations)
    assert isinstance(network, Network)
    return network, weights_told(checkpoint)
