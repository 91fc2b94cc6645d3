"""Checkpoints: the state that training needs to go on, and that prediction needs to predict.

    02_train/<dataset>/<network>/checkpoints/checkpoint_<iteration>.pt

    02_train/<dataset>/<network>/checkpoints/interim.pt                     newer than these, only to go on from

A file is a plain dictionary of tensors, numbers and texts. It is read with `weights_only=True`: loading runs no code.
`emsuite.config.checkpoint_content` checks what it holds.

The file holds no time, machine or name of a user: the same training gives the same bytes, also after a stop. These are
in the manifest beside it.
"""

import hashlib
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emsuite.common.documents import check_regular, shortened
from emsuite.common.errors import BadInput
from emsuite.common.files import atomic_path, remove
from emsuite.common.provenance import reproducible
from emsuite.common.state.lock import Lock, owned
from emsuite.config.checkpoint_content import FORMAT, check_archive, check_content, record_normalization
from emsuite.config.network import NetworkConfig
from emsuite.config.trained_with import Record, differing, of_earlier_version, with_later_unet_keys
from emsuite.data.grey_values import GreyRange
from emsuite.data.normalization import GreyScale, Normalization
from emsuite.training.checkpoint_manifest import write_manifest
from emsuite.training.step import NETWORK

logger = logging.getLogger(__name__)

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
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    """See `TrainingState.pools`; a file without any has no such key, as those of earlier versions."""
    normalization: dict[str, Any] = field(default_factory=lambda: record_normalization(Normalization(), None))
    """See `record_normalization`."""
    trained_with: list[Record] = field(default_factory=list)
    """See `emsuite.config.trained_with`; empty for weights that were converted, or trained by an earlier version."""
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def last_record(self) -> Record | None:
        """The record of what the newest iterations were trained with; None if it is unknown."""
        told = self.trained_with[-1] if self.trained_with else self._earlier_record()
        if told is None or self.frozen_digest is None or "frozen" in told:
            return told
        return told | {"frozen": {"iteration": None, "digest": self.frozen_digest}}  # of an earlier version

    def _earlier_record(self) -> Record | None:
        settings = self.provenance.get("settings")
        return of_earlier_version(settings) if isinstance(settings, dict) and "converted" not in settings else None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights of the only network, as trained; raise BadInput if the checkpoint holds other networks."""
        return self.weights_of(NETWORK)

    def weights_of(self, name: str) -> dict[str, Tensor]:
        """Return the weights of a network, as trained; raise BadInput if the checkpoint does not hold it."""
        if name not in self.networks:
            raise BadInput(f"checkpoint of iteration {self.iteration}: holds {list(self.networks)}, expected '{name}'")
        return self.networks[name]

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

    @property
    def grey_range(self) -> GreyRange | None:
        """The range of grey values that was measured on the training volumes, if any."""
        measured = self.normalization.get("grey_range")
        return None if measured is None else GreyRange(*measured)

    @property
    def domains(self) -> dict[str, dict[str, Any]] | None:
        """The statistics of the domains of transfer, if any, see `emsuite.data.transfer.statistics`."""
        return self.normalization.get("domains")

    @property
    def images(self) -> dict[str, Any] | None:
        """The normalization of the plate that it was trained on, if any, see `emsuite.data.images.scales`."""
        return self.normalization.get("images")


def save(folder: Path, checkpoint: Checkpoint, interim: bool = False) -> Path:
    """Write `checkpoint` into the folder of its network, atomically; return its path.

    The manifest gets the whole provenance, the file its reproducible part. An interim checkpoint replaces the one
    before, and the next one that is kept removes it. Prediction does not see it.
    """
    path = interim_path(folder) if interim else checkpoint_path(folder, checkpoint.iteration)
    write(path, checkpoint)
    if not interim:
        write_manifest(path, checkpoint.iteration, checkpoint.provenance)
        interim_path(folder).unlink(missing_ok=True)
    return path


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file of a checkpoint alone, atomically."""
    kept = checkpoint.__dict__ | {"provenance": reproducible(checkpoint.provenance)}
    kept = {key: value for key, value in kept.items() if key != "pools" or value}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(_without_identities({"format": FORMAT} | kept), file)
        except RuntimeError as error:  # torch hides the error of the file system, as on a full disk
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


@contextmanager
def owned_folder(folder: Path) -> Iterator[Lock]:
    """Hold the checkpoints of the network in `folder` within the block: no other run trains it or writes its weights.

    Log and snapshots belong to whoever holds the checkpoints. Raises OutputInUse if another run does.
    """
    checkpoints = Path(folder) / "checkpoints"
    with owned(checkpoints / ".lock", Path(folder)) as lock:
        for leftovers in ("checkpoints/.*.part", "log/.*.part", "snapshots/.*.part*"):  # of killed runs
            for leftover in Path(folder).glob(leftovers):
                remove(leftover)
        yield lock


def _without_identities(value: Any) -> Any:
    """Return a copy of a structure in which equal texts are one object, and dictionaries, lists and tuples are not.

    The bytes of a pickle tell which objects are the same, and those of a resumed run differ in this.
    """
    if isinstance(value, dict):
        return {_without_identities(key): _without_identities(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_without_identities(item) for item in value])
    return sys.intern(value) if type(value) is str else value


