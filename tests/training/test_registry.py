"""The kinds of training: named in the configuration, and run by the same trainer."""

from typing import get_args

import pytest

from builders import ROOT
from emsuite.common.errors import BadInput
from emsuite.config.network import StepName, load_network
from emsuite.training.registry import STEPS

TRAIN = ROOT / "02_train"


def test_every_kind_of_training_can_be_configured() -> None:
    assert set(STEPS) == set(get_args(StepName))


def test_networks_are_trained_with_labels_unless_told() -> None:
    config = load_network(TRAIN / "fib25/small")
    assert config.step == "supervised"
    with pytest.raises(BadInput, match="step: expected one of supervised, cyclegan"):
        load_network(TRAIN / "fib25/small", ["step=gan"])
    with pytest.raises(BadInput, match="expected `step: cyclegan` with `transfer`, and with nothing else"):
        load_network(TRAIN / "fib25/small", ["step=cyclegan"])
