"""Losses over iterations, for people (TensorBoard) and for programs (CSV), going on where a resumed run goes on."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from emsuite.files import atomic_path, naming


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
