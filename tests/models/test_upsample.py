"""The transposed convolution against PyTorch's."""

import pytest
import torch
from torch import nn

from emsuite.models.upsample import Upsample


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
