"""Memory that is kept: pages are not cleared anew for each large tensor, and go back in the end."""

import resource

import torch

from emsuite.allocator import kept_memory

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
