"""Validation: the loss on samples that training never sees, the best checkpoint, and an early end.

    every n iterations    held-out samples -> forward, in evaluation mode, with the weights that predict -> loss
    lower than before     this checkpoint is kept as the best one, in the place of the former best
    `patience` times not  training ends: the last checkpoint gets the best weights

Samples are the same each time, and each counts alike, however many processes share them. A checkpoint holds how
validation stands, so that a resumed run comes to the same end.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.files import remove
from emsuite.config.network import NetworkConfig
from emsuite.data.training_volume import TrainingVolume
from emsuite.training import checkpoint as checkpoints
from emsuite.training.checkpoint_manifest import is_only_best, remove_manifest
from emsuite.training.distributed import Processes
from emsuite.training.registry import STEPS
from emsuite.training.step import TrainingState

logger = logging.getLogger(__name__)

Losses = Callable[[TrainingState, int], dict[str, Tensor]]
"""Takes the state and the number of a sample; returns `loss` and the loss of each head."""


class Validator:
    """Validates a network on the same samples again and again. Every process has one."""

    def __init__(
        self, folder: Path, config: NetworkConfig, state: TrainingState, volumes: Sequence[TrainingVolume],
        group: Processes, contents: Sequence[Mapping[str, Any]],
    ):  # fmt: skip
        """Find the positions of samples in `volumes`, which training does not read; none: nothing is validated.

        `contents` are those of the volumes, see `training_data`.

        Raises:
            BadInput: the configuration asks for validation and there are no volumes, or no room for samples in them.
        """
        self.folder, self.config, self.settings, self.group = folder, config, config.training.validation, group
        if self.settings and not volumes:
            raise BadInput(f"{folder}: training.validation needs held-out volumes, expected training.validation.data")
        self._losses = STEPS[config.step].held_out(state, config, volumes, group.device) if self.settings else None
        self._measured_on = _digest(self.settings.samples, contents) if self.settings else ""
        self._former: int | None = None
        """The best iteration before the one that was found last, on the same samples."""

    def is_due(self, iteration: int) -> bool:
        """Return whether validation follows this iteration."""
        return self.settings is not None and iteration % self.settings.every == 0

    def is_over(self, state: TrainingState) -> bool:
        """Return whether training ends here: the loss was not lower for as many validations as `patience` says."""
        patience = self.settings.patience if self.settings else None
        standing = state.validation or {"without_gain": 0}
        return patience is not None and standing["without_gain"] >= patience

    def validate(self, state: TrainingState) -> dict[str, float]:
        """Return the losses, averaged over the samples, and note in `state` whether this is the best so far.

        Raises:
            RunFailed: a loss is no number.
        """
        assert self.settings is not None
        assert self._losses is not None, "nothing to validate"
        count, group = self.settings.samples, self.group
        with _predicting(state), torch.no_grad():
            own = {index: self._losses(state, index) for index in range(group.rank, count, group.count)}
        names = ["loss", *STEPS[self.config.step].loss_names(self.config)]
        table = torch.zeros(count, len(names), device=group.device)
        for index, losses in own.items():
            table[index] = torch.stack([losses[name] for name in names])
        means = dict(zip(names, group.total(table).double().cpu().mean(0).tolist(), strict=True))
        if not all(mean < float("inf") for mean in means.values()):
            raise RunFailed(f"{self.folder}: the validation loss is {means['loss']} at iteration {state.iteration}")
        self._note(state, means["loss"])
        return means

    def _note(self, state: TrainingState, loss: float) -> None:
        assert self.settings is not None
        best, iteration = state.validation, state.iteration
        if best and best.get("measured_on") != self._measured_on:
            logger.info("%s: other held-out samples than up to now; the best loss counts from here", self.folder)
            best = None
        self._former = best["best_iteration"] if best else None
        if best is None or not _are_comparable(self.config, best["best_iteration"], iteration) or (
            loss < best["best_loss"] - self.settings.least_change
        ):  # fmt: skip
            found = {"best_iteration": iteration, "best_loss": loss, "without_gain": 0}
            state.validation = found | {"measured_on": self._measured_on}
        else:
            state.validation = best | {"without_gain": best["without_gain"] + 1}

    def remove_former(self) -> None:
        """Remove the checkpoint of the former best iteration, if it was written for nothing else."""
        if self._former is None:
            return
        path = checkpoints.checkpoint_path(self.folder, self._former)
        if is_only_best(path):
            remove_manifest(path)
            remove(path)

    def take_best(self, state: TrainingState) -> None:
        """Bring the weights of the best checkpoint into `state`; they stand for those of all iterations to come."""
        assert state.validation is not None
        path = checkpoints.checkpoint_path(self.folder, state.validation["best_iteration"])
        if not path.is_file():
            raise BadInput(f"{path}: is gone, the checkpoint with the lowest validation loss; expected it to end with")
        saved = checkpoints.load(self.folder, self.config, state.validation["best_iteration"])
        for name, part in state.trained_parts().items():
            checkpoints.load_weights(part, saved.weights_of(name), path)
            for key, tensor in state.averages.get(name, {}).items():
                tensor.copy_(saved.averages[name][key])
        for name, moments in saved.optimizers.items():
            checkpoints.load_optimizer(state.optimizers[name], moments, path)


def _digest(samples: int, contents: Sequence[Mapping[str, Any]]) -> str:
    """Return a digest of what losses are measured on: the contents of the volumes, and the number of samples."""
    unnamed = [{key: told for key, told in part.items() if key != "volume"} for part in contents]
    return hashlib.sha256(json.dumps([samples, unnamed], sort_keys=True).encode()).hexdigest()[:16]


def _are_comparable(config: NetworkConfig, earlier: int, iteration: int) -> bool:
    """Return whether the losses of two iterations are of one kind, by the same settings of all heads."""
    heads = config.heads.values()
    from_now_on = config.training.renumber_components_from
    is_renumbered = from_now_on is not None and earlier <= from_now_on < iteration
    return not is_renumbered and all(head.settings_at(earlier) == head.settings_at(iteration) for head in heads)


@contextmanager
def _predicting(state: TrainingState) -> Iterator[None]:
    """Within the block, networks are in evaluation mode, with the running average of their weights if there is one."""
    parts = state.trained_parts()
    modes = [(module, module.training) for network in state.networks.values() for module in network.modules()]
    own = {name: {key: tensor.clone() for key, tensor in parts[name].state_dict().items()} for name in state.averages}
    try:
        for network in state.networks.values():
            network.eval()
        for name, average in state.averages.items():
            _copy(average, parts[name].state_dict())
        yield
    finally:
        for name, weights in own.items():
            _copy(weights, parts[name].state_dict())
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for key, tensor in target.items():
        tensor.copy_(source[key])
