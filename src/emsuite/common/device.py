"""The device that computes, how much memory it has, and the precision it computes in.

Whether the same computation gives the same bytes, or is done in whichever way is fastest.

How many cores torch may use.
"""

import fcntl
import os
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import torch
from torch.backends import cudnn

from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.memory import free_memory

_GIVEN_GPUS = ("SLURM_GPUS", "SLURM_GPUS_ON_NODE")  # how many
_COMPILERS = {"cpu": ("CXX", "g++"), "cuda": ("CC", "gcc", "clang")}  # as torch and triton look for them
_SHARE_OF_MEMORY = {"cpu": 0.5, "cuda": 0.7}  # others, and what is cached, need some


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one.

    Raises BadInput if there is none although `cuda` is asked for, or although this is a Slurm job that was given one:
    days on the CPU would be what nobody wanted.
    """
    if not torch.cuda.is_available():
        if name == "cuda":
            raise BadInput("--device cuda: torch sees no GPU here; use --device cpu or auto")
        given = next((variable for variable in _GIVEN_GPUS if os.environ.get(variable, "0") != "0"), None)
        if name == "auto" and given:
            raise BadInput(
                f"--device auto: Slurm gave this job a GPU ({given}={os.environ[given]}), but torch sees none; "
                "expected --nv (profiles/apptainer has it) and a torch built for CUDA, or --device cpu"
            )
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def count_workers(device: torch.device, wanted: int | None) -> int:
    """How many processes predict side by side: by default one for each GPU, or one on the CPU.

    Raises BadInput if more are `wanted` than there are GPUs.
    """
    if device.type != "cuda":
        return wanted or 1
    gpus = torch.cuda.device_count()
    if wanted is not None and wanted > gpus:
        raise BadInput(f"--workers {wanted}: torch sees {gpus} GPUs here, expected at most one worker for each")
    return wanted or gpus


def memory_to_use(device: torch.device, workers: int) -> int:
    """Bytes on the device that each of so many workers may take: a part of what is free, on GPUs of the least free."""
    if device.type != "cuda":
        return int(free_memory() / workers * _SHARE_OF_MEMORY["cpu"])
    if workers == 1:
        return int(_free_on_gpus(1)[0] * _SHARE_OF_MEMORY["cuda"])
    # asked in a process of its own: one that has used a GPU cannot be forked into workers that do
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        return int(min(pool.submit(_free_on_gpus, workers).result()) * _SHARE_OF_MEMORY["cuda"])


def _free_on_gpus(count: int) -> list[int]:
    return [torch.cuda.mem_get_info(number)[0] for number in range(count)]


def claim_gpu(folder: Path, count: int) -> torch.device:
    """One of the first `count` GPUs that no other process has claimed in `folder`; this one's until it ends."""
    for number in range(count):
        file = os.open(folder / f"gpu_{number}.lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        device = torch.device("cuda", number)  # the file stays open, and with it the lock held
        torch.cuda.set_device(device)
        return device
    raise RunFailed(f"{folder}: all {count} GPUs have been claimed by other workers")


def check_compiler(device: torch.device) -> None:
    """Raise BadInput where torch.compile would find no compiler: C for what starts a GPU's kernels, C++ on the CPU."""
    variable, *names = _COMPILERS[device.type]
    names = os.environ.get(variable, "").split()[:1] or names
    if not any(map(shutil.which, names)):
        raise BadInput(
            f"training.compile: true, but there is no {' or '.join(names)} here for {device.type}; expected a compiler "
            f"on PATH or in {variable} (an image built by 'containers/build cuda' has one for GPUs), or compile: false"
        )


@contextmanager
def autocast(device: torch.device, precision: torch.dtype) -> Iterator[None]:
    """Run convolutions in `precision`; float32 leaves everything as it is."""
    with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
        yield


# Overlapping windows would add up in any order; ours are as long as their stride.
_HARMLESS = ".*max_pool3d_with_indices_backward.*does not have a deterministic implementation"


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside, torch takes its deterministic algorithms; if not `wanted`, cuDNN's fastest, by trying them.

    What has no deterministic algorithm warns. On the CPU all that is used here is deterministic for a given number of
    threads, wanted or not.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.benchmark,
    )
    if wanted:
        torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.benchmark = not wanted
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _HARMLESS)
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.benchmark = before[2]


def use_one_core() -> None:
    """From now on torch's operations of the calling thread run on one core."""
    torch.set_num_threads(1)


@contextmanager
def one_core() -> Iterator[None]:
    """Inside, torch's operations of the calling thread run on one core.

    Many short operations gain little from more, and wait for each other by far the longest time where cores are busy:
    with eight processes on two cores, a sample took 0.5 s on one thread and 15 s on two.
    """
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
