"""Adam, its learning rate over the iterations, and the running average of the weights."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from emsuite.config.training import Cycle, Optimizer


def make_optimizer(parameters: list[nn.Parameter], settings: Optimizer) -> torch.optim.Adam:
    """Return Adam with fresh state (Kingma and Ba 2015)."""
    rate: float | Tensor = settings.learning_rate
    on_gpu = bool(parameters) and parameters[0].is_cuda
    if on_gpu:  # a recorded step reads the rate from the GPU
        rate = torch.tensor(rate, device=parameters[0].device)
    return torch.optim.Adam(parameters, rate, settings.betas, settings.eps, fused=True, capturable=on_gpu)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all weights."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def saved_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimizer's state for a checkpoint: the rate is a number, wherever it was kept."""
    state = optimizer.state_dict()
    return state | {"param_groups": [group | {"lr": float(group["lr"])} for group in state["param_groups"]]}


def learning_rate(settings: Optimizer, iteration: int, iterations: int) -> float:
    """Return the rate of the step that ends at `iteration` (the first step ends at 1).

    A linear warm-up from 0 comes first, then the schedule: constant, a straight line or half a cosine to 0 at
    `iterations`, or cycles, the first of which begins at its lowest rate.
    """
    rate = settings.learning_rate
    if iteration <= settings.warm_up:
        return rate * iteration / settings.warm_up
    if settings.cycle and settings.schedule == "cyclic":
        return _cyclic(settings.cycle, rate, iteration - settings.warm_up - 1)
    if settings.schedule == "constant":
        return rate
    done = min(1.0, (iteration - settings.warm_up) / max(1, iterations - settings.warm_up))
    return rate * (1.0 - done if settings.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done)))


def _cyclic(cycle: Cycle, highest: float, passed: int) -> float:
    """Return the rate after `passed` iterations of cycles: triangles, each lower by gamma (Smith 2017)."""
    number, place = divmod(passed, 2 * cycle.half)
    height = 1.0 - abs(place / cycle.half - 1.0)
    lower = cycle.gamma ** (number if cycle.gamma_by == "cycle" else passed)
    return cycle.lowest_rate + (highest - cycle.lowest_rate) * height * lower


@torch.no_grad()
def update_average(average: dict[str, Tensor], weights: Mapping[str, Tensor], decay: float, iteration: int) -> None:
    """Move `average` towards `weights` in place: faster at first, so that it forgets the initial weights."""
    decay = min(decay, iteration / (iteration + 9.0))
    smooth = [name for name, tensor in average.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in smooth], [weights[name] for name in smooth], 1.0 - decay)
    for name in average.keys() - smooth:
        average[name].copy_(weights[name])  # counters
