"""Checkpoints: the state that training needs to go on, and that prediction needs to predict.

    02_train/<dataset>/<network>/checkpoints/checkpoint_<iteration>.pt

A file is a plain dictionary of tensors, numbers and texts. It is read with `weights_only=True`: loading runs no code.

    format 2     networks {name: weights}, averages {name: weights}, optimizers {name: state}, normalization, ...
    format 1     weights, averaged, optimizer of one network, which format 2 calls `network`; still read
"""

import hashlib
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emsuite.common.errors import BadInput
from emsuite.common.files import atomic_path, write_json
from emsuite.common.outputs import manifest_path
from emsuite.config.network import NetworkConfig, build_autocontext, build_network, frozen_network_folder, load_network
from emsuite.config.trained_with import Record, differing, is_record, of_earlier_version
from emsuite.data.normalization import GreyScale, Normalization
from emsuite.models.network import AnyNetwork, trained_part
from emsuite.training.step import NETWORK

logger = logging.getLogger(__name__)

_FORMAT = 2
_NAME = re.compile(r"checkpoint_(\d+)\.pt")


@dataclass(kw_only=True)
class Checkpoint:
    """One saved state of training."""

    iteration: int
    architecture: dict[str, Any]
    """The part of the configuration that the weights depend on, as `NetworkConfig.architecture`."""
    networks: dict[str, dict[str, Tensor]]
    """The weights of each network, as trained."""
    averages: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """The running average of the weights of each network; empty without averaging."""
    optimizers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The state of each optimizer; empty if the checkpoint was converted without it."""
    frozen_digest: str | None = None
    """The digest of the frozen network's weights, in an autocontext network."""
    normalization: dict[str, Any] = field(default_factory=lambda: record_normalization(Normalization(), None))
    """See `record_normalization`."""
    trained_with: list[Record] = field(default_factory=list)
    """See `emsuite.config.trained_with`; empty for weights that were converted, or trained by an earlier version."""
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def last_record(self) -> Record | None:
        """The record of what the newest iterations were trained with; None if it is unknown."""
        if self.trained_with:
            return self.trained_with[-1]
        settings = self.provenance.get("settings")
        return of_earlier_version(settings) if isinstance(settings, dict) and "converted" not in settings else None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights of the only network, as trained."""
        return self.networks[NETWORK]

    @property
    def averaged(self) -> dict[str, Tensor] | None:
        """The running average of the only network's weights."""
        return self.averages.get(NETWORK)

    @property
    def optimizer(self) -> dict[str, Any] | None:
        """The state of the only optimizer."""
        return self.optimizers.get(NETWORK)

    @property
    def best_weights(self) -> dict[str, Tensor]:
        """The weights to predict with: the average where there is one."""
        return self.averaged or self.weights

    @property
    def grey_scale(self) -> GreyScale | None:
        """The grey scale that was measured on the training volumes, if any."""
        measured = self.normalization["grey_scale"]
        return None if measured is None else GreyScale(*measured)


def record_normalization(normalization: Normalization, grey_scale: GreyScale | None) -> dict[str, Any]:
    """Return the normalization of a network's input as a checkpoint records it: settings, measured gain and shift."""
    measured = None if grey_scale is None else [float(number) for number in grey_scale]
    return {"settings": normalization.model_dump(mode="json"), "grey_scale": measured}


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write `checkpoint` into the folder of its network, atomically; return its path."""
    path = checkpoint_path(folder, checkpoint.iteration)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save({"format": _FORMAT} | checkpoint.__dict__, file)
        except RuntimeError as error:  # torch hides the error of the file system, as on a full disk
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
    write_manifest(path, checkpoint)
    return path


def write_manifest(path: Path, checkpoint: Checkpoint) -> None:
    """Write the provenance beside the checkpoint. The manifest tells people and the workflow that it is whole."""
    write_json(manifest_path(path), checkpoint.provenance | {"iteration": checkpoint.iteration})


def checkpoint_path(folder: Path, iteration: int) -> Path:
    """Return the path of the checkpoint of an iteration in the folder of a network."""
    return Path(folder) / "checkpoints" / f"checkpoint_{iteration}.pt"


def iterations(folder: Path) -> list[int]:
    """Return the iterations of all checkpoints in the folder of a network, ascending."""
    files = (Path(folder) / "checkpoints").glob("checkpoint_*.pt")
    return sorted(int(match[1]) for file in files if (match := _NAME.fullmatch(file.name)))


def load(folder: Path, config: NetworkConfig, iteration: int | None = None) -> Checkpoint:
    """Read a checkpoint and check that it belongs to this network.

    Args:
        folder: that of the network.
        config: the configuration that the checkpoint must fit.
        iteration: which checkpoint; None: the newest.

    Raises:
        BadInput: there is no such checkpoint, or it is damaged, or of another network.
    """
    saved = iterations(folder)
    if not saved or (iteration is not None and iteration not in saved):
        missing = "no checkpoint" if iteration is None else f"no checkpoint of iteration {iteration}"
        hint = f"it has {', '.join(map(str, saved))}" if saved else "train it, or fetch its published weights"
        raise BadInput(f"{folder}: {missing}; {hint}")
    path = checkpoint_path(folder, saved[-1] if iteration is None else iteration)
    checkpoint = read(path)
    _check_architecture(path, checkpoint.architecture, config)
    settings = config.normalization.model_dump(mode="json")
    if checkpoint.normalization["settings"] != settings:
        raise BadInput(
            f"{path}: was trained with the normalization {checkpoint.normalization['settings']}, expected {settings}"
        )
    return checkpoint


def read(path: Path) -> Checkpoint:
    """Read one file; raise BadInput if it is truncated, or another program wrote it, or its format is unknown."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return _checked(content)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch raises errors of many types for such files
        logger.debug("%s: %s", path, error)
        raise BadInput(f"{path}: not a whole checkpoint of this suite: cut off, or another program's") from None


