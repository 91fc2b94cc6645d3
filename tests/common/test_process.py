"""Switches of a whole process: its environment, its standard output, and its allocator, as glibc's own counts show it.

What the allocator does is looked at in processes of their own, with one thread: other tests' threads would count.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emsuite.common import process
from emsuite.common.process import make_cublas_deterministic, set_up_process, silent_stdout


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"GOMP_SPINCOUNT": "7"})
    set_up_process()
    assert os.environ == process._ENVIRONMENT | {"GOMP_SPINCOUNT": "7"}
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"
    make_cublas_deterministic()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    del os.environ["CUBLAS_WORKSPACE_CONFIG"]
    make_cublas_deterministic()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def open_files() -> dict[str, str]:
    """Numbers of the open file descriptors, and what each leads to."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        if os.path.lexists(link := f"/proc/self/fd/{number}"):  # that of the listing is closed by now
            found[number] = os.readlink(link)
    return found


def test_nothing_is_written_to_stdout_while_it_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    before = open_files()
    os.write(1, b"first\n")
    with silent_stdout():
        os.write(1, b"as C++ writes\n")
        print("as Python writes")
        os.write(2, b"an error\n")
    with pytest.raises(ValueError, match="inside"), silent_stdout():
        raise ValueError("inside")
    print("last")
    assert capfd.readouterr() == ("first\nlast\n", "an error\n")
    assert open_files() == before


ALLOCATE = """
import ctypes, json, re, torch
from emsuite.common.process import kept_memory

SIZE = 64 * 2**20  # bytes, far above the 32 MiB up to which glibc adapts the size from which it maps blocks

class Info(ctypes.Structure):  # struct mallinfo2 of malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks "
                "fordblks keepcost".split()]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Info

def used():
    # in memory or swapped out, so that a machine short of memory changes nothing
    return sum(int(n) * 1024 for n in re.findall(r"Vm(?:RSS|Swap):\\s+(\\d+) kB", open("/proc/self/status").read()))

def allocate(times, size=SIZE):
    # mapped: how many blocks of its own a tensor takes from the system; grown: tensors by which the heap grows
    before = library.mallinfo2()
    for _ in range(times):
        tensor = torch.ones(size // 4)
        mapped = library.mallinfo2().hblks - before.hblks
        del tensor
    return {"mapped": mapped, "grown": (library.mallinfo2().arena - before.arena) / SIZE}

seen = {"before": allocate(10)}
with kept_memory():
    seen["first"] = allocate(20)  # glibc needs a few until the gaps suit
    seen["kept"] = allocate(10)
    held = used()
seen["returned"] = held - used()
seen["after"] = allocate(2, library.mallinfo2().fordblks + SIZE)  # larger than all gaps of the heap
print(json.dumps(seen | {"size": SIZE}))
"""


def test_memory_is_used_again_and_goes_back_in_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", ALLOCATE], capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    # Each tensor is mapped, and unmapped when it is freed. Python's own small objects may need some of the heap.
    assert seen["before"]["mapped"] == seen["after"]["mapped"] == 1
    assert seen["before"]["grown"] < 0.01
    assert seen["first"]["mapped"] == seen["kept"]["mapped"] == 0
    assert seen["first"]["grown"] >= 1
    assert seen["kept"]["grown"] == 0  # no page came from the system: all were in the heap already
    # of the heap, which has grown by a tensor at least, only pages that hold something else stay
    assert seen["returned"] >= seen["size"] // 2


COUNTED = """
import ctypes, re, threading
from emsuite.common.process import share_memory
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
