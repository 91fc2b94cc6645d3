"""A discriminator that reads a frozen network: what it reads, what learns, and networks that do not fit."""

import copy

import pytest
import torch
from torch import Tensor, nn

from emsuite.common.errors import BadInput
from emsuite.models.network import Network
from emsuite.models.transfer.prior import FrozenPrior
from emsuite.models.unet_settings import UNetSettings
from models.transfer.networks import discriminator, noise, parameters
from models.transfer.reference_layers import conv
from models.transfer.test_valid import reference_discriminator

LAYER = "unet.layer_2_left_1"


def trained(fmaps: int = 8, padding: str = "same", factor: tuple[int, ...] = (2, 2, 2)) -> Network:
    """A U-Net of the suite, of 4 times `fmaps` channels in its coarsest level, whose voxels are 4 wide."""
    torch.manual_seed(3)
    keys = {"num_fmaps": fmaps, "fmap_inc_factor": 2, "downsample_factors": (factor, factor), "padding": padding}
    return Network(UNetSettings.model_validate(keys), 1, {"affs": 3}).double()


def with_prior(network: nn.Module, layer: str = LAYER, channels: int = 32, **keys: int) -> nn.Module:
    prior = {"network": "other/affs", "layer": layer, "channels": channels}
    return discriminator("valid", frozen=network, prior=prior, **keys)


class Strided(nn.Module):
    """Four voxels to one, cropped as the discriminator's own features are: 40 -> 6."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Conv3d(1, 32, 20, 4, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.only(x)


def test_parameters_are_as_published() -> None:
    judge = with_prior(Strided(), "only")
    assert parameters(judge) == 209_017
    assert len(judge.state_dict()) == len(discriminator("valid").state_dict())  # the prior's weights are not saved


def test_the_features_of_the_prior_join_those_of_the_discriminator() -> None:
    network = Strided()
    judge = with_prior(network, "only", width=2)
    x = noise(1, 1, 40, 48, 40)
    with torch.no_grad():
        features = conv(x, network.only.weight, network.only.bias, 4)
        expected = reference_discriminator(judge.state_dict(), x, features)
        torch.testing.assert_close(judge(x), expected)
        assert not torch.allclose(judge(2 * x), expected)


def test_any_network_of_the_suite_can_be_a_prior() -> None:
    """A padded U-Net gives 10 voxels for 40, of which the middle 6 lie where the discriminator's own do."""
    network = trained()
    seen: dict[str, Tensor] = {}
    network.get_submodule(LAYER).register_forward_hook(lambda _m, _i, y: seen.update(whole=y))
    judge = with_prior(network, width=2)
    x = noise(1, 1, 40, 40, 48)
    with torch.no_grad():
        cropped = judge.prior(x, (6, 6, 8))
    torch.testing.assert_close(cropped, seen["whole"][..., 2:8, 2:8, 2:10], rtol=0, atol=0)
    assert judge(x).shape == (1, 1, 1, 1, 2)


def test_the_prior_does_not_learn_but_the_image_does() -> None:
    network = trained()
    judge = with_prior(network, width=2)
    before = copy.deepcopy(network.state_dict())
    x = noise(1, 1, 40, 40, 40).requires_grad_()
    judge.train()
    judge(x).sum().backward()
    assert all(weight.grad is None for weight in network.parameters())
    assert all(torch.equal(before[name], weight) for name, weight in network.state_dict().items())
    assert not network.training
    assert x.grad is not None
    assert bool(x.grad.abs().sum() > 0)
    assert all(weight.grad is not None for weight in judge.parameters())
    through = torch.autograd.grad(judge.prior(x, (6, 6, 6)).sum(), x)[0]
    assert bool(through.abs().sum() > 0)


def test_the_prior_moves_with_the_discriminator() -> None:
    network = trained()
    judge = with_prior(network, width=2)
    judge.float()
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    assert judge(noise(1, 1, 40, 40, 40).float()).dtype == torch.float32


def test_in_2d_the_prior_reads_sections() -> None:
    network = trained(factor=(1, 2, 2))
    judge = with_prior(network, dims=2, width=2)
    assert judge(noise(1, 1, 3, 40, 48)).shape == (1, 1, 3, 1, 2)


def test_a_prior_of_another_shape_is_refused() -> None:
    with pytest.raises(BadInput, match=r"prior.channels holds 32, but the layer 'unet.layer_2_left_1' has 16"):
        with_prior(trained(fmaps=4))
    with pytest.raises(BadInput, match=r"yields 3x3x3 voxels for an input of 40x40x40, expected 6x6x6"):
        with_prior(trained(padding="valid"))
    with pytest.raises(BadInput, match=r"no layer 'unet.layer_9'; expected one of unet, unet.layer_0_left_0"):
        with_prior(trained(), "unet.layer_9")
    three = nn.Sequential(nn.Conv3d(3, 32, 20, 4, dtype=torch.float64))
    with pytest.raises(BadInput, match=r"prior: its network cannot read an input of 1x40x40x40: "):
        with_prior(three, "0")
    unused = trained()
    unused.add_module("other", nn.Linear(1, 1))
    with pytest.raises(BadInput, match=r"the network does not run 'other'"):
        with_prior(unused, "other")


def test_sizes_are_checked_for_each_input() -> None:
    judge = with_prior(trained(), width=2)
    with pytest.raises(BadInput, match=r"10x10x10 voxels for an input of 40x40x40, expected 7x7x7, or more by an even"):
        judge.prior(noise(1, 1, 40, 40, 40), (7, 7, 7))
    assert isinstance(judge.prior, FrozenPrior)
