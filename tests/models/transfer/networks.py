"""Networks of domain transfer from plain keys, for tests."""

from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from emsuite.models.transfer.build import build_discriminator, build_generator
from emsuite.models.transfer.settings import DiscriminatorSettings, GeneratorSettings

IMAGE = {"image": 1}
_GENERATOR: TypeAdapter[Any] = TypeAdapter(GeneratorSettings)
_DISCRIMINATOR: TypeAdapter[Any] = TypeAdapter(DiscriminatorSettings)


def generator(kind: str, heads: dict[str, int] | None = None, **keys: Any) -> Any:
    """A generator in float64, for evaluation."""
    torch.manual_seed(0)
    return build_generator(_GENERATOR.validate_python({"kind": kind} | keys), heads or IMAGE).double().eval()


def discriminator(kind: str, in_channels: int = 1, frozen: nn.Module | None = None, **keys: Any) -> Any:
    """A discriminator in float64, for evaluation."""
    torch.manual_seed(1)
    settings = _DISCRIMINATOR.validate_python({"kind": kind} | keys)
    return build_discriminator(settings, in_channels, frozen).double().eval()


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)


def noise(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def as_sections(x: Tensor) -> Tensor:
    """(N, C, Z, Y, X) as (N * Z, C, Y, X)."""
    return torch.cat([sample.movedim(1, 0) for sample in x])


def of_sections(x: Tensor, samples: int) -> Tensor:
    """The reverse of `as_sections`."""
    return torch.stack([sample.movedim(0, 1) for sample in x.chunk(samples)])
