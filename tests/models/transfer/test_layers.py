"""The layers that networks of domain transfer share."""

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from emsuite.models.transfer import layers
from models.transfer.networks import as_sections, generator, noise
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


def test_a_repeated_border_and_that_of_slices_are_the_same() -> None:
    x = noise(2, 3, 2, 4, 5).requires_grad_()
    expected = x[:, :, :, [0, 0, 1, 2, 3, 3]][..., [0, 0, 0, 1, 2, 3, 4, 4, 4]]
    weights = noise(*expected.shape)
    (slope,) = torch.autograd.grad((expected * weights).sum(), x)
    for function in (layers.repeat_border, layers.repeat_border_by_slices):
        found = function(x, (0, 1, 2))
        assert torch.equal(found, expected)
        torch.testing.assert_close(torch.autograd.grad((found * weights).sum(), x)[0], slope)


def test_interpolation_is_torch_s_with_ends_in_their_places() -> None:
    x = noise(2, 3, 2, 4, 5)
    for shape in ((3, 7, 9), (2, 4, 5), (5, 3, 8), (1, 1, 1)):
        expected = torch.nn.functional.interpolate(x, shape, mode="trilinear", align_corners=True)
        torch.testing.assert_close(layers.interpolated(x, shape), expected)
    one = layers.interpolated(x[:, :, :1, :1, :1], (1, 2, 3))
    torch.testing.assert_close(one, x[:, :, :1, :1, :1].expand(one.shape))


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


@pytest.mark.parametrize(("kernel", "stride", "padding", "depth"), [
    (3, 1, 0, 9), (3, 1, 0, 8), (3, 1, 1, 9), (3, 2, 1, 8), (3, 2, 1, 9), (1, 1, 0, 2), (3, 1, 0, 3),
    ((1, 3, 3), 1, (0, 1, 1), 5), (3, (1, 2, 2), 1, 6),
])  # fmt: skip
def test_a_single_sample_in_halves_is_the_same(kernel: Any, stride: Any, padding: Any, depth: int) -> None:
    layer = layers.convolution(3, 5, 4, kernel, stride=stride, padding=padding)
    x = noise(1, 5, depth, 7, 6).float().requires_grad_()
    plain = functional.conv3d(x, layer.weight, layer.bias, layer.stride, layer.padding)
    y = layer(x)
    torch.testing.assert_close(y, plain)
    weights = noise(*plain.shape, seed=3).float()
    inputs = [x, layer.weight, layer.bias]
    expected = torch.autograd.grad((plain * weights).sum(), inputs)
    for ours, theirs in zip(torch.autograd.grad((y * weights).sum(), inputs), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def kernels_of(x: Tensor, kind: str = "valid_unet", **keys: Any) -> set[str]:
    """The names of what torch runs for a generator."""
    network = generator(kind, width=2, **keys).float()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile, torch.no_grad():
        network(x)
    return {event.key for event in profile.key_averages()}


def test_a_cpu_runs_no_slow_kernels_for_a_single_sample() -> None:
    x = noise(1, 1, 42, 42, 42).float()
    assert "aten::mkldnn_convolution" in kernels_of(x)
    assert not {name for name in kernels_of(x) if "slow" in name}
    assert not {name for name in kernels_of(noise(1, 1, 8, 16, 16).float(), "resnet", dims=3) if "slow_conv3d" in name}
    with patch.object(layers, "_FEW", 0):  # without halves there are such kernels
        assert "aten::slow_conv3d" in kernels_of(x)
