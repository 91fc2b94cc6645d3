"""The configuration of one network: `network.yaml` of its folder over `dataset.yaml` of its data set.

<networks>/zebrafinch/dataset.yaml            keys that all networks of the data set share
<networks>/zebrafinch/mtlsd/network.yaml      keys of this network alone

The settings of each part (augmentations, heads, U-Net, sampling) stand beside the code of the part. This module
composes them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from emsuite.augment.missing_sections import MissingSections
from emsuite.common.device import free_memory
from emsuite.common.errors import BadInput
from emsuite.common.settings import Lengths, Settings, load, read_yaml
from emsuite.config.layout import DATASETS, EXAMPLE_NETWORK, RUNS
from emsuite.config.training import Autocontext, Prediction, Training
from emsuite.config.transfer import TransferSettings, check_kind, check_transfer, with_image
from emsuite.data.images.settings import PlateInput
from emsuite.data.normalization import Normalization
from emsuite.models.network import AutocontextNetwork, Network, draw_glorot_weights
from emsuite.models.transfer.settings import Prior
from emsuite.models.unet_settings import UNetSettings
from emsuite.targets.heads import AnyHead, Heads, ImageHead, LsdsHead, TransferredHead
from emsuite.targets.make import TargetMaker

StepName = Literal["supervised", "cyclegan"]
"""The kinds of training, of `emsuite.training.registry`."""


class NetworkConfig(Settings):
    """All settings of a network, its training and its prediction."""

    dataset: str = Field(description="name of the data set, whose yaml file describes it")
    network: str = Field(description="name of the network's folder")
    voxel_size: Lengths = Field(description="nm, z y x")
    step: StepName = Field("supervised", description="the kind of training")
    normalization: Normalization = Field(Normalization(), description="how grey values become the network's input")
    unet: UNetSettings | None = Field(None, description="the architecture; none beside `transfer`")
    transfer: TransferSettings | None = Field(None, description="domain transfer, with `step: cyclegan`")
    heads: Heads = Field(description="what the network predicts, by the name of the array it is written to")
    plate: PlateInput | None = Field(None, description="the plate of microscopy that it reads, in place of volumes")
    autocontext: Autocontext | None = None
    training: Training
    prediction: Prediction

    @model_validator(mode="before")
    @classmethod
    def _with_image(cls, content: Any) -> Any:
        return with_image(content)

    @model_validator(mode="after")
    def _consistent(self) -> "NetworkConfig":
        check_kind(self.step, self.unet is not None, self.transfer, self.heads)
        if self.transfer is not None:
            others = {
                "plate": self.plate is not None,
                "autocontext": self.autocontext is not None,
                "normalization": self.normalization != Normalization(),
            }
            check_transfer(self.transfer, self.heads, self.training, others)
        _check_images(self)
        if self.unet is not None:
            _check_unet(self.unet, self.heads)
        for name in self.prediction.heads or ():
            if name not in self.heads:
                raise ValueError(f"prediction.heads names '{name}'; the heads are {', '.join(self.heads)}")
        return self

    @model_serializer(mode="wrap")
    def _without_the_other_kind(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `transfer` of a supervised network, whose records know no such key, or `unet` beside `transfer`."""
        return {key: value for key, value in dump(self).items() if value is not None or key not in ("unet", "transfer")}

    @property
    def supervised_unet(self) -> UNetSettings:
        """The architecture; raise BadInput in a network of domain transfer, which has none."""
        if self.unet is None:
            raise BadInput(
                f"{self.dataset}/{self.network}: a network of domain transfer (step: {self.step}), which this cannot "
                "do; expected a supervised network, with `unet`"
            )
        return self.unet

    @property
    def generators(self) -> TransferSettings:
        """The settings of domain transfer; raise BadInput in a supervised network, which has none."""
        if self.transfer is None:
            raise BadInput(
                f"{self.dataset}/{self.network}: a supervised network (step: {self.step}), expected one of domain "
                "transfer, with `transfer`"
            )
        return self.transfer

    @property
    def rate_ends(self) -> bool:
        """Whether the learning rate falls towards the last iteration."""
        falls = self.transfer is not None and self.transfer.constant_iterations is not None
        return falls or self.training.optimizer.ends

    @property
    def in_channels(self) -> int:
        """The number of channels that the trained U-Net reads: raw, LSDs, or both; or those of a plate."""
        if self.autocontext is None:
            return len(self.plate.input_channels) if self.plate else 1
        return LsdsHead.CHANNELS + (1 if self.autocontext.with_raw else 0)

    @property
    def frozen_key(self) -> tuple[str, Autocontext | Prior] | None:
        """The key that names a frozen network which this one reads while it is trained, with its value, if any."""
        prior = self.transfer.prior if self.transfer else None
        if prior is not None:
            return "transfer.discriminator.prior", prior
        return ("autocontext", self.autocontext) if self.autocontext else None

    @property
    def context_head(self) -> str | None:
        """The name of the head whose LSDs another network can read; None if there is no such head."""
        return next((name for name, head in self.heads.items() if isinstance(head, LsdsHead)), None)

    @property
    def target_maker(self) -> TargetMaker:
        """Makes the targets of all heads from labels."""
        training = self.training
        components, is_vector = (
            training.renumber_components_from,
            self.unet is not None and self.unet.output == "vector",
        )
        return TargetMaker(self.labelled_heads, self.voxel_size, training.grow_boundary, components, is_vector)

    @property
    def labelled_heads(self) -> dict[str, AnyHead]:
        """The heads that have a target, by name: all but the image of domain transfer."""
        return {name: head for name, head in self.heads.items() if not isinstance(head, TransferredHead)}

    @property
    def image_heads(self) -> dict[str, ImageHead]:
        """The heads that predict images, by name."""
        return {name: head for name, head in self.heads.items() if isinstance(head, ImageHead)}

    def architecture(self) -> dict:
        """Return the settings in which a checkpoint and its network must agree: layers, channels, heads, voxel size."""
        network = {"transfer": self.transfer.architecture()} if self.transfer else {}
        return network | {
            **({"unet": self.unet.model_dump(mode="json")} if self.unet else {}),
            "in_channels": self.in_channels,
            "heads": {name: head.architecture() for name, head in self.heads.items()},
            "voxel_size": list(self.voxel_size),
        }


