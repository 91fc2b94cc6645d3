"""Activations: torch's values and gradients, and the same bits on any number of threads."""

import pytest
import torch
from torch.nn import functional

from emsuite.models.activations import elu


def values(n: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (3 * torch.randn(n, generator=torch.Generator().manual_seed(n))).to(dtype)


@pytest.mark.parametrize("inplace", [False, True])
def test_elu_without_a_gradient_is_the_same_on_any_number_of_threads(inplace: bool) -> None:
    x, found, before = values(2_000_003), [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            with torch.no_grad():
                found.append(elu(x.clone(), inplace))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(other, found[0]) for other in found[1:])


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-15), (torch.float32, 2e-7), (torch.bfloat16, 1e-2)])
def test_elu_is_torch_s(dtype: torch.dtype, atol: float) -> None:
    x = values(1001, dtype)
    x[:4] = torch.tensor([0.0, -0.0, float("inf"), -float("inf")])
    with torch.no_grad():
        kept = x.clone()
        torch.testing.assert_close(elu(x), functional.elu(x), rtol=0, atol=atol)
        assert torch.equal(x, kept)
        torch.testing.assert_close(elu(x.clone(), inplace=True), functional.elu(x), rtol=0, atol=atol)


def test_elu_has_torch_s_gradient() -> None:
    x = values(1001).requires_grad_()
    slopes = [torch.autograd.grad(function(x).square().sum(), x)[0] for function in (elu, functional.elu)]
    assert torch.equal(*slopes)
