"""Free memory, of the machine and within a container's limit.

Memory that is kept: pages are not cleared anew for each large tensor, and go back in the end.
"""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emsuite.common import memory
from emsuite.common.memory import kept_memory


def test_memory_is_free_and_less_than_there_is() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < memory.free_memory() <= total


def test_a_container_has_what_its_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(memory, "_LIMITS", ((str(tmp_path / "none"), str(used)), (str(limit), str(used))))
    machine = memory.free_memory()
    used.write_text("1000000\n")
    limit.write_text("max\n")
    assert memory.free_memory() == pytest.approx(machine, rel=0.2)
    limit.write_text("1500000\n")
    assert memory.free_memory() == 500000
    limit.write_text("900000\n")
    assert memory.free_memory() == 0


PAGES = 64 * 2**20 // 4096  # of 64 MiB


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def allocate(times: int) -> int:
    """Make a large tensor so many times; returns how many pages had to be cleared."""
    before = faults()
    for _ in range(times):
        torch.ones(PAGES * 1024)
    return faults() - before


def test_memory_is_used_again_and_goes_back_in_the_end() -> None:
    with kept_memory():
        allocate(20)  # glibc needs a few until the gaps suit
        assert allocate(10) < 3 * PAGES
        held = resident()
    assert held - resident() > PAGES / 2
    assert allocate(10) >= 10 * PAGES / 512  # pages of 2 MiB where the system gives those


COUNTED = """
import ctypes, re, threading
from emsuite.common.memory import share_memory
if {shared}:
    share_memory()
ready = threading.Barrier(4)
def hold():
    kept = [bytearray(20_000) for _ in range(50)]
    ready.wait(60)
threads = [threading.Thread(target=hold) for _ in range(4)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
library = ctypes.CDLL(None)
library.fopen.restype = ctypes.c_void_p
file = library.fopen(b"{path}", b"w")
library.malloc_info(0, ctypes.c_void_p(file)), library.fclose(ctypes.c_void_p(file))
print(len(re.findall("<heap", open("{path}").read())))
"""


@pytest.mark.parametrize(("shared", "expected"), [(True, {1}), (False, set(range(2, 9)))])
def test_threads_take_memory_from_one_place_once_it_is_shared(tmp_path: Path, shared: bool, expected: set[int]) -> None:
    program = COUNTED.format(shared=shared, path=tmp_path / "info.xml")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) in expected
