"""The learning rate over the iterations: by hand, and beside torch's own cycles."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.optim.lr_scheduler import CyclicLR

from emsuite.config.training import Optimizer
from emsuite.training.optimizer import learning_rate


def rates(iterations: int, **settings: Any) -> list[float]:
    optimizer = Optimizer.model_validate({"learning_rate": 0.8} | settings)
    return [learning_rate(optimizer, iteration, iterations) for iteration in range(1, iterations + 1)]


def test_schedules_by_hand() -> None:
    assert rates(4) == [0.8] * 4
    assert rates(4, schedule="linear") == pytest.approx([0.6, 0.4, 0.2, 0])
    assert rates(4, schedule="cosine") == pytest.approx([0.4 * (1 + math.cos(math.pi * i / 4)) for i in (1, 2, 3, 4)])
    assert rates(6, schedule="linear", warm_up=2) == pytest.approx([0.4, 0.8, 0.6, 0.4, 0.2, 0])
    cycle = {"lowest_rate": 0.2, "half": 2}
    assert rates(9, schedule="cyclic", cycle=cycle) == pytest.approx([0.2, 0.5, 0.8, 0.5] * 2 + [0.2])
    falling = rates(9, schedule="cyclic", cycle=cycle | {"gamma": 0.5}, warm_up=1)
    assert falling == pytest.approx([0.8, 0.2, 0.5, 0.8, 0.5, 0.2, 0.35, 0.5, 0.35])


@pytest.mark.parametrize(("gamma", "by"), [(1.0, "cycle"), (0.7, "cycle"), (0.98, "iteration")])
def test_cycles_are_torchs(gamma: float, by: str) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], 0.1)
    scale = (lambda x: gamma ** (x - 1)) if by == "cycle" else (lambda x: gamma**x)
    mode = "cycle" if by == "cycle" else "iterations"
    theirs = CyclicLR(optimizer, 0.1, 0.8, 7, scale_fn=scale, scale_mode=mode, cycle_momentum=False)
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    cycle = {"lowest_rate": 0.1, "half": 7, "gamma": gamma, "gamma_by": by}
    assert rates(40, schedule="cyclic", cycle=cycle) == pytest.approx(expected)


@pytest.mark.parametrize(("settings", "message"), [
    ({"schedule": "cyclic"}, "expected `cycle` with the schedule cyclic"),
    ({"cycle": {"lowest_rate": 0.1, "half": 3}}, "schedule constant, expected"),
    ({"schedule": "cyclic", "cycle": {"lowest_rate": 0.9, "half": 3}}, "expected less than learning_rate, 0.8"),
    ({"schedule": "cyclic", "cycle": {"lowest_rate": 0.1, "half": 0}}, "greater than 0"),
])  # fmt: skip
def test_schedules_that_do_not_fit(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        rates(3, **settings)
