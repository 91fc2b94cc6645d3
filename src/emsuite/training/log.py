"""Losses over iterations, for people (TensorBoard) and for programs (CSV), going on where a resumed run goes on.

What a training run says of itself: progress bar, losses and rates, pictures.
"""

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from emsuite.common.files import atomic_path, naming
from emsuite.common.progress import progress
from emsuite.config.network import NetworkConfig
from emsuite.losses.target import Target


class TrainingLog:
    """`log/losses.csv` and TensorBoard events in a network's folder; rows behind `resumed_from` are dropped first."""

    def __init__(self, folder: Path, losses: list[str], resumed_from: int):
        self.path = Path(folder) / "log" / "losses.csv"
        self.columns = ["iteration", "loss", *losses, "learning_rate", "seconds", "waiting"]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [row for row in read_losses(self.path) if row["iteration"] <= resumed_from] if resumed_from else []
        with atomic_path(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = self._writer(file)
            writer.writeheader()
            writer.writerows(rows)
        with naming(self.path.parent):
            self.board = SummaryWriter(self.path.parent, purge_step=resumed_from + 1)

    def add(self, iteration: int, values: dict[str, float]) -> None:
        """Append one iteration: `loss`, a loss per head, `learning_rate`, `seconds` and the part spent `waiting`.

        Other values go to TensorBoard alone.
        """
        with naming(self.path), open(self.path, "a", newline="") as file:
            self._writer(file).writerow({"iteration": iteration} | values)
        with naming(self.path.parent):
            for name, value in values.items():
                self.board.add_scalar(name, value, iteration)

    def add_images(self, iteration: int, images: Mapping[str, Tensor]) -> None:
        """Append pictures `(1 or 3, Y, X)`, 0 to 1, to TensorBoard."""
        with naming(self.path.parent):
            for name, image in images.items():
                self.board.add_image(name, image.detach().cpu().clamp(0, 1), iteration)

    def close(self) -> None:
        """Flush what TensorBoard still holds."""
        with naming(self.path.parent):
            self.board.close()

    def _writer(self, file: TextIO) -> csv.DictWriter:
        return csv.DictWriter(file, self.columns, extrasaction="ignore", restval="", lineterminator="\n")


def read_losses(path: Path) -> list[dict[str, float]]:
    """The rows of a `losses.csv`, numbers as floats (the iteration whole); empty if there is no such file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [row | {"iteration": int(row["iteration"])} for row in rows]


class TrainingReport:
    """Reports on the iterations from `done` on."""

    def __init__(self, folder: Path, config: NetworkConfig, done: int, until: int):
        """Opens the folder's log and shows a bar."""
        self._log = TrainingLog(folder, list(config.heads), done)
        self._bar = progress(what=f"train {config.dataset}/{config.network}", total=until, done=done)
        self._reported, self._at, self._waited = done, time.perf_counter(), 0.0

    def step(self) -> None:
        """Move the bar on by one iteration."""
        self._bar.update()

    def add(self, iteration: int, losses: Mapping[str, float], rate: float, waited: float) -> None:
        """Log losses and learning rate of `iteration`, and what the iterations since the last such report took.

        `waited` is how many seconds the run has waited for batches, all in all.
        """
        now, steps = time.perf_counter(), iteration - self._reported
        seconds, waiting = (now - self._at) / steps, (waited - self._waited) / steps
        self._reported, self._at, self._waited = iteration, now, waited
        share = waiting / seconds
        self._bar.set_postfix(loss=f"{losses['loss']:.4f}", waiting=f"{share:.0%}", refresh=False)
        values = {"learning_rate": rate, "seconds": seconds, "waiting": waiting}
        values |= {"iterations_per_second": 1 / seconds, "waiting_share": share}
        if torch.cuda.is_available():
            values["gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self._log.add(iteration, dict(losses) | values)

    def show(
        self, iteration: int, raw: Tensor, targets: Mapping[str, Target], predictions: Mapping[str, Tensor]
    ) -> None:
        """Log the middle sections of a batch's first sample: raw, and three channels of each head by its target.

        `raw` (B, Z, Y, X) and `predictions` (B, C, Z, Y, X), 0 to 1.
        """
        images = {"raw": _section(raw[:1])}
        for name, target in targets.items():
            both = [_section(volume[0].float()) for volume in (target.values, predictions[name])]
            images[name] = torch.cat(both, dim=2)  # side by side
        self._log.add_images(iteration, images)

    def close(self) -> None:
        """End bar and log."""
        self._bar.close()
        self._log.close()


def _section(volume: Tensor) -> Tensor:
    """(C, Z, Y, X) -> its middle section (1, Y, X), or the first three channels of it, as colours."""
    section = volume[:, volume.shape[1] // 2]
    return section[: 3 if len(section) >= 3 else 1]
