"""Switches that hold for a whole process: environment, memory allocator, standard output.

Only the program that owns the process may use them. Importing the library changes none of them, and neither does any
other function of the library.

    stage script       cli/command.py calls `set_up_process` first; the script's main adds the rest that it needs
    worker process     blockwise/worker.py, where the worker begins

`set_up_process` comes before NumPy and torch are loaded, so this module imports neither.

Why memory is kept: glibc requests each large block from the system and returns it when it is freed, and the system
clears every page of a new block. In a prediction of 320^3 voxels this took as long as the network itself (FIB-25
`small`: 5 of 11 s), in training a fifth of an iteration (15,000 pages in each).
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import TracebackType
from typing import Any, NoReturn

from emsuite.common.errors import in_lines
from emsuite.common.state.lock import is_running, this_process

_ENVIRONMENT = {
    # GNU OpenMP reads this when torch is loaded. By default a thread that waits for another one spins for some 5 ms,
    # on a core that other work could use: an iteration of `small` then takes a tenth longer.
    "GOMP_SPINCOUNT": "50000",
    # OpenBLAS reads this when NumPy or SciPy is loaded. The suite's matrix products are small, and several batches and
    # blocks are computed at once: the threads of each product would only wait for each other.
    "OPENBLAS_NUM_THREADS": "1",
    # torch then asks the driver's library whether there is a GPU. Its default way initialises CUDA, and a process that
    # has done so cannot fork workers that use a GPU.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # daisy's scheduler logs each failed attempt. The failure that counts is reported once, at the end.
    "RUST_LOG": "error",
}


def set_up_process() -> None:
    """Set the environment variables that the suite's programs run with; a variable that is already set stays.

    From then on, the traceback of an error that nobody handles shows names and URLs as all messages do.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    sys.excepthook = _show


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(in_lines("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def leave(code: int) -> NoReturn:
    """End the process with an exit code.

    A file that HDF5 could not write, as on a full disk, stays open, and HDF5 crashes where it writes it again at the
    exit of Python. Such a process ends without that.
    """
    hdf5 = sys.modules.get("h5py")
    if hdf5 is not None:
        kinds = hdf5.h5f.OBJ_ALL, hdf5.h5f.OBJ_FILE
        if any(file.get_intent() == hdf5.h5f.ACC_RDWR for file in hdf5.h5f.get_obj_ids(*kinds)):
            with contextlib.suppress(OSError):  # they may be files on that disk
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    sys.exit(code)


def stay_on_loopback() -> None:
    """Have processes that `torchrun` started on this machine alone listen on loopback; a set variable stays."""
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")


def take_out_of_environment(name: str) -> str:
    """Return an environment variable and remove it, so that programs that this process starts do not get it."""
    return os.environ.pop(name)


@contextmanager
def environment_with(name: str, text: str) -> Iterator[None]:
    """Set an environment variable within the block, for processes that are started there; it is as before behind it."""
    before = os.environ.get(name)
    os.environ[name] = text
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def make_cublas_deterministic() -> None:
    """Have cuBLAS compute the same bytes in every run; call this before the GPU is first used."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


_ENDS_WITH = "EMSUITE_ENDS_WITH"


def ends_with_this_process() -> dict[str, str]:
    """Return the environment in which steps end when this process does; the workflow sets it for its steps."""
    return {_ENDS_WITH: json.dumps(this_process())}


def end_with_workflow(every: float = 1.0) -> None:
    """End this process, by SIGTERM, when the workflow that started it ends, even by a kill.

    A step has a shell and `tee` between itself and the workflow, and perhaps a container, so that it looks after the
    process that its environment names, `every` so many seconds. Without that name, or where it is of another system
    or pid namespace, the process goes on alone.
    """
    workflow = json.loads(os.environ.get(_ENDS_WITH, "{}"))
    if is_running(workflow):
        threading.Thread(target=_watch, args=(workflow, every), daemon=True).start()


def _watch(workflow: dict[str, Any], every: float) -> None:
    while is_running(workflow):
        time.sleep(every)
    with contextlib.suppress(OSError):
        os.write(2, f"the workflow (process {workflow['pid']}) has ended: so does this step\n".encode())
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def silent_stdout() -> Iterator[None]:
    """Within the block, discard everything that is written to standard output, by Python and by C++.

    waterz prints its progress there, but a script's standard output is for its result alone.
    """
    sys.stdout.flush()
    stdout = os.dup(1)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)


# parameters of mallopt, as in malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 * 2**20}
_DEFAULTS = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 128 * 1024, _TOP_PAD: 128 * 1024}
"""glibc's own values. It no longer adapts them once one of them was set."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within the block, keep freed memory for later allocations; afterwards return it to the system."""
    _mallopt(_KEEP)
    try:
        yield
    finally:
        _mallopt(_DEFAULTS)
        library = _c_library()
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)


def keep_memory() -> None:
    """Keep freed memory for later allocations, until this process ends."""
    _mallopt(_KEEP)


def share_memory() -> None:
    """Use one malloc arena for all threads, so that memory freed by one thread can be reused by another.

    Call this before starting threads: a thread keeps the arena it was given. With one arena per thread, a long
    prediction used a third more memory.
    """
    _mallopt({_ARENA_MAX: 1})


def _mallopt(options: dict[int, int]) -> None:
    library = _c_library()
    if hasattr(library, "mallopt"):  # only glibc has it
        for option, value in options.items():
            library.mallopt(option, value)


def _c_library() -> Any:
    import ctypes  # not at the top: a script's --help comes without it

    return ctypes.CDLL(None)
