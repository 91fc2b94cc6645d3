"""Files that claim to be checkpoints: one line each, before anything is built from them."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from emsuite.common.errors import BadInput
from emsuite.config.training import Optimizer
from emsuite.training.checkpoint import Checkpoint, load_optimizer, read, save
from emsuite.training.optimizer import make_optimizer

HUGE = torch.zeros(1).as_strided((2**40,), (0,))
"""A tensor of four bytes that claims to hold four terabytes."""


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save(tmp_path, Checkpoint(iteration=3, architecture={"a": 1}, networks={"network": {"w": torch.ones(2)}}))


@pytest.mark.parametrize(
    "spoilt",
    [
        {"iteration": "x"}, {"iteration": 1.5}, {"iteration": -1}, {"iteration": 2**70}, {"iteration": None},
        {"iteration": True}, {"iteration": torch.tensor(3)}, {"format": 3}, {"format": "2"}, {"format": torch.ones(2)},
        {"networks": {"network": [torch.ones(2)]}}, {"networks": {"network": {1: torch.ones(2)}}}, {"networks": 3},
        {"networks": {"network": {"w": 1.0}}}, {"networks": {"network": {"w": HUGE}}}, {"averages": {"network": 3}},
        {"networks": {"network": {"w": torch.ones(2).to_sparse()}}}, {"averages": {"network": {"w": HUGE}}},
        {"networks": {"network": {"w": torch.empty(2, device="meta")}}}, {"architecture": {1: 2}},
        {"architecture": {"a": torch.ones(2)}}, {"architecture": deep(100)}, {"architecture": {"a": deep(100)}},
        {"frozen_digest": torch.ones(1)}, {"normalization": 3}, {"normalization": {"settings": {}}},
        {"normalization": {"settings": 3, "grey_scale": None}}, {"provenance": []}, {"provenance": {"a": {1: 2}}},
        {"normalization": {"settings": {}, "grey_scale": [1, 2, 3]}}, {"other": 1}, {"optimizers": []},
        {"normalization": {"settings": {}, "grey_scale": [1, float("nan")]}},
        {"normalization": {"settings": {}, "grey_scale": ["1", "2"]}},
    ],
    ids=str,
)  # fmt: skip
def test_parts_of_other_types(file: Path, spoilt: dict) -> None:
    torch.save(torch.load(file, weights_only=True) | spoilt, file)
    with pytest.raises(BadInput, match="not a whole checkpoint of this suite"):
        read(file)


def test_parts_that_are_missing(file: Path) -> None:
    whole = torch.load(file, weights_only=True)
    for key in ("format", "iteration", "architecture", "networks"):
        torch.save({name: value for name, value in whole.items() if name != key}, file)
        with pytest.raises(BadInput, match="not a whole checkpoint of this suite"):
            read(file)
    torch.save(whole, file)
    assert read(file).iteration == 3


def compressed(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def bomb(file: Path) -> None:
    """Every part inflates to a gigabyte."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in names:
            with archive.open(name, "w") as part:
                for _ in range(256 if name.endswith("data.pkl") else 1):
                    part.write(bytes(2**20))


def overlapping(file: Path) -> None:
    """A thousand entries of the directory point at the same bytes."""
    with zipfile.ZipFile(file, "a") as archive:
        part = max(archive.infolist(), key=lambda part: part.file_size)
        archive.infolist().extend([part] * 1000)
        archive._didModify = True  # type: ignore[attr-defined]


def longer_than_it_is(file: Path) -> None:
    content = bytearray(file.read_bytes())
    entry = content.rfind(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = (2**31).to_bytes(4, "little") * 2
    file.write_bytes(content)


def test_archives_that_are_larger_inside(file: Path, tmp_path: Path) -> None:
    """In a process that may take a quarter of a gigabyte more than its imports."""
    files = []
    for spoil in (compressed, bomb, overlapping, longer_than_it_is):
        files.append(tmp_path / f"{spoil.__name__}.pt")
        files[-1].write_bytes(file.read_bytes())
        spoil(files[-1])
        assert files[-1].stat().st_size < 2**21
    program = """
import resource, sys
from pathlib import Path
from emsuite.common.errors import BadInput
from emsuite.training.checkpoint import read
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
for name in sys.argv[1:]:
    try:
        read(Path(name))
    except BadInput as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", program, *files], capture_output=True, text=True, timeout=120)
    assert run.stdout.count("not a whole checkpoint of this suite") == len(files), run.stdout + run.stderr


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("pipe", "is no regular file"), ("", "is a folder"), ("none", "no such file")):
        with pytest.raises(BadInput, match=f"{words}; expected a checkpoint"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "state",
    [
        {}, {"state": 3}, {"state": {0: 3}}, {"state": {0: {}}}, {"state": {7: {"step": torch.tensor(1.0)}}},
        {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(2)}}},
        {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2) * torch.nan}}},
        {"state": {0: {"step": torch.ones(5), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}}},
        {"state": {0: {"step": "x", "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}}},
    ],
    ids=str,
)  # fmt: skip
def test_states_of_optimizers_that_do_not_fit(state: dict) -> None:
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(2))], Optimizer())
    with pytest.raises(BadInput, match=r"^c: its optimizer does not fit the network: "):
        load_optimizer(optimizer, state, Path("c"))


def test_the_settings_of_an_optimizer_are_those_of_the_configuration() -> None:
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(2))], Optimizer(betas=(0.5, 0.6)))
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}
    load_optimizer(optimizer, {"state": {0: moments}, "param_groups": [{"lr": "x", "betas": None}]}, Path("c"))
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.6)
    assert torch.equal(next(iter(optimizer.state.values()))["exp_avg"], torch.ones(2))
