"""Structural similarity, SSIM: means, variances and covariance of two images within Gaussian windows.

    SSIM     luminance x contrast      (2 m n + C1) / (m^2 + n^2 + C1)  x  (2 cov + C2) / (v + w + C2)
    MS-SSIM  contrast at each of up to five scales, half as fine each time, and luminance at the last

The windows are 11 voxels wide, with a standard deviation of 1.5, and lie inside the image as a whole; C1 and C2 are
squares of 0.01 and 0.03 of the range of values. Along an axis that is shorter, the window is the longest odd number of
voxels: one section has windows in y and x alone.

Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", and Wang et al.
2003, "Multiscale structural similarity"; the losses: the mixtures of Zhao et al. 2017 and of microDL, as it means them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from emsuite.losses.target import HeadOutput, Target
from emsuite.losses.voxelwise import mae, weighted_mean

WINDOW, SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""The exponents of MS-SSIM, the finest scale first."""
_LEAST = 1e-6
"""Of the contrast of a scale: a power of 0 has no gradient."""


def dssim(output: HeadOutput, target: Target) -> Tensor:
    """Return the mean over samples of 0.8 (1 - SSIM) / 2 + 0.2 MAE, see `ssim`."""
    similar = ssim(output.values, target.values, target.weights, value_range(target.values))
    return (0.8 * 0.5 * (1.0 - similar)).mean() + 0.2 * mae(output, target)


def ms_ssim(output: HeadOutput, target: Target) -> Tensor:
    """Return the mean over samples of 0.84 (1 - MS-SSIM) + 0.16 MAE, see `multiscale_ssim`."""
    similar = multiscale_ssim(output.values, target.values, target.weights, value_range(target.values))
    return (0.84 * (1.0 - similar)).mean() + 0.16 * mae(output, target)


def value_range(values: Tensor) -> Tensor:
    """Return the range of values of each sample, (B,); 1 for samples of one value."""
    flat = values.detach().flatten(1)
    reach = flat.amax(1) - flat.amin(1)
    return torch.where(reach > 0, reach, 1.0)


def ssim(p: Tensor, t: Tensor, weights: Tensor, reach: Tensor) -> Tensor:
    """Return the mean of SSIM over the voxels with weight and a whole window, of each sample, (B,) float.

    Windows see voxels without weight, too, as those of scikit-image do.

    Args:
        p: the prediction, (B, C, Z, Y, X) or (B, C, Y, X) float; each channel is an image.
        t: the target, the same shape.
        weights: the same shape.
        reach: the range of values of each sample, (B,).

    Returns:
        at most 1, which is equality; 1 where no voxel counts.
    """
    luminance, contrast = _similarity(p, t, reach)
    return _masked_mean(luminance * contrast, weights)


def multiscale_ssim(p: Tensor, t: Tensor, weights: Tensor, reach: Tensor) -> Tensor:
    """Return MS-SSIM of each sample, (B,) float in [0, 1], with the arguments of `ssim`.

    From scale to scale, images and weights are averaged over two voxels along each axis. There are as many of the five
    scales as hold whole windows, and their exponents are divided by the sum of those. A negative contrast counts as 0.
    """
    count = scales(p.shape[2:])
    exponents = [exponent / sum(SCALES[:count]) for exponent in SCALES[:count]]
    result = torch.ones_like(reach)
    for scale, exponent in enumerate(exponents, start=1):
        luminance, contrast = _similarity(p, t, reach)
        similar = luminance * contrast if scale == count else contrast
        result = result * _masked_mean(similar, weights).clamp(min=_LEAST) ** exponent
        if scale < count:
            p, t, weights = (_halved(x) for x in (p, t, weights))
    return result


def scales(shape: Sequence[int]) -> int:
    """Return how many scales of an image of `shape` (z, y, x or y, x) hold whole windows, 1 to 5."""
    count, sizes = 1, [n for n in shape if n > 1]
    while sizes and count < len(SCALES) and min(sizes) // 2 >= WINDOW:
        count, sizes = count + 1, [n // 2 for n in sizes]
    return count


def _similarity(p: Tensor, t: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """Return luminance and contrast at the centre of each whole window."""
    reach = reach.reshape(-1, *(1,) * (p.ndim - 1))
    c1, c2 = (_K1 * reach) ** 2, (_K2 * reach) ** 2
    # Differences of squares lose digits where the mean is large, so values are counted from it.
    origin = t.detach().flatten(1).mean(1).reshape(reach.shape)
    p, t = p - origin, t - origin
    mean_p, mean_t, square_p, square_t, product = _windowed(torch.stack([p, t, p * p, t * t, p * t]))
    contrast = (2.0 * (product - mean_p * mean_t) + c2) / (square_p - mean_p**2 + square_t - mean_t**2 + c2)
    mean_p, mean_t = mean_p + origin, mean_t + origin
    return (2.0 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1), contrast


def _windowed(x: Tensor) -> Tensor:
    """Return the Gaussian mean of each whole window, over the axes behind the third one."""
    dims = x.ndim - 3
    convolve = functional.conv3d if dims == 3 else functional.conv2d
    lead, images = x.shape[:3], x.flatten(0, 2)[:, None]
    for axis, n in enumerate(x.shape[3:]):
        width = min(WINDOW, n - 1 + n % 2)
        places = torch.arange(width, device=x.device, dtype=x.dtype) - width // 2
        kernel = torch.exp(-0.5 * (places / SIGMA) ** 2)
        shape = [1] * dims
        shape[axis] = width
        images = convolve(images, (kernel / kernel.sum()).reshape(1, 1, *shape))
    return images.reshape(*lead, *images.shape[2:])


def _masked_mean(similar: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of each sample; 1 where no voxel counts."""
    for axis, n in enumerate(similar.shape[2:], start=2):
        weights = weights.narrow(axis, (weights.shape[axis] - n) // 2, n)
    return 1.0 - weighted_mean(1.0 - similar, weights)


def _halved(x: Tensor) -> Tensor:
    size = [min(n, 2) for n in x.shape[2:]]
    return functional.avg_pool3d(x, size) if len(size) == 3 else functional.avg_pool2d(x, size)
