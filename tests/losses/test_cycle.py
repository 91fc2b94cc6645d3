"""Losses of cycles and identities: closed forms, clipping and gradients."""

import math

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from emsuite.losses.cycle import CYCLE, CycleLoss, focal, l1

A = torch.tensor([0.0, 1.0, -1.0, 0.25], dtype=torch.float64)
B = torch.tensor([0.0, 0.0, 0.5, -0.75], dtype=torch.float64)


def test_l1_is_the_mean_difference() -> None:
    assert float(l1(A, B)) == (0 + 1 + 1.5 + 1) / 4


def test_the_focal_form_by_its_definition() -> None:
    """p = 1 - |a - b| / 2 against ones: 2 alpha (1 - p)^2 (-ln p), alpha 0.5."""
    expected = sum(2 * 0.5 * (1 - p) ** 2 * -math.log(p) for p in (1.0, 0.5, 0.25, 0.5)) / 4
    assert float(focal(A, B)) == pytest.approx(expected, rel=1e-12)
    assert float(focal(A, A)) == 0.0


def test_images_more_than_2_apart_are_clipped_in_the_logarithm_alone() -> None:
    x = torch.tensor([3.0, 2.0], dtype=torch.float64, requires_grad=True)
    loss = focal(x, torch.zeros_like(x))
    logarithm = -math.log(1e-7)
    assert float(loss) == pytest.approx((1.5**2 * logarithm + 1.0 * logarithm) / 2, rel=1e-12)
    loss.backward()
    assert x.grad is not None
    assert float(x.grad[0]) == pytest.approx(1.5 * logarithm / 2, rel=1e-12)  # of (|a - b| / 2)^2 alone


@pytest.mark.parametrize("name", CYCLE)
def test_gradients_are_right(name: str) -> None:
    x, target = (A + 0.1).requires_grad_(), B.clone()
    assert torch.autograd.gradcheck(lambda x: CYCLE[name](x, target), (x,))


@pytest.mark.parametrize("name", CYCLE)
def test_equal_images_have_no_gradient(name: str) -> None:
    x = A.clone().requires_grad_()
    CYCLE[name](x, A).backward()
    assert x.grad is not None
    assert not x.grad.any()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValidationError, match="no loss of cycles 'ssim'; there are l1, focal"):
        TypeAdapter(CycleLoss).validate_python("ssim")
