"""The first weights of a network; what it says of an input that was not normalized."""

import math

import pytest
import torch
from torch import nn

from emsuite.models.network import Network, draw_glorot_weights
from emsuite.models.unet_settings import UNetSettings
from emsuite.models.upsample import Upsample

SETTINGS = {"num_fmaps": 12, "fmap_inc_factor": 3, "downsample_factors": [[1, 3, 3], [2, 2, 2]]}
HEADS = {"affs": 3, "lsds": 10}


def network(**more: object) -> Network:
    torch.manual_seed(0)
    return Network(UNetSettings.model_validate(SETTINGS | more), 1, HEADS)


def kernels(made: Network) -> dict[str, nn.Module]:
    return {name: m for name, m in made.named_modules() if isinstance(m, nn.Conv3d | Upsample)}


def test_glorots_weights_are_uniform_within_the_limit_of_tensorflow_1() -> None:
    """Keras and TensorFlow: limit = sqrt(3 * 1 / ((fan_in + fan_out) / 2)), each fan with the kernel's voxels."""
    made = network()
    draw_glorot_weights(made)
    assert {"unet.layer_0_left_0", "unet.up_1_to_0", "heads.affs", "heads.lsds"} < kernels(made).keys()
    for name, layer in kernels(made).items():
        # of a convolution (out, in, z, y, x), of a transposed one (in, out, z, y, x): their sum is the same
        channels, voxels = sum(layer.weight.shape[:2]), math.prod(layer.weight.shape[2:])
        limit = math.sqrt(3 / (channels * voxels / 2))
        weights = layer.weight.detach().flatten()
        assert weights.abs().max() <= limit, name
        assert not layer.bias.any(), name
        if len(weights) > 300:
            assert weights.abs().max() > 0.98 * limit
            assert weights.mean().abs() < 0.1 * limit
            assert weights.std() == pytest.approx(limit / math.sqrt(3), rel=0.05)  # of a uniform distribution


def test_normalisation_stays_and_the_seed_decides() -> None:
    first, second = network(norm="batch"), network(norm="batch")
    before = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    for made in (first, second):
        torch.manual_seed(5)
        draw_glorot_weights(made)
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())
    for name, tensor in first.state_dict().items():
        if "norm" in name:
            assert torch.equal(tensor, before[name])
        elif name.endswith("weight"):
            assert not torch.equal(tensor, before[name])


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
