"""Which iterations become one CUDA graph."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from emsuite.config.network import load_network
from emsuite.training.supervised import _is_replayed

TRAIN = Path(__file__).parents[2] / "02_train"


def is_replayed(network, *overrides, iteration=1, on_gpu=True):
    weights = [SimpleNamespace(is_cuda=on_gpu)]
    state = SimpleNamespace(network=SimpleNamespace(parameters=lambda: iter(weights)), forward=None)
    return _is_replayed(state, load_network(TRAIN / network, overrides), iteration)


def test_an_iteration_on_one_gpu_is_replayed():
    assert is_replayed("zebrafinch/mtlsd")
    assert is_replayed("fib25/small")


@pytest.mark.parametrize("setting", ["cuda_graph=false", "compile=true", "accumulate=2"])
def test_settings_that_leave_it_as_it_is(setting):
    assert not is_replayed("zebrafinch/mtlsd", f"training.{setting}", "training.batch_size=2")


def test_a_cpu_replays_nothing():
    assert not is_replayed("zebrafinch/mtlsd", on_gpu=False)


def test_malis_computes_on_the_host_once_it_is_the_loss():
    malis = load_network(TRAIN / "zebrafinch/malis").heads["affs"]
    switch = malis.switch_to.iteration if malis.switch_to else 0
    assert not is_replayed("zebrafinch/malis", iteration=switch + 1)
    if switch:
        assert is_replayed("zebrafinch/malis", iteration=switch)
