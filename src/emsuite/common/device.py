"""The device of a computation: CPU or GPU, its memory, its workers, and how torch computes on it.

choice       pick_device, check_compiler, has_triton, runs_triton
workers      count_workers, memory_to_use, claim_gpu
graphs       CAPTURE
torch        computing_in, tensor_float_32 (precision), deterministic (same bytes or highest speed), one_core, in_pieces
"""

import fcntl
import os
import re
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch.backends import cuda, cudnn

from emsuite.common.errors import BadInput, RunFailed

_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Files that hold the limit and the use of a container or cluster job, in version 2 and 1 of Linux control groups."""


def free_memory() -> int:
    """Return the bytes that are free on this machine, or within the limit of the container or job if that is less."""
    available = re.search(r"^MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    free = [int(available[1]) * 1024] if available else []
    for limit, used in _LIMITS:
        if _read(limit).strip().isdigit():
            free.append(int(_read(limit)) - int(_read(used) or 0))
    return max(0, min(free, default=2**63))


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


_SLURM_GPUS = ("SLURM_GPUS", "SLURM_GPUS_ON_NODE")
"""Variables that hold the number of GPUs of a Slurm job."""
_COMPILERS = {"cpu": ("CXX", "g++"), "cuda": ("CC", "gcc", "clang")}
"""The variable that names a compiler, and the compilers on PATH, in the order in which torch and triton look."""
_MOST_PIECES = 8
"""Pieces of a computation that are worked on at once, at most: each needs memory of its own."""
Piece = TypeVar("Piece")
CAPTURE = threading.Lock()
"""Held by the thread that records a CUDA graph: two recordings at once would disturb each other.

Whoever records takes it before `capture_begin` or `torch.cuda.graph`, with `capture_error_mode="thread_local"`, and
gives it back behind the end of the recording. Other threads may launch kernels meanwhile, on other streams, and take
memory; they need not hold it.
"""
_SHARE_OF_MEMORY = {"cpu": 0.5, "cuda": 0.7}
"""Of the free memory; the rest is for other processes and for caches."""


def pick_device(name: str) -> torch.device:
    """Return the device that `--device` names; `auto` is the GPU if torch sees one, otherwise the CPU.

    A process that forks workers for GPUs later must have called `emsuite.common.process.set_up_process` before.

    Raises:
        BadInput: torch sees no GPU, but `name` is `cuda`, or it is `auto` in a Slurm job that has a GPU. Such a job
            would otherwise compute on the CPU for days before somebody notices.
    """
    if not torch.cuda.is_available():
        if name == "cuda":
            raise BadInput("--device cuda: torch sees no GPU here; use --device cpu or auto")
        variable = next((variable for variable in _SLURM_GPUS if os.environ.get(variable, "0") != "0"), None)
        if name == "auto" and variable:
            raise BadInput(
                f"--device auto: Slurm gave this job a GPU ({variable}={os.environ[variable]}), but torch sees none; "
                "expected --nv (profiles/apptainer has it) and a torch built for CUDA, or --device cpu"
            )
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def count_workers(device: torch.device, workers: int | None) -> int:
    """Return the number of worker processes: `workers` if it is set, otherwise one for each GPU, or one on the CPU.

    Raise BadInput if `workers` is larger than the number of GPUs.
    """
    if device.type != "cuda":
        return workers or 1
    gpus = torch.cuda.device_count()
    if workers is not None and workers > gpus:
        raise BadInput(f"--workers {workers}: torch sees {gpus} GPUs here, expected at most one worker for each")
    return workers or gpus


def memory_to_use(device: torch.device, workers: int) -> int:
    """Return the bytes of the device's memory that each worker may use: a share of the free memory.

    On GPUs, that with the least free memory counts for all.
    """
    if device.type != "cuda":
        return int(free_memory() / workers * _SHARE_OF_MEMORY["cpu"])
    if workers == 1:
        return int(_free_on_gpus(1)[0] * _SHARE_OF_MEMORY["cuda"])
    # in a process of its own: a process that has used a GPU cannot fork workers that use one
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        return int(min(pool.submit(_free_on_gpus, workers).result()) * _SHARE_OF_MEMORY["cuda"])


def _free_on_gpus(count: int) -> list[int]:
    return [torch.cuda.mem_get_info(number)[0] for number in range(count)]


def claim_gpu(folder: Path, count: int) -> torch.device:
    """Claim one of the first `count` GPUs for this process, until it ends, and make it torch's current device.

    Processes that share `folder` claim different GPUs. Raise RunFailed if all are claimed.
    """
    for number in range(count):
        file = os.open(folder / f"gpu_{number}.lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        device = torch.device("cuda", number)  # the file stays open, which keeps the lock
        torch.cuda.set_device(device)
        return device
    raise RunFailed(f"{folder}: all {count} GPUs have been claimed by other workers")


def _compilers(device: str) -> list[str]:
    """Return the names of the compilers that are looked for."""
    variable, *names = _COMPILERS[device]
    return os.environ.get(variable, "").split()[:1] or names


@lru_cache(maxsize=1)
def has_triton() -> bool:
    """Return whether Triton's kernels can run on a GPU here: it is installed, and a C compiler, which starts them."""
    return find_spec("triton") is not None and any(map(shutil.which, _compilers("cuda")))


