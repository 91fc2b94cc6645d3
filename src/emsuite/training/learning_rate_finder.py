"""Find a learning rate: train while the rate rises, and watch the loss (Smith 2017, "Cyclical learning rates")."""

import csv
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.files import atomic_path
from emsuite.common.progress import progress
from emsuite.config.network import NetworkConfig
from emsuite.data.training_volume import TrainingVolume, on_device
from emsuite.training.batches import BatchShare
from emsuite.training.registry import STEPS
from emsuite.training.resume import start

_MEMORY = 0.9  # of the running mean of the losses
_BLOWN_UP = 4.0  # times the lowest loss: the search ends, higher rates are useless


@dataclass(frozen=True)
class RatesTried:
    """Rising learning rates, and at each the running mean of the loss."""

    rates: list[float]
    losses: list[float]

    @property
    def suggested(self) -> float:
        """A tenth of the rate with the lowest loss."""
        return self.rates[int(np.argmin(self.losses))] / 10

    @property
    def bounds(self) -> tuple[float, float]:
        """The rates between which cycles are worth it: where the loss begins to fall, and where it stops falling.

        A tenth of the whole fall is done at the lower one, nine tenths at the upper one; both are the first rate if
        the loss never falls.
        """
        lowest = int(np.argmin(self.losses))
        highest = int(np.argmax(self.losses[: lowest + 1]))
        falling = np.array(self.losses[highest : lowest + 1])
        done = falling[0] - falling
        return tuple(self.rates[highest + int(np.argmax(done >= part * done[-1]))] for part in (0.1, 0.9))  # type: ignore[return-value]

    def as_text(self, table: Path) -> str:
        """Return the suggested rate for people: where it comes from, how to use it, and the path of the `table`."""
        lowest, rate = int(np.argmin(self.losses)), f"{self.suggested:.2g}"
        low, high = self.bounds
        files = [f"rates and losses         {table}", f"drawn                    {table.with_suffix('.svg')}"]
        if lowest == 0:
            return "\n".join([
                f"no learning rate found   the loss never falls from {self.rates[0]:.2g} to {self.rates[-1]:.2g}: try "
                "a lower --lowest, a lower --highest, or more --steps",
                *files,
            ])  # fmt: skip
        return "\n".join([
            f"suggested learning rate  {rate}, a tenth of {self.rates[lowest]:.2g}, where the loss was lowest: "
            f"{self.losses[lowest]:.4g}",
            f"to use it                train with --set training.optimizer.learning_rate={rate}, "
            f"or learning_rate: {rate} in training.optimizer of network.yaml",
            f"bounds of cycles         {low:.2g} and {high:.2g}: optimizer.cycle.lowest_rate and learning_rate of "
            "the schedule cyclic",
            *files,
        ])  # fmt: skip

    def draw(self, path: Path) -> None:
        """Write a picture of the loss over the rate, with the suggestion and the bounds, as SVG."""
        import matplotlib
        from matplotlib.figure import Figure

        style: dict = {"svg.hashsalt": "emsuite", "svg.fonttype": "none"}  # the same numbers give the same bytes
        with matplotlib.rc_context(style), atomic_path(path) as temporary:
            figure = Figure(figsize=(6, 4), layout="constrained")
            axes = figure.subplots()
            axes.plot(self.rates, self.losses, color="#1f2933")
            axes.axvspan(*self.bounds, color="#e4e7eb", label="bounds of cycles")
            axes.axvline(self.suggested, color="#c2185b", label=f"suggested, {self.suggested:.2g}")
            axes.set(xscale="log", xlabel="learning rate", ylabel="loss, running mean")
            axes.legend()
            figure.savefig(temporary, format="svg", metadata={"Date": None})

    def write(self, path: Path) -> None:
        """Write a CSV table of `learning_rate` and `loss`, the running mean."""
        with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["learning_rate", "loss"])
            writer.writerows(zip(self.rates, self.losses, strict=True))


def check_table(path: Path) -> None:
    """Raise BadInput if the table or its drawing, which has the name in .svg, cannot be written at a path."""
    if path.suffix.lower() == ".svg":
        raise BadInput(f"{path}: the drawing gets this name, expected another one for the table, as {path.stem}.csv")
    for file in (path, path.with_suffix(".svg")):
        if file.is_dir():
            raise BadInput(f"{file}: is a folder, expected a file")


def try_rates(
    folder: Path,
    config: NetworkConfig,
    volumes: Sequence[TrainingVolume],
    device: torch.device,
    limits: tuple[float, float],
    steps: int,
) -> RatesTried:
    """Train a fresh network for one iteration at each rate; end early if the loss blows up; save nothing.

    Args:
        folder: that of the network; its frozen network, if any, lies beside it.
        config: of the network.
        volumes: to train on.
        device: to train on.
        limits: lowest and highest rate.
        steps: number of rates, evenly spaced in their logarithm.

    Raises:
        BadInput: the network is one of domain transfer.
        RunFailed: the loss is no number at the lowest rate.
    """
    if config.transfer is not None:
        raise BadInput(
            f"{config.dataset}/{config.network}: networks of domain transfer play against each other, so that no loss "
            "tells a good rate; expected a supervised network"
        )
    training = config.training
    state = start(folder, config, device)
    kind = STEPS[config.step]
    share = BatchShare(0, training.batch_size // training.accumulate, training.accumulate)
    rates, losses, mean = np.geomspace(*limits, steps).tolist(), list[float](), 0.0
    made = kind.make_batches(state, config, on_device(volumes, device), share, range(1, steps + 1), device)
    with closing(made) as batches:
        for step, rate in enumerate(progress(rates, what="learning rates", total=steps), start=1):
            loss = float(kind.run(state, _with_rate(config, rate), batches, step).losses["loss"])
            mean = _MEMORY * mean + (1 - _MEMORY) * loss
            smooth = mean / (1 - _MEMORY**step)
            if not math.isfinite(smooth) or (losses and smooth > _BLOWN_UP * min(losses)):
                break
            losses.append(smooth)
    if not losses:
        raise RunFailed(f"{folder}: the loss is no number at the lowest learning rate, {limits[0]:g}")
    return RatesTried(rates[: len(losses)], losses)


def _with_rate(config: NetworkConfig, rate: float) -> NetworkConfig:
    changed = {"learning_rate": rate, "schedule": "constant", "cycle": None, "warm_up": 0}
    optimizer = config.training.optimizer.model_copy(update=changed)
    return config.model_copy(update={"training": config.training.model_copy(update={"optimizer": optimizer})})
