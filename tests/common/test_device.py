"""The choice of a device, its workers and memory; deterministic algorithms and torch's threads."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from torch.backends import cuda, cudnn

from emsuite.common import device
from emsuite.common.device import (
    Precision,
    check_compiler,
    claim_gpu,
    computing_in,
    count_workers,
    deterministic,
    in_pieces,
    memory_to_use,
    one_core,
    pick_device,
    tensor_float_32,
)
from emsuite.common.errors import BadInput, RunFailed


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


@pytest.mark.parametrize(("kind", "variable", "names"), [("cpu", "CXX", "g++"), ("cuda", "CC", "gcc or clang")])
def test_a_compiler_that_is_not_there_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, variable: str, names: str
) -> None:
    place = torch.device(kind)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(BadInput, match=rf"training\.compile: true, but there is no {re.escape(names)} here for {kind}"):
        check_compiler(place)
    (tmp_path / names.split()[-1]).write_text("#!/bin/sh\n")
    (tmp_path / names.split()[-1]).chmod(0o755)
    check_compiler(place)
    monkeypatch.setenv(variable, "mine -flag")
    with pytest.raises(BadInput, match="there is no mine here"):
        check_compiler(place)


def test_one_process_on_the_cpu_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count_workers(torch.device("cpu"), None) == 1
    assert count_workers(torch.device("cpu"), 3) == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert count_workers(torch.device("cuda"), None) == 4
    assert count_workers(torch.device("cuda"), 2) == 2
    with pytest.raises(BadInput, match="--workers 5: torch sees 4 GPUs here"):
        count_workers(torch.device("cuda"), 5)


def test_workers_share_what_memory_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "free_memory", lambda: 8_000)
    assert memory_to_use(torch.device("cpu"), 1) == 4_000
    assert memory_to_use(torch.device("cpu"), 4) == 1_000
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: ([100, 50, 200][number], 1_000))
    assert memory_to_use(torch.device("cuda"), 1) == 70
    assert memory_to_use(torch.device("cuda"), 3) == 35  # asked in another process


def test_each_worker_claims_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    with ProcessPoolExecutor(1, get_context("fork")) as other:
        assert other.submit(claim_gpu, tmp_path, 3).result().index == 0
        assert [claim_gpu(tmp_path, 3).index for _ in range(2)] == [1, 2]
        with pytest.raises(RunFailed, match="all 3 GPUs have been claimed"):
            claim_gpu(tmp_path, 3)
    assert claim_gpu(tmp_path, 3).index == 0  # the other process has ended
    assert [device.index for device in taken] == [1, 2, 0]


@pytest.mark.parametrize("wanted", [False, True])
def test_torch_is_told_and_all_is_as_before_afterwards(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark
    with deterministic(wanted):
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ  # left to the program
        assert torch.are_deterministic_algorithms_enabled() == wanted
        assert cudnn.benchmark != wanted
    assert (torch.are_deterministic_algorithms_enabled(), cudnn.benchmark) == before


def test_one_inside_and_as_many_as_before_outside():
    before = torch.get_num_threads()
    with one_core():
        assert torch.get_num_threads() == 1
        with one_core():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="inside"), one_core():
        raise ValueError("inside")
    assert torch.get_num_threads() == before


def test_other_threads_keep_theirs():
    before, entered, leave = torch.get_num_threads(), threading.Event(), threading.Event()

    def work() -> int:
        with one_core():
            entered.set()
            leave.wait(60)
            return torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        inside = pool.submit(work)
        assert entered.wait(60)
        assert torch.get_num_threads() == before
        leave.set()
        assert inside.result() == 1
        assert pool.submit(torch.get_num_threads).result() == before


def tf32_flags() -> tuple[bool, bool]:
    return cuda.matmul.allow_tf32, cudnn.allow_tf32


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("before", [False, True])
def test_tensor_float_32_where_it_is_asked_for_alone(precision: Precision, before: bool) -> None:
    cpu, features = torch.device("cpu"), torch.ones((1, 1, 2, 2, 2))
    with tensor_float_32(before):
        with computing_in(cpu, precision):
            assert tf32_flags() == ((True, True) if precision == "tf32" else (False, False))
            made = torch.nn.functional.conv3d(features, features)
        assert made.dtype == (torch.bfloat16 if precision == "bfloat16" else torch.float32)
        assert tf32_flags() == (before, before)
        with pytest.raises(RuntimeError), computing_in(cpu, precision):
            raise RuntimeError
        assert tf32_flags() == (before, before)
    assert torch.nn.functional.conv3d(features, features).dtype == torch.float32


def test_torch_by_itself_would_use_tensor_float_32_for_convolutions() -> None:
    """The reason for the switch; if torch changes its mind, the switch can go."""
    command = "import torch; print(torch.backends.cudnn.allow_tf32)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.fixture
def three_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_cores")
def test_pieces_are_worked_on_at_once_and_each_on_one_core() -> None:
    meeting = threading.Barrier(3, timeout=30)
    cores = list[int]()

    def work(number: int) -> None:
        meeting.wait()  # passes only if three pieces are worked on at once
        cores.append(torch.get_num_threads())

    in_pieces(work, range(9), torch.device("cpu"))
    assert cores == [1] * 9
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3


@pytest.mark.usefixtures("three_cores")
@pytest.mark.parametrize("count", [0, 1, 4])
def test_few_pieces_and_one_core(count: int) -> None:
    done, callers = list[int](), set[int]()

    def work(number: int) -> None:
        done.append(number)
        callers.add(threading.get_ident())
        assert torch.get_num_threads() == 1

    in_pieces(work, range(count), torch.device("cpu"))
    assert sorted(done) == list(range(count))
    done.clear()
    callers.clear()
    with one_core():
        in_pieces(work, range(count), torch.device("cpu"))
    assert done == list(range(count))
    assert callers <= {threading.get_ident()}


@pytest.mark.usefixtures("three_cores")
def test_an_error_in_a_piece_is_raised() -> None:
    def work(number: int) -> None:
        if number == 2:
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        in_pieces(work, range(5), torch.device("cpu"))
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_cores")
def test_pieces_fill_tensors_of_inference_mode() -> None:
    with torch.inference_mode():
        result = torch.zeros(4)
        in_pieces(lambda number: result[number].add_(number), range(4), torch.device("cpu"))
        assert result.tolist() == [0, 1, 2, 3]
