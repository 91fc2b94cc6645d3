"""Shares of a batch; several processes at work are in test_trainer.py."""

import pytest
import torch

from emsuite.common.errors import BadInput
from emsuite.training.batches import BatchShare
from emsuite.training.distributed import Processes, processes

CPU = torch.device("cpu")


@pytest.mark.parametrize(("count", "parts", "size"), [(1, 1, 12), (2, 1, 6), (2, 3, 2), (3, 4, 1)])
def test_shares_make_up_the_batch(count: int, parts: int, size: int) -> None:
    shares = [Processes(CPU, rank, count).share(12, parts) for rank in range(count)]
    assert {(share.size, share.parts) for share in shares} == {(size, parts)}
    samples = [share.first + part * share.size + i for share in shares for part in range(parts) for i in range(size)]
    assert samples == list(range(12))


def test_a_batch_is_shared_out_evenly_or_not_at_all() -> None:
    with pytest.raises(BadInput, match=r"batch_size: 3 samples for 2 processes .*, expected a multiple of 4"):
        Processes(CPU, 0, 2).share(3, 2)


def test_alone_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with processes(CPU) as alone:
        assert alone == Processes(CPU)
        assert alone.is_main
        assert alone.share(1, 1) == BatchShare(0, 1)
        assert alone.all_reduce_max(15) == 15
        network, values = torch.nn.Linear(2, 2), torch.ones(3)
        assert alone.parallel(network) is network
        assert alone.mean(values) is values
        assert not torch.distributed.is_initialized()
