"""Networks: what they say of an input that was not normalized."""

import pytest
import torch

from emsuite.models.network import Network
from emsuite.models.unet import UNetSettings

SMALL = UNetSettings.model_validate({"num_fmaps": 2, "fmap_inc_factor": 2, "downsample_factors": [[2, 2, 2]]})


def test_raw_that_was_not_normalized_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    network = Network(SMALL, 1, {"affs": 3}).eval()
    raw = torch.randint(0, 256, (1, 1, 20, 20, 20)).float()
    with torch.no_grad():
        network(raw / 255 * 2 - 1)
        assert caplog.messages == []
        network(raw)
        network(raw)
    assert len(caplog.messages) == 1
    assert "input reaches 255, expected normalized grey values, mostly in [-1, 1]" in caplog.messages[0]


def test_training_looks_at_no_values(caplog: pytest.LogCaptureFixture) -> None:
    Network(SMALL, 1, {"affs": 3}).train()(torch.full((1, 1, 20, 20, 20), 255.0))
    assert caplog.messages == []