def load_trained(folder: Path, config: NetworkConfig, iteration: int | None = None) -> tuple[AnyNetwork, Checkpoint]:
    """Return the network of a folder, ready to predict, with its frozen network if it has one, and its checkpoint."""
    checkpoint = load(folder, config, iteration)
    network, frozen_digest = build_with_frozen(folder, config)
    check_frozen(folder, config, checkpoint, frozen_digest)
    load_weights(trained_part(network), checkpoint.best_weights, checkpoint_path(folder, checkpoint.iteration))
    return network, checkpoint


def build_with_frozen(folder: Path, config: NetworkConfig) -> tuple[AnyNetwork, str | None]:
    """Return a network with fresh weights behind its frozen network, loaded, if it has one; and the latter's digest."""
    frozen = load_frozen(folder, config)
    if frozen is None:
        return build_network(config), None
    frozen_config, checkpoint = frozen
    network = build_autocontext(config, frozen_config)
    path = checkpoint_path(frozen_network_folder(folder, config) or folder, checkpoint.iteration)
    load_weights(network.frozen, checkpoint.best_weights, path)
    return network, digest(checkpoint.best_weights)


def load_frozen(folder: Path, config: NetworkConfig) -> tuple[NetworkConfig, Checkpoint] | None:
    """Return configuration and checkpoint of the frozen network that `folder` reads LSDs from; None without one."""
    frozen_folder = frozen_network_folder(folder, config)
    if frozen_folder is None or config.autocontext is None:
        return None
    frozen_config = load_network(frozen_folder)
    if frozen_config.context_head is None or frozen_config.autocontext is not None:
        raise BadInput(f"{frozen_folder}: does not predict LSDs from raw, which '{config.network}' reads")
    if frozen_config.normalization != config.normalization:
        raise BadInput(f"{frozen_folder}: its normalization differs from that of '{config.network}', which reads both")
    return frozen_config, load(frozen_folder, frozen_config, config.autocontext.iteration)


def check_frozen(folder: Path, config: NetworkConfig, checkpoint: Checkpoint, frozen_digest: str | None) -> None:
    """Refuse a checkpoint trained on other weights of the frozen network than those of `frozen_digest`."""
    if checkpoint.frozen_digest != frozen_digest:
        name = config.autocontext.network if config.autocontext else "?"
        raise BadInput(f"{folder}: was trained on other weights of '{name}' than the ones that lie beside it now")


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], path: Path) -> None:
    """Load the saved `state` into `optimizer`; raise BadInput if it does not fit."""
    try:
        optimizer.load_state_dict(state)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: its optimizer does not fit the network: {error}") from None
    # torch's fused Adam walks through weights and moments in memory order. The moments of a converted checkpoint have
    # another order than the weights: a GPU refuses them, a CPU would pair each moment with another weight.
    for weight, moments in optimizer.state.items():
        for name, moment in moments.items():
            if moment.shape == weight.shape and moment.stride() != weight.stride():
                moments[name] = torch.empty_like(weight, dtype=moment.dtype, requires_grad=False).copy_(moment)


def load_weights(network: torch.nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load `weights` into `network`, every parameter exactly once; raise BadInput if they do not fit."""
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise BadInput(f"{path}: its weights do not fit the network: {' '.join(str(error).split())[:200]}") from None


def digest(weights: dict[str, Tensor]) -> str:
    """Return the SHA-256 of the names and values of weights."""
    state = hashlib.sha256()
    for name in sorted(weights):
        state.update(name.encode())
        state.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()


def _checked(content: Any) -> Checkpoint:
    number = content.pop("format", None) if isinstance(content, dict) else None
    if number not in (1, _FORMAT):
        raise ValueError("it holds something else")
    checkpoint = Checkpoint(**(_from_format_1(content) if number == 1 else content))
    if not isinstance(checkpoint.architecture, dict) or not isinstance(checkpoint.networks, dict):
        raise ValueError("its parts are of other types")
    if not isinstance(checkpoint.trained_with, list) or not all(map(is_record, checkpoint.trained_with)):
        raise ValueError("its records of training are of other types")
    return checkpoint


def _from_format_1(content: dict[str, Any]) -> dict[str, Any]:
    named = {"networks": content.pop("weights"), "averages": content.pop("averaged"),
             "optimizers": content.pop("optimizer")}  # fmt: skip
    named = {key: {} if value is None else {NETWORK: value} for key, value in named.items()}
    frozen_digest = content.pop("first")
    return content | named | {"frozen_digest": frozen_digest}


def _check_architecture(path: Path, saved: dict[str, Any], config: NetworkConfig) -> None:
    for key, value, expected in differing(saved, config.architecture()):
        raise BadInput(
            f"{path}: a checkpoint of another network: its {key} is {value}, expected {expected} "
            f"for {config.dataset}/{config.network}"
        )