def _check_unet(unet: UNetSettings, heads: Heads) -> None:
    """Raise ValueError unless a U-Net has three axes, and one activation at most behind its last layer."""
    if unet.dims != 3:
        raise ValueError(f"unet.downsample_factors have {unet.dims} axes, expected 3")
    own = [name for name, head in heads.items() if head.activation != "none"]
    if unet.final_activation != "none" and own:
        raise ValueError(
            f"unet.final_activation holds {unet.final_activation}, but the head '{own[0]}' has an activation of its "
            f"own, {heads[own[0]].activation}; expected none"
        )


def _check_images(config: NetworkConfig) -> None:
    """Raise ValueError unless images come from a plate, and from nothing else."""
    odd = sorted(config.heads.keys() - config.image_heads.keys()) if config.plate else list(config.image_heads)
    if odd:
        expected = "heads with target: image" if config.plate else "a plate, whose images it predicts"
        raise ValueError(f"heads.{odd[0]} is a head of {config.heads[odd[0]].target}, expected {expected}")
    if config.unet is None:
        return
    if config.unet.output == "vector" and not config.plate:
        raise ValueError("unet.output holds vector, but heads predict values of voxels; expected image")
    if config.plate is None:
        return
    for key, is_set in (
        ("autocontext", config.autocontext is not None),
        ("normalization", config.normalization != Normalization()),
        ("training.grow_boundary", config.training.grow_boundary is not None),
        ("training.sampling.probabilities", config.training.sampling.probabilities is not None),
    ):
        if is_set:
            raise ValueError(f"{key} is for volumes, expected none beside a plate, whose preprocessing decides")
    shape, unet = config.training.input_shape, config.unet
    if unet.padding == "same_in_plane" and shape[0] % 2 == 0:
        raise ValueError(f"training.input_shape holds a depth of {shape[0]}, expected an odd number of slices to one")


def load_network(folder: Path, overrides: Sequence[str] = ()) -> NetworkConfig:
    """Read the configuration of the network in `folder`.

    The voxel size is that of the data set, unless the files of the network say another. `autocontext.iteration` is the
    number of iterations of the frozen network, unless they name one.

    Args:
        folder: holds network.yaml; its name is that of the network, the name of its parent that of the data set. Or a
            run folder, as `config_folder` says.
        overrides: `key=value` texts over both files, as `training.batch_size=2`.

    Raises:
        BadInput: a file is missing, or a key is unknown or holds a wrong value.
    """
    config = _read(folder, overrides)
    frozen = frozen_network_folder(folder, config)
    if frozen is None or config.autocontext is None or config.autocontext.iteration is not None:
        return config
    named = config.autocontext.model_copy(update={"iteration": _read(frozen).training.iterations})
    return config.model_copy(update={"autocontext": named})


