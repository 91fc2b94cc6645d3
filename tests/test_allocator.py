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


def test_memory_is_used_again() -> None:
    with kept_memory():
        torch.ones(PAGES * 1024)
        before = faults()
        for _ in range(5):
            torch.ones(PAGES * 1024)
        assert faults() - before < PAGES / 10
        held = resident()
    assert held - resident() > PAGES / 2
    before = faults()
    torch.ones(PAGES * 1024)
    torch.ones(PAGES * 1024)
    assert faults() - before >= 2 * PAGES / 512  # pages of 2 MiB where the system gives those
