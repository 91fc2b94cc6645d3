import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from emsuite.losses.malis import malis_loss
from emsuite.losses.registry import LOSSES, ONLY_AFFINITIES, check_name
from emsuite.losses.target import HeadOutput, Target
from emsuite.targets.affinities import affinities

NEAR = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]


def output(logits):
    return HeadOutput(logits, torch.sigmoid)


def target(values, weights, **more):
    values = torch.tensor([values], dtype=torch.float32)
    return Target(values, torch.tensor([weights], dtype=torch.float32), torch.zeros(values.shape), **more)


def test_mse_is_averaged_over_what_has_weight():
    probabilities = torch.tensor([[0.5, 0.25, 0.9, 0.1]])
    wanted = target([1, 0, 0, 1], [2, 1, 0, 0])
    loss = LOSSES["weighted_mse"](output(torch.logit(probabilities)), wanted)
    assert float(loss) == pytest.approx((2 * 0.25 + 0.0625) / 2)


def test_cross_entropy_is_averaged_over_what_has_weight():
    probabilities = torch.tensor([[0.5, 0.25, 0.9, 0.1]])
    wanted = target([1, 0, 0, 1], [2, 1, 0, 0])
    loss = LOSSES["bce"](output(torch.logit(probabilities)), wanted)
    assert float(loss) == pytest.approx((-2 * math.log(0.5) - math.log(0.75)) / 2, rel=1e-6)


def test_errors_are_divided_by_the_sum_of_the_weights():
    probabilities = torch.tensor([[0.5, 0.25, 0.9, 0.1]])
    wanted = target([1, 0, 0, 1], [2, 1, 0, 0])
    assert float(LOSSES["mae"](output(torch.logit(probabilities)), wanted)) == pytest.approx((2 * 0.5 + 0.25) / 3)
    assert float(LOSSES["mse"](output(torch.logit(probabilities)), wanted)) == pytest.approx((2 * 0.25 + 0.0625) / 3)


def test_divergence_is_that_of_distributions_over_the_channels():
    """Two voxels of three classes: SciPy's relative entropy of each, and the first alone with a mask."""
    rng = np.random.default_rng(0)
    p, t = (torch.from_numpy(rng.dirichlet(np.ones(3), 2).T[None]) for _ in range(2))
    each = [entropy(t[0, :, voxel], p[0, :, voxel]) for voxel in range(2)]
    same = HeadOutput(p, lambda x: x)
    for weights, expected in (
        ([1.0, 1.0], np.mean(each)),
        ([1.0, 0.0], each[0]),
        ([3.0, 1.0], np.dot([3, 1], each) / 4),
    ):
        wanted = Target(t, torch.tensor(weights, dtype=torch.float64).expand(1, 3, 2), torch.zeros(1, 2))
        assert float(LOSSES["kl"](same, wanted)) == pytest.approx(float(expected), rel=1e-6)


def test_dice_counts_voxels_in_both():
    """One voxel of two in both: 1 - (2 + 1) / (2 + 1 + 1); without the other one, 1 - (2 + 1) / (1 + 1 + 1) = 0."""
    same = HeadOutput(torch.tensor([[1.0, 1.0, 0.0]]), lambda x: x)
    assert float(LOSSES["dice"](same, target([1, 0, 0], [1, 1, 1]))) == pytest.approx(0.25)
    assert float(LOSSES["dice"](same, target([1, 0, 0], [1, 0, 1]))) == 0


def test_cross_entropy_has_a_gradient_where_the_sigmoid_has_none():
    logits = torch.tensor([[60.0, -60.0]], requires_grad=True)
    LOSSES["bce"](output(logits), target([0, 1], [1, 1])).backward()
    assert logits.grad[0].tolist() == pytest.approx([0.5, -0.5])


def test_malis_is_the_mean_of_the_samples():
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 3, (2, 3, 4, 5)))
    values, logits = affinities(labels, NEAR).float(), torch.from_numpy(rng.normal(size=(2, 3, 3, 4, 5))).float()
    weights = torch.from_numpy(rng.random(values.shape) < 0.9).float()
    loss = LOSSES["malis"](output(logits), Target(values, weights, labels, NEAR))
    expected = [malis_loss(torch.sigmoid(logits[i]), values[i], labels[i], NEAR, weights[i]) for i in range(2)]
    assert float(loss) == pytest.approx(float(sum(expected)) / 2)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_no_weight_is_no_loss_and_no_gradient(name):
    logits = torch.randn(1, 3, 2, 3, 4, requires_grad=True)
    labels = torch.ones(1, 2, 3, 4, dtype=torch.int64)
    loss = LOSSES[name](
        output(logits), Target(affinities(labels, NEAR).float(), torch.zeros_like(logits), labels, NEAR)
    )
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"dssim", "ms_ssim"}))  # those are of images
def test_descending_reaches_the_target(name):
    labels = torch.tensor([[[[1, 1, 2, 2], [1, 1, 0, 2]]]])
    values = affinities(labels, NEAR).float()
    logits = torch.zeros_like(values, requires_grad=True)
    wanted = Target(values, torch.ones_like(values), labels, NEAR)
    first = LOSSES[name](output(logits), wanted).item()
    for _ in range(150):
        (gradient,) = torch.autograd.grad(LOSSES[name](output(logits), wanted), logits)
        logits = (logits - gradient * 5).detach().requires_grad_()
    assert LOSSES[name](output(logits), wanted).item() < first / 4


def test_names_are_checked():
    assert check_name("malis") in ONLY_AFFINITIES
    with pytest.raises(ValueError, match="no loss 'squares'; there are weighted_mse, bce, malis"):
        check_name("squares")