def runs_triton(tensor: torch.Tensor) -> bool:
    """Return whether Triton's kernels can compute with a tensor in bfloat16: on GPUs from Ampere on (2020)."""
    return tensor.is_cuda and has_triton() and _capability(tensor.device) >= (8, 0)


@lru_cache
def _capability(gpu: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(gpu)


def check_compiler(device: torch.device) -> None:
    """Raise BadInput if torch.compile would find no compiler: C++ for the CPU, C to start the kernels of a GPU."""
    variable, names = _COMPILERS[device.type][0], _compilers(device.type)
    if not any(map(shutil.which, names)):
        raise BadInput(
            f"training.compile: true, but there is no {' or '.join(names)} here for {device.type}; expected a compiler "
            f"on PATH or in {variable} (an image built by 'containers/build cuda' has one for GPUs), or compile: false"
        )


Precision = Literal["float32", "tf32", "bfloat16"]
"""How convolutions and matrix products compute: see `computing_in`."""


@contextmanager
def computing_in(device: torch.device, precision: Precision) -> Iterator[None]:
    """Within the block, torch runs convolutions and matrix products in `precision`.

    float32: in float32, on a GPU as well, where torch by itself would let cuDNN round factors to TensorFloat-32.
    tf32: a GPU may round factors to TensorFloat-32 (10 bits after the point); a CPU computes in float32.
    bfloat16: forward passes in bfloat16, as torch.autocast does; weights stay float32.
    """
    with (
        tensor_float_32(precision == "tf32"),
        torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        yield


@contextmanager
def tensor_float_32(allowed: bool) -> Iterator[None]:
    """Within the block, a GPU may, or may not, round the factors of convolutions and products to TensorFloat-32.

    Backward passes belong into the block as well: torch asks when it computes them.
    """
    before = cuda.matmul.allow_tf32, cudnn.allow_tf32
    cuda.matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        cuda.matmul.allow_tf32, cudnn.allow_tf32 = before


# Gradients of overlapping windows would be added in any order. Our windows do not overlap.
_HARMLESS = ".*max_pool3d_with_indices_backward.*does not have a deterministic implementation"


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Within the block, torch uses its deterministic algorithms; if not `enabled`, the fastest of cuDNN's, by trial.

    An operation without a deterministic algorithm warns. For cuBLAS, the program must have called
    `emsuite.common.process.make_cublas_deterministic` before it used the GPU. On the CPU every operation of the suite
    is deterministic for a given number of threads in any case.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.benchmark,
    )
    if enabled:
        torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.benchmark = not enabled
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _HARMLESS)
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.benchmark = before[2]


def use_one_core() -> None:
    """Let torch's operations of the calling thread run on one core, until the thread ends."""
    torch.set_num_threads(1)


@contextmanager
def one_core() -> Iterator[None]:
    """Within the block, torch's operations of the calling thread run on one core.

    Many short operations gain little from more cores, and their threads wait for each other where cores are busy: with
    eight processes on two cores, a sample took 0.5 s on one thread and 15 s on two.
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


def in_pieces(work: Callable[[Piece], object], pieces: Sequence[Piece], device: torch.device) -> None:
    """Call `work` with each of the `pieces`, which are independent, and return after the last of them.

    On a CPU each piece runs on one core, and as many run at once as the calling thread has cores for torch, eight at
    the most. A thread takes its next piece without waiting for the others. Where torch shares out each operation
    instead, its threads meet at the end of every operation: beside another busy program, short operations take ten
    times as long on two cores as on one.

    Args:
        work: works on one piece. It is called in other threads; what it returns is dropped.
        pieces: the pieces, the largest first where they differ.
        device: the device of the work. On a GPU the calling thread does all of it.

    Raises:
        Whatever `work` raises; pieces that have not begun are left.
    """
    threads = min(torch.get_num_threads(), len(pieces), _MOST_PIECES)
    if device.type != "cpu" or threads < 2:
        with one_core():
            for piece in pieces:
                work(piece)
        return
    inference = torch.is_inference_mode_enabled()

    def in_thread(piece: Piece) -> None:
        with torch.inference_mode(inference):
            work(piece)

    # new threads take over the number of cores that was set last
    with one_core(), ThreadPoolExecutor(threads, "piece", use_one_core) as pool:
        for _ in pool.map(in_thread, pieces):
            pass
