"""The networks of domain transfer, by name, from their settings.

a2b, b2a      generators: from the look of domain a to that of b, and back
d_a, d_b      discriminators: real or transferred images of a, of b
d_heads       discriminator of heads, where there is one
"""

from collections.abc import Mapping

import torch
from torch import nn

from emsuite.config.transfer import Direction, TransferSettings
from emsuite.models.network import Network
from emsuite.models.transfer.build import build_discriminator, build_generator
from emsuite.models.transfer.generator import IMAGE, Generator
from emsuite.targets.heads import AnyHead

GENERATORS: dict[Direction, str] = {"A2B": "a2b", "B2A": "b2a"}
"""The network of each direction."""


def generator_of(transfer: TransferSettings, heads: Mapping[str, AnyHead]) -> Network | Generator:
    """Return one generator with fresh weights from torch's random state."""
    return build_generator(transfer.generator, {name: head.channels for name, head in heads.items()})


def build_networks(
    transfer: TransferSettings, heads: Mapping[str, AnyHead], prior: nn.Module | None = None
) -> dict[str, nn.Module]:
    """Return all networks with fresh weights from torch's random state, in this order.

    Args:
        transfer: the settings.
        heads: what generators predict, the image first.
        prior: the trained network whose features the discriminator of `b` reads, if it has a prior.
    """
    networks: dict[str, nn.Module] = {name: generator_of(transfer, heads) for name in GENERATORS.values()}
    networks["d_a"] = build_discriminator(transfer.discriminator)
    networks["d_b"] = build_discriminator(transfer.discriminator, prior=prior)
    if transfer.heads_discriminator is not None:
        channels = sum(head.channels for name, head in heads.items() if name != IMAGE)
        networks["d_heads"] = build_discriminator(transfer.heads_discriminator, channels)
    return networks


def parameter_counts(transfer: TransferSettings, heads: Mapping[str, AnyHead]) -> dict[str, int]:
    """Return the number of parameters of each network, without a prior; allocates nothing, draws nothing."""
    with torch.device("meta"):
        networks = build_networks(transfer, heads)
    return {name: sum(parameter.numel() for parameter in network.parameters()) for name, network in networks.items()}
