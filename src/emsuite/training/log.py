"""The record of a training run: a progress bar, losses in a table and in TensorBoard, pictures, snapshots.

A resumed run continues the table and the curves. Rows behind the checkpoint that it resumed from are dropped. A
snapshot is one sample with all that the network made of it, as a zarr container or an HDF5 file.
"""

import csv
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from emsuite.common.documents import read_text
from emsuite.common.errors import BadInput
from emsuite.common.files import atomic_path, naming, remove
from emsuite.common.profile import PartTime, as_table
from emsuite.common.progress import progress, roughly
from emsuite.config.network import NetworkConfig
from emsuite.io.single_file import PlacedVoxels, write_container
from emsuite.training.step import StepResult

_ESTIMATED_AFTER, _SECONDS_OF_ESTIMATE = 10, 20.0
"""Iterations, or seconds if they pass earlier, after which the time of the whole run is estimated."""
_LONG = 3600.0  # seconds
PARTS = (
    "sample", "reading", "warp", "intensity", "noise", "blur", "missing_sections", "copy", "targets", "boundary",
    "lsds", "affinities", "balance", "step", "forward", "loss", "backward", "update",
)  # fmt: skip
"""Of an iteration, in the order of a profile: of the batch first. Others come last."""
SNAPSHOTS = (".zarr", ".hdf")
"""Suffixes of snapshots, in zarr and in HDF5."""
_TYPES = {"labels": np.uint64, "a/labels": np.uint64, "mask": np.uint8}
"""Of the arrays of a snapshot; those of all others are float32."""
log = logging.getLogger(__name__)


class TrainingLog:
    """The files of the record: `log/losses.csv` and TensorBoard events in the folder of a network."""

    def __init__(self, folder: Path, losses: list[str], resumed_from: int):
        """Open both; drop rows behind the iteration `resumed_from`. `losses` names the columns of single losses."""
        self.path = Path(folder) / "log" / "losses.csv"
        self.columns = ["iteration", "loss", *losses, "learning_rate", "seconds", "waiting"]
        self.validation = self.path.with_name("validation.csv")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _begin_table(self.path, self.columns, resumed_from)
        if self.validation.exists():
            _begin_table(self.validation, ["iteration", "loss", *losses], resumed_from)
        with naming(self.path.parent):
            self.board = SummaryWriter(self.path.parent, purge_step=resumed_from + 1)

    def add(self, iteration: int, values: dict[str, float]) -> None:
        """Append one iteration.

        The table gets `loss`, the loss of each head, `learning_rate`, and per iteration `seconds` and the seconds spent
        `waiting` for batches. Other values go to TensorBoard alone.
        """
        with naming(self.path), open(self.path, "a", newline="") as file:
            _writer(file, self.columns).writerow({"iteration": iteration} | values)
        self.add_scalars(iteration, values)

    def add_validation(self, iteration: int, losses: Mapping[str, float]) -> None:
        """Append the losses of a validation to `validation.csv` and, as `validation/NAME`, to TensorBoard."""
        if not self.validation.exists():
            _begin_table(self.validation, ["iteration", *losses], 0)
        with naming(self.validation), open(self.validation, "a", newline="") as file:
            _writer(file, ["iteration", *losses]).writerow({"iteration": iteration, **losses})
        self.add_scalars(iteration, {f"validation/{name}": loss for name, loss in losses.items()})

    def add_scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """Append values of one iteration to TensorBoard alone."""
        with naming(self.path.parent):
            for name, value in values.items():
                self.board.add_scalar(name, value, iteration)

    def add_images(self, iteration: int, images: Mapping[str, Tensor]) -> None:
        """Append pictures `(1 or 3, Y, X)` in [0, 1] to TensorBoard."""
        with naming(self.path.parent):
            for name, image in images.items():
                self.board.add_image(name, image.detach().cpu().clamp(0, 1), iteration)

    def close(self) -> None:
        """Flush the events of TensorBoard."""
        with naming(self.path.parent):
            self.board.close()


def _writer(file: TextIO, columns: Sequence[str]) -> csv.DictWriter:
    return csv.DictWriter(file, columns, extrasaction="ignore", restval="", lineterminator="\n")


