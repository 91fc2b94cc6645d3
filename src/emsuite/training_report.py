"""What a training run says of itself: progress bar, losses and rates, pictures."""

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from emsuite.losses import Target
from emsuite.network_config import NetworkConfig
from emsuite.progress import progress
from emsuite.training_log import TrainingLog


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
