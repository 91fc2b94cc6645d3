import pytest
import torch

from emsuite.device import pick_device
from emsuite.errors import BadInput


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("SLURM_GPUS", "SLURM_GPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)


def test_auto_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("auto").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda"
    assert pick_device("cpu").type == "cpu"


def test_a_gpu_that_is_not_there_is_missed() -> None:
    with pytest.raises(BadInput, match="--device cuda: torch sees no GPU here"):
        pick_device("cuda")


@pytest.mark.parametrize("variable", ["SLURM_GPUS", "SLURM_GPUS_ON_NODE"])
def test_a_gpu_that_slurm_gave_is_missed(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "0")
    assert pick_device("auto").type == "cpu"
    monkeypatch.setenv(variable, "1")
    with pytest.raises(BadInput, match=rf"Slurm gave this job a GPU \({variable}=1\), but torch sees none.*--nv"):
        pick_device("auto")
    assert pick_device("cpu").type == "cpu"
