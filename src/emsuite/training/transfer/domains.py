"""The two domains of a run, as the trainer hands on training volumes: read, recorded and moved to a device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from emsuite.common.errors import BadInput
from emsuite.config.network import NetworkConfig
from emsuite.config.transfer import Domains
from emsuite.data.training_volume import TrainingVolume
from emsuite.data.transfer.domain import Domain, load_domain
from emsuite.data.transfer.settings import DomainSettings
from emsuite.data.transfer.statistics import DomainStatistics
from emsuite.io.regions import shared_volume

NAMES = ("a", "b")
Statistics = Mapping[str, DomainStatistics]
"""By the name of the domain."""


@dataclass(frozen=True, kw_only=True)
class DomainVolume(TrainingVolume):
    """All volumes of a domain; the attributes of `TrainingVolume` are those of its first one."""

    domain: Domain
    places: tuple[str, ...]
    """The paths of its volumes or patches, and of their labels."""

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The arrays of all volumes that take memory; none if they are read from disk."""
        return [tensor for volume in self.domain.loaded.volumes for tensor in volume.tensors]

    @property
    def paths(self) -> Sequence[str]:
        """See `places`."""
        return self.places

    def to(self, device: torch.device | str) -> "DomainVolume":
        """Return the domain on `device`; volumes on disk stay there."""
        return replace(self, domain=self.domain.to(device))

    @property
    def content(self) -> Mapping[str, Any]:
        """What decides the samples of the domain."""
        return {"volume": f"domain {self.domain.name}", "images": self.domain.record()}


def load_domains(
    config: NetworkConfig, volumes: Sequence[str], project: Path, recorded: Statistics | None = None
) -> list[TrainingVolume]:
    """Read the domains of a network of domain transfer.

    Args:
        config: of the network; names the images of both.
        volumes: named on the command line; there must be none.
        project: images that are not there as seen from here are searched in this folder.
        recorded: the statistics in a checkpoint to go on from; None: they are measured.

    Raises:
        BadInput: as `load_domain`.
    """
    if volumes:
        raise BadInput(
            f"--data {volumes[0]}: which domain is it? Expected transfer.domains.a and transfer.domains.b in the "
            "network's configuration"
        )
    return _load(config, config.generators.domains, project, recorded or {})


def load_held_out_domains(
    config: NetworkConfig, project: Path, training: Sequence[TrainingVolume]
) -> list[TrainingVolume]:
    """Read the domains to validate on, in the scales of the domains that are trained on.

    Raises:
        BadInput: a domain shares voxels with one that is trained on, or as `load_domain`.
    """
    held_out = config.generators.held_out
    assert held_out is not None, "the schema asks for them"
    trained = domains_of(training)
    loaded = _load(config, held_out, project, {one.name: one.statistics for one in trained})
    known = [place for domain in trained for place in domain.regions()]
    for domain in domains_of(loaded):
        if shared := shared_volume(domain.regions(), known):
            raise BadInput(
                f"{shared}: transfer.held_out.{domain.name} shares voxels with transfer.domains, expected other boxes"
            )
    return loaded


def domains_of(volumes: Sequence[TrainingVolume]) -> tuple[Domain, Domain]:
    """Return the domains a and b that are handed on as volumes."""
    a, b = (volume.domain for volume in volumes if isinstance(volume, DomainVolume))
    return a, b


def _load(config: NetworkConfig, domains: Domains, project: Path, known: Statistics) -> list[TrainingVolume]:
    loaded = list[TrainingVolume]()
    for name, settings in zip(NAMES, (domains.a, domains.b), strict=True):
        shape = config.training.input_shape
        domain = load_domain(settings, name, config.voxel_size, shape, project, known.get(name))
        first = domain.loaded.volumes[0]
        parts = {key: getattr(first, key) for key in TrainingVolume.__dataclass_fields__}
        loaded.append(DomainVolume(**parts, domain=domain, places=_places(settings, domain)))
    return loaded


def _places(settings: DomainSettings, domain: Domain) -> tuple[str, ...]:
    read = [settings.patches, settings.patch_labels] if settings.patches else []
    read += [] if settings.patches else [volume.labels for volume in settings.volumes]
    names = [] if settings.patches else [volume.name for volume in domain.loaded.volumes]
    return (*names, *(str(path) for path in read if path is not None))
