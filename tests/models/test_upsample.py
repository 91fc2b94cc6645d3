"""Transposed convolution and interpolation against PyTorch's."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.nn import functional

from emsuite.models.upsample import Interpolate, Upsample, pointwise


@pytest.mark.parametrize(("factor", "kind"), [((2, 3), nn.ConvTranspose2d), ((1, 3, 2), nn.ConvTranspose3d)])
def test_equals_a_transposed_convolution(factor: tuple[int, ...], kind: type) -> None:
    torch.manual_seed(0)
    expected, ours = kind(5, 4, factor, factor).double(), Upsample(5, 4, factor).double()
    ours.load_state_dict(expected.state_dict())
    x = torch.randn(2, 5, 3, 4, 6, dtype=torch.float64)[:, :, *([0] * (3 - len(factor)))].requires_grad_()
    torch.testing.assert_close(ours(x), expected(x))
    assert ours(x).shape == expected(x).shape
    gradients = [torch.autograd.grad(m(x).square().sum(), [m.weight, m.bias, x]) for m in (ours, expected)]
    for ours_gradient, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours_gradient, theirs)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Conv3d])
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_kernel_of_one_voxel_equals_torchs_convolution(kind: type, channels_last: bool) -> None:
    torch.manual_seed(0)
    layer = kind(5, 4, 1).double()
    x = torch.randn(2, 5, 3, 4, 6, dtype=torch.float64)[:, :, *([0] if kind is nn.Conv2d else [])]
    x = (x.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else x.contiguous()).requires_grad_()
    expected, ours = layer(x), pointwise(x, layer.weight, layer.bias)
    torch.testing.assert_close(ours, expected)
    wanted, weights = [layer.weight, layer.bias, x], torch.randn_like(expected)
    gradients = [torch.autograd.grad((y * weights).sum(), wanted) for y in (ours, expected)]
    for ours_gradient, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours_gradient, theirs)


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("factor", [(1, 2, 2), (2, 3, 5), (3, 1, 4)])
@pytest.mark.parametrize("shape", [(3, 4, 6), (1, 1, 2)])
def test_interpolation_and_its_gradient_equal_torchs(linear: bool, factor: Sequence[int], shape: Sequence[int]) -> None:
    torch.manual_seed(0)
    layer = Interpolate(4, 4, factor, linear).double()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(4)[..., None, None, None])
    x = torch.randn(2, 4, *shape, dtype=torch.float64).requires_grad_()
    expected = functional.interpolate(x, scale_factor=factor, mode="trilinear" if linear else "nearest")
    torch.testing.assert_close(layer(x), expected)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (layer(x), expected)]
    torch.testing.assert_close(*gradients)


def test_interpolation_leaves_channels_last_in_memory() -> None:
    x = torch.randn(1, 4, 1, 6, 6).to(memory_format=torch.channels_last_3d)
    assert Interpolate(4, 2, (1, 2, 2), linear=True)(x).is_contiguous(memory_format=torch.channels_last_3d)
