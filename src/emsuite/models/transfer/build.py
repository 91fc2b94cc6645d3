"""Networks of domain transfer from their settings."""

from collections.abc import Mapping

from torch import nn

from emsuite.common.errors import BadInput
from emsuite.models.network import Network
from emsuite.models.transfer.generator import Generator
from emsuite.models.transfer.patch import PatchDiscriminator
from emsuite.models.transfer.prior import FrozenPrior
from emsuite.models.transfer.residual_unet import ResidualUNet
from emsuite.models.transfer.resnet import ResNet
from emsuite.models.transfer.settings import (
    DiscriminatorSettings,
    GeneratorSettings,
    PatchSettings,
    ResidualUNetSettings,
    ResNetSettings,
    SkipUNetSettings,
    UNetGeneratorSettings,
)
from emsuite.models.transfer.skip_unet import SkipUNet
from emsuite.models.transfer.valid import ValidDiscriminator, ValidUNet


def build_generator(settings: GeneratorSettings, heads: Mapping[str, int]) -> Generator | Network:
    """Return a generator with fresh weights from torch's random state.

    Args:
        settings: the architecture.
        heads: channels of each head, by name, `image` first.
    """
    if isinstance(settings, UNetGeneratorSettings):
        return Network(settings.unet, 1, heads)
    if isinstance(settings, ResNetSettings):
        return ResNet(settings, heads)
    if isinstance(settings, ResidualUNetSettings):
        return ResidualUNet(settings, heads)
    return SkipUNet(settings, heads) if isinstance(settings, SkipUNetSettings) else ValidUNet(settings, heads)


def build_discriminator(
    settings: DiscriminatorSettings, in_channels: int = 1, prior: nn.Module | None = None
) -> PatchDiscriminator | ValidDiscriminator:
    """Return a discriminator with fresh weights from torch's random state.

    Args:
        settings: the architecture.
        in_channels: channels of its input.
        prior: the trained network that `settings.prior` describes; without it, the discriminator has no prior.

    Raises:
        BadInput: the features of the prior do not fit, or the settings describe none.
    """
    if isinstance(settings, PatchSettings):
        if prior is not None:
            raise BadInput("discriminator: a prior, but the kind patch has none; expected the kind valid")
        return PatchDiscriminator(settings, in_channels)
    if prior is None:
        return ValidDiscriminator(settings, in_channels)
    if settings.prior is None:
        raise BadInput("discriminator.prior: missing, expected the layer and the channels of the prior")
    frozen = FrozenPrior(prior, settings.prior.layer, settings.prior.channels)
    return ValidDiscriminator(settings, in_channels, frozen)
