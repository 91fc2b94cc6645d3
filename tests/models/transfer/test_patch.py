"""PatchGAN: parameters, sizes, its patches, and its pass beside layers by their definitions in float64."""

import pytest
import torch
from torch import Tensor

from emsuite.common.errors import BadInput
from models.transfer.networks import as_sections, discriminator, noise, of_sections, parameters
from models.transfer.reference_layers import conv, leaky, normalized, zeros


def reference(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    for index, stride in enumerate((2, 2, 2, 1, 1)):
        weight, bias = weights[f"layers.{index}.weight"], weights[f"layers.{index}.bias"]
        if weight.ndim == 5 and index == 0:
            padded = zeros(x, 1)[:, :, 1:-1]
            x = conv(padded, weight, bias, (1, 2, 2))
        else:
            x = conv(zeros(x, 1), weight, bias, stride)
        if index < 4:
            x = leaky(normalized(x) if index else x, 0.2)
    return x


def test_parameters_are_as_published() -> None:
    """2.765 M are printed for three channels."""
    assert parameters(discriminator("patch", in_channels=3)) == 2_764_737
    assert parameters(discriminator("patch", dims=3)) == 16 * 64 + 64 * (64 * 128 + 128 * 256 + 256 * 512 + 512) + 961


@pytest.mark.parametrize("dims", [2, 3])
def test_the_discriminator_computes_what_its_layers_define(dims: int) -> None:
    judge = discriminator("patch", dims=dims, width=2, in_channels=2)
    for index, weight in enumerate(judge.parameters()):
        weight.data = weight.data * 5 + 0.01 * (index + 1)
    x = noise(2, 2, 16, 40, 36)
    with torch.no_grad():
        y = judge(x)
        expected = reference(judge.state_dict(), x if dims == 3 else as_sections(x))
    torch.testing.assert_close(y, expected if dims == 3 else of_sections(expected, 2))
    assert tuple(y.shape[2:]) == judge.output_shape((16, 40, 36)) == ((16, 3, 2) if dims == 2 else (2, 3, 2))


def test_a_patch_is_70_wide_and_34_deep() -> None:
    judge = discriminator("patch", dims=3, width=1, norm="none")
    for weight in judge.parameters():
        weight.data = weight.data.abs() + 1e-3  # so that nothing cancels
    x = noise(1, 1, 64, 128, 24).abs().requires_grad_()
    (slope,) = torch.autograd.grad(judge(x)[0, 0, 3, 6, 0], x)
    deep = slope[0, 0].abs().sum((1, 2)).nonzero().flatten()
    wide = slope[0, 0].abs().sum((0, 2)).nonzero().flatten()
    assert len(deep) == int(deep[-1] - deep[0]) + 1 == 34
    assert len(wide) == int(wide[-1] - wide[0]) + 1 == 70


def test_too_small_inputs_are_refused() -> None:
    flat, deep = discriminator("patch", width=1), discriminator("patch", dims=3, width=1)
    assert flat(noise(1, 1, 1, 24, 24)).shape == (1, 1, 1, 1, 1)
    with pytest.raises(BadInput, match=r"\(1, 23, 24\) voxels, expected at least \(1, 24, 24\)"):
        flat(noise(1, 1, 1, 23, 24))
    assert deep(noise(1, 1, 12, 24, 24)).shape == (1, 1, 1, 1, 1)
    with pytest.raises(BadInput, match=r"\(11, 24, 24\) voxels, expected at least \(12, 24, 24\)"):
        deep(noise(1, 1, 11, 24, 24))


def test_fewer_layers_judge_smaller_patches() -> None:
    x = noise(1, 1, 1, 64, 64)
    assert [tuple(discriminator("patch", width=1, layers=n)(x).shape[3:]) for n in (1, 2, 3)] == [
        (30, 30), (14, 14), (6, 6)]  # fmt: skip
