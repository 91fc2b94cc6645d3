"""Adversarial losses: closed forms, and torch's own where there is one."""

import math

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from emsuite.losses.adversarial import ADVERSARIAL, AdversarialLoss, bce, focal, lsgan

LOGITS = torch.tensor([[-3.0, 0.0], [0.5, 2.0]], dtype=torch.float64)


def test_lsgan_is_the_square_of_the_distance_to_1_or_0() -> None:
    assert float(lsgan(LOGITS, True)) == (16 + 1 + 0.25 + 1) / 4
    assert float(lsgan(LOGITS, False)) == (9 + 0 + 0.25 + 4) / 4


@pytest.mark.parametrize("real", [True, False])
def test_bce_and_focal_by_their_definition(real: bool) -> None:
    right = [1 / (1 + math.exp(-x if real else x)) for x in LOGITS.flatten().tolist()]
    assert float(bce(LOGITS, real)) == pytest.approx(sum(-math.log(p) for p in right) / 4, rel=1e-12)
    expected = sum(2 * 0.5 * (1 - p) ** 2 * -math.log(p) for p in right) / 4
    assert float(focal(LOGITS, real)) == pytest.approx(expected, rel=1e-12)


def test_no_answer_at_all_costs_a_known_sum() -> None:
    zero = torch.zeros(3, 1, 2, 2, 2)
    for real in (True, False):
        assert float(bce(zero, real)) == pytest.approx(math.log(2))
        assert float(focal(zero, real)) == pytest.approx(math.log(2) / 4)


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("real", [True, False])
def test_losses_are_mirror_images_with_gradients_that_are_right(name: str, real: bool) -> None:
    loss = ADVERSARIAL[name]
    x = LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, real), (x,))
    other = 1 - x if name == "lsgan" else -x
    torch.testing.assert_close(loss(x, real), loss(other, not real))


@pytest.mark.parametrize("name", ["bce", "focal"])
def test_far_logits_stay_finite(name: str) -> None:
    x = torch.tensor([-500.0, 500.0], requires_grad=True)
    loss = ADVERSARIAL[name](x, True)
    loss.backward()
    assert float(loss) == pytest.approx(250)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([-0.5, 0.0]))


def test_unknown_names_are_refused() -> None:
    adapter = TypeAdapter(AdversarialLoss)
    assert adapter.validate_python("focal") == "focal"
    with pytest.raises(ValidationError, match="no adversarial loss 'wgan'; there are lsgan, bce, focal"):
        adapter.validate_python("wgan")
