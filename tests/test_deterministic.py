"""Deterministic algorithms, and what was set before them."""

import pytest
import torch
from torch.backends import cudnn

from emsuite.deterministic import deterministic


@pytest.mark.parametrize("wanted", [False, True])
def test_torch_is_told_and_all_is_as_before_afterwards(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark
    with deterministic(wanted):
        assert torch.are_deterministic_algorithms_enabled() == wanted
        assert cudnn.benchmark != wanted
    assert (torch.are_deterministic_algorithms_enabled(), cudnn.benchmark) == before