def checkpoint_path(folder: Path, iteration: int) -> Path:
    """Return the path of the checkpoint of an iteration in the folder of a network."""
    return Path(folder) / "checkpoints" / f"checkpoint_{iteration}.pt"


def interim_path(folder: Path) -> Path:
    """Return the path of the interim checkpoint in the folder of a network."""
    return Path(folder) / "checkpoints" / "interim.pt"


def saved_path(folder: Path, iteration: int) -> Path:
    """Return the file that holds an iteration: the checkpoint that is kept, or the interim one."""
    path = checkpoint_path(folder, iteration)
    return path if path.exists() else interim_path(folder)


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
    if checkpoint.iteration != int(path.stem.rpartition("_")[2]):
        raise BadInput(f"{path}: holds iteration {checkpoint.iteration}, expected that of its name")
    return _fitting(checkpoint, path, config)


def load_newest(folder: Path, config: NetworkConfig) -> Checkpoint | None:
    """Read the checkpoint that training goes on from, which may be the interim one; None without any; see `load`."""
    saved, path = iterations(folder), interim_path(folder)
    if path.exists():
        interim = read(path)
        if not saved or interim.iteration > saved[-1]:
            return _fitting(interim, path, config)
    return load(folder, config) if saved else None


def _fitting(checkpoint: Checkpoint, path: Path, config: NetworkConfig) -> Checkpoint:
    """Return the checkpoint that was read from `path`; raise BadInput if it does not belong to this network."""
    _check_architecture(path, checkpoint.architecture, config)
    settings = config.normalization.model_dump(mode="json")
    earlier = Normalization().model_dump(mode="json") | checkpoint.normalization["settings"]  # with later keys
    if earlier != settings:
        raise BadInput(
            f"{path}: was trained with the normalization {checkpoint.normalization['settings']}, expected {settings}"
        )
    return checkpoint


def read(path: Path) -> Checkpoint:
    """Read one file; raise BadInput if it is truncated, or another program wrote it, or its format is unknown."""
    check_regular(path, "a checkpoint")
    try:
        check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return Checkpoint(**check_content(content, path.stat().st_size))
    except Exception as error:  # torch raises errors of many types for such files
        logger.debug("%s: %s", path, error)
        raise BadInput(f"{path}: not a whole checkpoint of this suite: cut off, or another program's") from None


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], path: Path) -> None:
    """Load the saved `state` into `optimizer`; raise BadInput if it does not fit."""
    try:
        # The settings of the optimizer are those of the configuration; only its state comes from the file.
        optimizer.load_state_dict({"state": state["state"], "param_groups": optimizer.state_dict()["param_groups"]})
        for weight, moments in optimizer.state.items():
            _check_moments(weight, moments)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: its optimizer does not fit the network: {shortened(str(error))}") from None
    # torch's fused Adam walks through weights and moments in memory order. The moments of a converted checkpoint have
    # another order than the weights: a GPU refuses them, a CPU would pair each moment with another weight.
    for weight, moments in optimizer.state.items():
        for name, moment in moments.items():
            if moment.shape == weight.shape and moment.stride() != weight.stride():
                moments[name] = torch.empty_like(weight, dtype=moment.dtype, requires_grad=False).copy_(moment)


def _check_moments(weight: Any, moments: dict[str, Tensor]) -> None:
    if not isinstance(weight, Tensor) or not moments.keys() >= {"step", "exp_avg", "exp_avg_sq"}:
        raise ValueError("it has no moments, or those of other weights")
    for name, moment in moments.items():
        expected = () if name == "step" else tuple(weight.shape)
        if tuple(moment.shape) != expected or not torch.isfinite(moment).all():
            raise ValueError(f"{name} holds {tuple(moment.shape)}, or NaN or infinity, expected {expected} numbers")


def load_weights(network: torch.nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load `weights` into `network`, every parameter exactly once; raise BadInput as `check_weights`."""
    check_weights(network, weights, path)
    network.load_state_dict(weights, strict=True)


def check_weights(network: torch.nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Raise BadInput unless `weights` have the names, shapes and types of those of `network`, and all are numbers."""
    expected, where = network.state_dict(), f"{path}: its weights do not fit the network: "
    for name in sorted(expected.keys() ^ weights.keys()):
        raise BadInput(f"{where}'{shortened(name)}' is {'missing' if name in expected else 'none of its weights'}")
    for name, tensor in weights.items():
        kind, other = expected[name].dtype, expected[name].shape
        if tensor.shape != other or tensor.dtype != kind:
            raise BadInput(f"{where}{name} is {tuple(tensor.shape)} {tensor.dtype}, expected {tuple(other)} {kind}")
        if not torch.isfinite(tensor).all():
            raise BadInput(f"{where}{name} holds NaN or infinity, expected numbers")


def digest(weights: dict[str, Tensor]) -> str:
    """Return the SHA-256 of the names and values of weights."""
    state = hashlib.sha256()
    for name in sorted(weights):
        state.update(name.encode())
        state.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()


def _check_architecture(path: Path, saved: dict[str, Any], config: NetworkConfig) -> None:
    earlier = saved | {"unet": with_later_unet_keys(saved.get("unet"))}
    for key, value, expected in differing(earlier, config.architecture()):
        raise BadInput(
            f"{path}: a checkpoint of another network: its {key} is {shortened(str(value))}, "
            f"expected {shortened(str(expected))} for {config.dataset}/{config.network}; "
            f"take the setting back, or move {path.parent} away to train anew"
        )
