"""Layers of the suite's own: torch's values and gradients; right ones where those are wrong, and on any threads."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from emsuite.models.layers import Convolution2d, Convolution3d, Transposed2d, Transposed3d, elu
from emsuite.models.transfer.layers import convolution, transposed


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


FLAT = [Convolution2d(8, 16, 3, 2, 1), Convolution2d(8, 16, 4, 2, 1), convolution(2, 8, 16, 4, stride=2, padding=1)]
DEEP = [
    *(Convolution3d(8, 16, kernel, padding="same") for kernel in (3, 5, (1, 7, 7), (3, 1, 1))),
    Convolution3d(8, 16, 4, 2, 1), convolution(3, 8, 16, 3, stride=2, padding=1), convolution(3, 8, 16, 3, padding=1),
]  # fmt: skip
UP = [Transposed2d(8, 16, 4, 2, 1), transposed(2, 8, 16, 3, stride=2, padding=1, more=1),
      Transposed3d(8, 16, 4, 2, 1), transposed(3, 8, 16, 4, stride=2, padding=1)]  # fmt: skip


def fits(layer: Any, sizes: tuple[int, ...]) -> bool:
    """Whether the layer has an output for an input of these sizes."""
    if layer.padding == "same" or isinstance(layer, torch.nn.ConvTranspose2d | torch.nn.ConvTranspose3d):
        return True
    return all(n + 2 * p >= k for n, p, k in zip(sizes, layer.padding, layer.kernel_size, strict=True))


THIN: list[tuple[Any, tuple[int, ...]]] = [
    (layer, (n, m)) for layer in FLAT + UP[:2] for n in (2, 4, 16) for m in (1, 2, 3)
]
THIN += [(layer, (z, y, 8)) for layer in DEEP + UP[2:] for z in (1, 2, 3, 8) for y in (1, 2, 3, 8)]
THIN = [(layer, sizes) for layer, sizes in THIN if fits(layer, sizes)]


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize(("layer", "sizes"), THIN, ids=[f"{layer}, {sizes}".replace(" ", "") for layer, sizes in THIN])
def test_bfloat16_trains_thin_inputs_as_float32_does(layer: Any, sizes: tuple[int, ...], samples: int) -> None:
    """Where oneDNN leaves gradients unwritten, they hold what the memory held before."""
    torch.manual_seed(0)
    order = torch.channels_last if len(sizes) == 2 else torch.channels_last_3d
    layer.to(memory_format=order)
    x, gradients = torch.randn(samples, 8, *sizes).to(memory_format=order), []
    slope = torch.randn_like(layer(x))
    for precise in (True, False, False):
        layer.zero_grad()
        _ = [torch.full((n,), 1e30) for n in (10_000, 27_648, 55_296, 100_000)]  # what the memory holds
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            layer(x).float().backward(slope)
        gradients.append([parameter.grad.clone() for parameter in layer.parameters()])
    for found in gradients[1:]:
        for gradient, expected in zip(found, gradients[0], strict=True):
            torch.testing.assert_close(gradient, expected, rtol=0, atol=0.02 * float(expected.abs().max()) + 1e-3)
