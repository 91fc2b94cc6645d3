"""Shares of a batch, and signals that ask a run to end; several processes at work are in test_trainer.py."""

import os
import signal

import pytest
import torch

from emsuite.common.errors import BadInput
from emsuite.training.batches import BatchShare
from emsuite.training.distributed import SIGNALS, Processes, processes, stop_requests

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


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_does_not_end_the_process(number: int) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with stop_requests() as request:
        assert (request.signal, request.exit_code) == (0, 0)
        os.kill(os.getpid(), number)
        assert (request.signal, request.exit_code) == (number, 0), "other processes have not heard it"
        request.agreed = request.signal
        assert request.exit_code == 128 + number
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal == signal.SIGTERM
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_handlers_come_back_after_an_error() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(ValueError, match="broken"), stop_requests():
        raise ValueError("broken")
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_second_interrupt_ends_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupt_twice() -> None:
        with stop_requests() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert request.signal == signal.SIGINT
            assert "once more ends at once" in capfd.readouterr().err
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()
    assert signal.getsignal(signal.SIGINT) == before


def test_what_a_shell_ignores_in_the_background_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requests() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert request.signal == 0
    finally:
        signal.signal(signal.SIGINT, before)
