"""SSIM and MS-SSIM against scikit-image and SciPy, in two and three dimensions, with and without a mask."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from emsuite.losses.registry import LOSSES
from emsuite.losses.structural_similarity import SCALES, multiscale_ssim, scales, ssim, value_range
from emsuite.losses.target import HeadOutput, Target

SHAPES = [(40, 47), (16, 21, 24)]


def pair(shape: tuple[int, ...], channels: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Smooth images and noisy copies, float64."""
    rng = np.random.default_rng(seed)
    target = np.stack([gaussian_filter(rng.normal(size=shape), 2.0) * 30 + 100 for _ in range(channels)])
    return target + rng.normal(size=target.shape), target


def batch(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array)[None] for array in arrays]


def reference(p: np.ndarray, t: np.ndarray, reach: float) -> np.ndarray:
    """scikit-image's map of one channel, where windows are whole."""
    _, full = structural_similarity(p, t, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                    data_range=reach, full=True)  # fmt: skip
    return full[(slice(5, -5),) * p.ndim]


@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_is_scikit_images(shape: tuple[int, ...]) -> None:
    p, t = pair(shape)
    mask = (np.random.default_rng(1).random(t.shape) < 0.3).astype(np.float64)
    reach = value_range(*batch(t))
    assert float(reach) == pytest.approx(np.ptp(t))
    full = np.stack([reference(a, b, np.ptp(t)) for a, b in zip(p, t, strict=True)])
    inside = mask[:, *(slice(5, -5),) * len(shape)]
    assert float(ssim(*batch(p, t, np.ones_like(t)), reach)) == pytest.approx(full.mean(), abs=1e-7)
    masked = float(ssim(*batch(p, t, mask), reach))
    assert masked == pytest.approx((full * inside).sum() / inside.sum(), abs=1e-7)
    assert abs(masked - full.mean()) > 1e-4
    single = [x.float() for x in batch(p, t, mask)]
    assert float(ssim(*single, reach.float())) == pytest.approx(masked, abs=1e-5)


def contrasts(p: np.ndarray, t: np.ndarray, reach: float, mask: np.ndarray) -> tuple[float, float]:
    """Contrast, and contrast times luminance, averaged over the mask: formulas of the papers, SciPy's filter."""

    def mean(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, 1.5, truncate=3.5)[(slice(5, -5),) * x.ndim]

    m, n, inside = mean(p), mean(t), mask[(slice(5, -5),) * mask.ndim]
    c1, c2 = (0.01 * reach) ** 2, (0.03 * reach) ** 2
    contrast = (2 * (mean(p * t) - m * n) + c2) / (mean(p * p) - m * m + mean(t * t) - n * n + c2)
    both = contrast * (2 * m * n + c1) / (m * m + n * n + c1)
    return (contrast * inside).sum() / inside.sum(), (both * inside).sum() / inside.sum()


def halved(x: np.ndarray) -> np.ndarray:
    x = x[tuple(slice(n // 2 * 2) for n in x.shape)]
    for axis in range(x.ndim):
        x = (x.take(range(0, x.shape[axis], 2), axis) + x.take(range(1, x.shape[axis], 2), axis)) / 2
    return x


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("shape", "count"), [((53, 90), 3), ((180, 176), 5), ((24, 26, 29), 2), ((20, 20, 20), 1)])
def test_multiscale_ssim_by_the_paper(shape: tuple[int, ...], count: int, masked: bool) -> None:
    (p,), (t,) = pair(shape, 1)
    rng = np.random.default_rng(2)
    mask = (rng.random(shape) < 0.4).astype(np.float64) if masked else np.ones(shape)
    reach, expected = np.ptp(t), 1.0
    ours = multiscale_ssim(*batch(p[None], t[None], mask[None]), torch.tensor([reach], dtype=torch.float64))
    assert scales(shape) == count
    for scale in range(count):
        contrast, both = contrasts(p, t, reach, mask)
        expected *= (both if scale == count - 1 else contrast) ** (SCALES[scale] / sum(SCALES[:count]))
        p, t, mask = halved(p), halved(t), halved(mask)
    assert float(ours) == pytest.approx(expected, abs=1e-6)


def test_one_section_is_an_image() -> None:
    p, t = pair((40, 40), 1)
    flat = batch(p, t, np.ones_like(t))
    deep = [x[:, :, None] for x in flat]
    reach = value_range(flat[1])
    for similarity in (ssim, multiscale_ssim):
        torch.testing.assert_close(similarity(*deep, reach), similarity(*flat, reach))


@pytest.mark.parametrize(("name", "similarity", "parts"), [("dssim", ssim, (0.4, 0.2)),
                                                           ("ms_ssim", multiscale_ssim, (0.84, 0.16))])  # fmt: skip
def test_the_losses_mix_similarity_and_absolute_error(name: str, similarity: object, parts: tuple) -> None:
    p, t = (np.stack(images) for images in zip(*(pair((30, 30), seed=seed) for seed in (3, 4)), strict=True))
    p, t = torch.from_numpy(p), torch.from_numpy(t)
    weights = (torch.rand(t.shape) < 0.5).double()
    loss = LOSSES[name](HeadOutput(p, lambda x: x), Target(t, weights, torch.zeros(2, 30, 30)))
    similar = similarity(p, t, weights, value_range(t))  # type: ignore[operator]
    error = ((p - t).abs() * weights).flatten(1).sum(1) / weights.flatten(1).sum(1)
    assert float(loss) == pytest.approx(float((parts[0] * (1 - similar) + parts[1] * error).mean()))
    same = LOSSES[name](HeadOutput(t.clone(), lambda x: x), Target(t, weights, torch.zeros(2, 30, 30)))
    assert float(same) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["dssim", "ms_ssim"])
def test_descending_reaches_the_target(name: str) -> None:
    torch.manual_seed(0)
    t = torch.from_numpy(pair((24, 24), 1)[1])[None].float()
    t = (t - t.min()) / (t.max() - t.min())
    logits = torch.zeros_like(t, requires_grad=True)
    optimizer, wanted = torch.optim.Adam([logits], 0.1), Target(t, torch.ones_like(t), torch.zeros(1, 24, 24))
    losses = []
    for _ in range(80):
        loss = LOSSES[name](HeadOutput(logits, torch.sigmoid), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_opposites_have_a_finite_gradient() -> None:
    t = torch.rand(1, 1, 30, 30)
    p = (1 - t).requires_grad_()
    (1 - multiscale_ssim(p, t, torch.ones_like(t), torch.ones(1))).sum().backward()
    assert bool(p.grad.isfinite().all())