def _begin_table(path: Path, columns: Sequence[str], resumed_from: int) -> None:
    """Write the head of a table, and its rows up to an iteration."""
    rows = [row for row in read_losses(path) if row["iteration"] <= resumed_from] if resumed_from else []
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = _writer(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def read_losses(path: Path) -> list[dict[str, float]]:
    """Return the rows of a `losses.csv`: the iteration as int, other numbers as float; none if there is no file.

    Raise BadInput if it is no table of numbers.
    """
    if not path.exists():
        return []
    table = csv.DictReader(read_text(path, "a table of losses").splitlines())
    try:
        rows = [{key: float(value) for key, value in row.items() if value} for row in table]
        return [row | {"iteration": int(row["iteration"])} for row in rows]
    except (LookupError, OverflowError, TypeError, ValueError, csv.Error) as error:
        raise BadInput(
            f"{path}:{table.line_num}: no row of a table of losses ({error}); move it away, and a new one is begun"
        ) from None


class TrainingReport:
    """The record of the iterations behind `done`, with a progress bar."""

    def __init__(self, folder: Path, config: NetworkConfig, done: int, until: int, losses: Sequence[str]):
        """Open the log of the folder and show a bar from `done` to `until`; `losses` names the parts of the loss."""
        self._log = TrainingLog(folder, list(losses), done)
        self._bar = progress(what=f"train {config.dataset}/{config.network}", total=until, done=done)
        self._reported, self._at, self._waited = done, time.perf_counter(), 0.0
        self._until, self._resumed, self._done, self._began, self._estimated = until, done, 0, self._at, False

    def step(self) -> None:
        """Move the bar by one iteration. Once, after the first iterations, log how long a long run will take."""
        self._bar.update()
        self._done += 1
        elapsed = time.perf_counter() - self._began
        if not self._estimated and (self._done >= _ESTIMATED_AFTER or elapsed >= _SECONDS_OF_ESTIMATE):
            self._estimated = True
            each, left = elapsed / self._done, self._until - self._resumed - self._done
            if each * left >= _LONG:
                hint = "" if each < 5 or torch.cuda.is_available() else "; a network of this size is meant for a GPU"
                log.info(
                    "%s per iteration, and %s iterations to go: about %s%s",
                    roughly(each),
                    f"{left:,}",
                    roughly(each * left),
                    hint,
                )

    def add(self, iteration: int, losses: Mapping[str, float], rate: float, waited: float) -> None:
        """Log one iteration, and the time per iteration since the last call.

        Args:
            iteration: which iteration.
            losses: the loss, and that of each head.
            rate: the learning rate.
            waited: seconds that the run has waited for batches since it started.
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

    def add_validation(self, iteration: int, losses: Mapping[str, float], best: int) -> None:
        """Log the losses on held-out samples, and which iteration has the lowest one."""
        log.info("iteration %d: validation loss %.4f%s", iteration, losses["loss"],
                 ", the lowest" if best == iteration else f"; the lowest was that of {best}")  # fmt: skip
        self._log.add_validation(iteration, losses)

    def add_profile(self, iteration: int, times: Mapping[str, PartTime]) -> None:
        """Log a table of how long each part took up to an iteration; its means are curves `profile/PART`, ms."""
        parts = {part: times[part] for part in PARTS if part in times} | dict(times)
        for line in [f"what took how long, up to iteration {iteration}:", *as_table(parts).splitlines()]:
            log.info("%s", line)
        self._log.add_scalars(iteration, {f"profile/{part}": time.mean for part, time in parts.items()})

    def show(self, result: StepResult) -> None:
        """Log the middle sections of the first sample: raw, and of each head three channels of target and output."""
        images = {name: _section(panel[0].float()) for name, panel in result.panels.items()}
        images |= {} if images else {"raw": _section(result.batch.raw[0])}
        for name, target in () if result.panels else result.batch.targets.items():
            both = [_section(volume[0].float()) for volume in (target.values, result.outputs[name].values)]
            images[name] = torch.cat(both, dim=2)  # side by side
        self._log.add_images(result.batch.iteration, images)

    def close(self) -> None:
        """Close the bar and the log."""
        self._bar.close()
        self._log.close()


def _section(volume: Tensor) -> Tensor:
    """Return the middle section of (C, Z, Y, X): one channel (1, Y, X), or the first three channels as colours."""
    section = volume[:, volume.shape[1] // 2]
    return section[: 3 if len(section) >= 3 else 1]


def save_snapshot(folder: Path, config: NetworkConfig, result: StepResult, loss: float) -> Path:
    """Write the first sample of a batch, as a container beside the others in `snapshots/`, and return its path.

        raw, labels, mask                              the sample; labels with the boundary grown, over the output
        targets/HEAD, weights/HEAD, predictions/HEAD   of each head
        gradients/HEAD                                 of the loss with respect to the predictions, if they were kept
        read/lsds                                      the LSDs that an autocontext network read

    Of domain transfer, its panels, see `emsuite.training.transfer.panels`.

    Outputs lie in the middle of raw, in nm. Attributes of the container are `iteration` and `loss`. A snapshot under
    its final name is whole.

    Args:
        folder: that of the network, or a run folder.
        config: names the voxel size and the format.
        result: the outcome of an iteration.
        loss: of this iteration, over all samples.
    """
    around, size = result.batch.raw.shape[2:], config.voxel_size
    placed = {}
    for name, voxels in _arrays(config, result).items():
        array = voxels.detach().cpu().numpy()
        array = array.astype(_TYPES.get(name, np.float32))
        offset = [(n - m) // 2 * length for n, m, length in zip(around, array.shape[-3:], size, strict=True)]
        placed[name] = PlacedVoxels(array, offset)
    path, other = (Path(folder) / "snapshots" / f"batch_{result.batch.iteration}{suffix}" for suffix in SNAPSHOTS)
    if config.training.snapshot_format == "hdf5":
        path, other = other, path
    write_container(path, placed, size, iteration=result.batch.iteration, loss=loss)
    remove(other)  # of an earlier run, in the other format
    return path


def _arrays(config: NetworkConfig, result: StepResult) -> dict[str, Tensor]:
    """Return the arrays of a snapshot by name, of the first sample."""
    batch = result.batch
    if result.panels:
        return {name: panel[0] if panel.shape[1] > 1 else panel[0, 0] for name, panel in result.panels.items()}
    labels = next(iter(batch.targets.values())).labels[0]
    mask, (before, _) = batch.mask[0], config.target_maker.label_context
    for axis, size in enumerate(labels.shape):
        mask = mask.narrow(axis, before[axis], size)
    arrays = {"raw": batch.raw[0, 0], "labels": labels, "mask": mask}
    for name, target in batch.targets.items():
        output = result.outputs[name]
        arrays |= {f"targets/{name}": target.values[0], f"weights/{name}": target.weights[0]}
        arrays |= {f"predictions/{name}": output.values[0]}
        if output.gradient is not None:  # that of one pass of several counts its share of the batch
            arrays |= {f"gradients/{name}": output.gradient[0] * config.training.accumulate}
    return arrays | {f"read/{name}": values[0] for name, values in result.read.items()}
