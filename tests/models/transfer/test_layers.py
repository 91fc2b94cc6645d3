"""The layers that networks of domain transfer share."""

import pytest
import torch
from torch import nn

from emsuite.models.transfer import layers
from models.transfer.networks import as_sections, noise
from models.transfer.reference_layers import mirrored, normalized


@pytest.mark.parametrize("dims", [2, 3])
def test_reflection_is_the_mirror_image_without_the_border(dims: int) -> None:
    x = noise(2, 3, *(5, 6, 4)[-dims:])
    assert torch.equal(layers.reflect(x, 3, dims), mirrored(x, 3))


def test_reflection_of_slices_is_the_same() -> None:
    """What a GPU computes, on a CPU."""
    x = noise(2, 3, 5, 6, 4).requires_grad_()
    weights = noise(2, 3, 11, 12, 10, seed=4)
    gradients = []
    for function in (layers.reflect, layers.reflect_by_slices):
        y = function(x, 3, 3)
        assert torch.equal(y, mirrored(x.detach(), 3))
        gradients.append(torch.autograd.grad((y * weights).sum(), x)[0])
    torch.testing.assert_close(*gradients)


def test_instance_norm() -> None:
    x = 3 * noise(2, 3, 4, 5, 6) + 7
    torch.testing.assert_close(layers.normalize(x, "instance"), normalized(x))
    assert layers.normalize(x, "none") is x


def test_sections_go_into_the_batch_and_come_back() -> None:
    x = noise(2, 3, 4, 5, 6)
    assert torch.equal(layers.as_images(x, 2), as_sections(x))
    assert torch.equal(layers.as_volume(layers.as_images(x, 2), 2, 2), x)
    assert layers.as_images(x, 3) is x
    assert layers.as_volume(x, 3, 2) is x


def test_first_weights() -> None:
    network = nn.Sequential(nn.Conv3d(8, 32, 3), nn.ConvTranspose2d(32, 64, 4), nn.Linear(2, 2))
    linear = network[2].weight.clone()
    layers.draw_normal_weights(network)
    for layer in network[:2]:
        assert abs(float(layer.weight.detach().std()) - 0.02) < 1e-3
        assert abs(float(layer.weight.detach().mean())) < 1e-3
        assert not layer.bias.any()
    assert torch.equal(network[2].weight, linear)