def _read(folder: Path, overrides: Sequence[str] = ()) -> NetworkConfig:
    folder = config_folder(folder)
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; expected a network's, as {EXAMPLE_NETWORK}")
    if not (folder / "network.yaml").exists():
        raise BadInput(f"{folder}: has no network.yaml; expected a network's folder, as {EXAMPLE_NETWORK}")
    names = [f"dataset='{folder.parent.name}'", f"network='{folder.name}'"]  # quoted: a folder may be called 32
    paths = [path for path in (folder.parent / "dataset.yaml", folder / "network.yaml") if path.exists()]
    config = load(NetworkConfig, *paths, overrides=[*names, *overrides], defaults=_of_data_set(folder.parent))
    return _with_places_of_artifacts(config, folder.parents[2])


def _with_places_of_artifacts(config: NetworkConfig, project: Path) -> NetworkConfig:
    """Return the configuration with the places of volumes of artifacts that lie in the project, not where we stand."""
    steps = []
    for step in config.training.augment:
        artifacts = step.artifacts if isinstance(step, MissingSections) else None
        if artifacts is not None and not Path(artifacts.volume).exists() and (project / artifacts.volume).exists():
            found = artifacts.model_copy(update={"volume": str(project / artifacts.volume)})
            step = step.model_copy(update={"artifacts": found})
        steps.append(step)
    return config.model_copy(update={"training": config.training.model_copy(update={"augment": tuple(steps)})})


def config_folder(folder: Path) -> Path:
    """Return the folder that holds the network.yaml of a network's folder, or of a run folder `NETWORK_DIR/runs/NAME`.

    A run folder holds checkpoints, snapshots and log of another training of the same network. It need not exist yet.
    """
    folder = Path(folder).resolve()
    above = folder.parents[1] if folder.parent.name == RUNS else folder
    return above if (above / "network.yaml").exists() else folder


def _of_data_set(folder: Path) -> dict[str, Any]:
    """Return the keys that the networks in a data set's `folder` take from the file of the data set."""
    file = folder.parent.parent / DATASETS / f"{folder.name}.yaml"
    content = read_yaml(file) if file.exists() else {}
    return {key: content[key] for key in ("voxel_size",) if key in content}


def frozen_network_folder(folder: Path, config: NetworkConfig) -> Path | None:
    """Return the folder of the frozen network that `config` reads LSDs from; None if it reads raw alone."""
    return config_folder(folder).parent / config.autocontext.network if config.autocontext else None


def build_network(config: NetworkConfig) -> Network:
    """Build the network of `config` with fresh weights, from torch's random state, without its frozen network."""
    needed, free = 4 * parameter_count(config), free_memory()
    if needed > free:
        raise BadInput(
            f"{config.dataset}/{config.network}: its weights take {needed / 2**30:.1f} GiB, of which this machine "
            f"has {free / 2**30:.1f} free; expected fewer feature maps (unet.num_fmaps, unet.fmap_inc_factor)"
        )
    network = _network(config)
    if config.training.initial_weights == "glorot":
        draw_glorot_weights(network)
    return network


def parameter_count(config: NetworkConfig) -> int:
    """Return the number of trained parameters of the network of `config`; allocates nothing, draws nothing."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in _network(config).parameters())


def _network(config: NetworkConfig) -> Network:
    return Network(
        config.supervised_unet, config.in_channels, {name: head.channels for name, head in config.heads.items()}
    )


def build_autocontext(config: NetworkConfig, frozen: NetworkConfig) -> AutocontextNetwork:
    """Build the network of `config` behind the frozen network whose LSDs it reads, both with fresh weights.

    The frozen network is built first: the seed decides the weights of both, in this order.
    """
    assert config.autocontext is not None, f"{config.network} reads raw alone"
    assert frozen.context_head is not None, f"{frozen.network} predicts no LSDs"
    context = build_network(frozen)
    return AutocontextNetwork(context, build_network(config), config.autocontext.with_raw, frozen.context_head)


def upgraded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an earlier run in the words of today's schema.

    Keys of the network's configuration that have another name today are renamed, and those that an earlier version did
    not know get their defaults. A configuration that today's schema refuses stays as it is, and equals none of today's.
    """
    try:
        network = NetworkConfig.model_validate(settings.get("network")).model_dump(mode="json")
    except ValidationError:
        return dict(settings)
    return {**settings, "network": network}
