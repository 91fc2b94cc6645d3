"""Torch's number of threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from emsuite.cores import one_core


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
            leave.wait(10)
            return torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        inside = pool.submit(work)
        assert entered.wait(10)
        assert torch.get_num_threads() == before
        leave.set()
        assert inside.result() == 1
        assert pool.submit(torch.get_num_threads).result() == before
