import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d, gaussian_filter1d

from emsuite.targets.gaussian_moments import Kernel, moments


@pytest.mark.parametrize("sigma", [0.1, 0.2, 1.0, 2.5, 6.6667])
def test_the_gaussian_is_that_of_scipy(sigma):
    kernel = Kernel(sigma)
    line = np.random.default_rng(0).random(50)
    matrix = kernel.matrices(torch.tensor([0]), torch.tensor([50]), 50, 50)[0, 0].numpy()
    np.testing.assert_allclose(matrix @ line, gaussian_filter1d(line, sigma, mode="constant", truncate=3), atol=1e-12)


def test_columns_may_begin_elsewhere_and_end_early():
    kernel = Kernel(2.0)
    whole = kernel.matrices(torch.tensor([0]), torch.tensor([30]), 30, 30)[0]
    part = kernel.matrices(torch.tensor([-4, 3]), torch.tensor([9, 5]), 6, 12)  # rows 10 to 15
    assert torch.equal(part[0, :, :, :9], whole[:, 10:16, 6:15])
    assert torch.equal(part[1, :, :, :5], whole[:, 10:16, 13:18])
    assert not part[0, :, :, 9:].any()
    assert not part[1, :, :, 5:].any()


@pytest.mark.parametrize("dims", [2, 3])
def test_moments_are_sums_of_powers_under_the_gaussian(dims):
    sigmas = (1.5, 2.0, 1.0)[:dims]
    masks = torch.from_numpy(np.random.default_rng(1).random((2, 8, 9, 10)[: dims + 1]) < 0.4).double()
    kernels = [Kernel(sigma) for sigma in sigmas]
    zero = torch.zeros(2, dtype=torch.int64)
    found = moments(masks, [k.matrices(zero, zero + n, n, n) for k, n in zip(kernels, masks.shape[1:], strict=True)])
    assert len(found) == {2: 6, 3: 10}[dims]
    for powers, moment in found.items():
        expected = masks.numpy()
        for axis, (power, sigma) in enumerate(zip(powers, sigmas, strict=True)):
            t = np.arange(-int(3 * sigma + 0.5), int(3 * sigma + 0.5) + 1) / sigma
            weight = np.exp(-(t**2) / 2)
            expected = correlate1d(expected, weight / weight.sum() * t**power, axis + 1, mode="constant")
        np.testing.assert_allclose(moment.numpy(), expected, atol=1e-12)
