"""Metrics of a predicted image against its target, 2-D or 3-D, over all voxels or those of a mask.

    r2 pearson mse mae          of the values
    ssim ms_ssim                of their neighbourhoods, see `emsuite.losses.structural_similarity`
    dice accuracy               of the voxels above a threshold: half of each image's own maximum

To add a metric, write a function of two arrays and a mask here and name it in `IMAGE_METRICS`.
"""

from collections.abc import Callable, Iterable

import numpy as np

from emsuite.common.errors import BadInput

_VOXELS_AT_ONCE = 2**20
"""Of images whose similarity is measured together."""

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], float]
"""Takes prediction and target, float64 of one shape, and the voxels that count, bool of that shape, at least one."""


def image_scores(
    prediction: np.ndarray,
    target: np.ndarray,
    mask: np.ndarray | None = None,
    names: Iterable[str] | None = None,
) -> dict[str, float]:
    """Return metrics of one image or volume, by name.

    Args:
        prediction: (Y, X) or (Z, Y, X), numbers or bool, in the units of `target`.
        target: the same shape.
        mask: the same shape, not 0 where a voxel counts; None: all count.
        names: of `IMAGE_METRICS` (default: all).

    Returns:
        numbers; NaN where a metric is not defined: R2 of a constant target, the correlation with a constant image.

    Raises:
        BadInput: shapes differ or are no image's, an array holds NaN or infinity, the mask is empty, or a name is none
            of a metric.
    """
    wanted = list(IMAGE_METRICS if names is None else names)
    for name in wanted:
        if name not in IMAGE_METRICS:
            raise BadInput(f"no metric '{name}'; there are {', '.join(IMAGE_METRICS)}")
    if target.ndim not in (2, 3) or not target.size:
        raise BadInput(f"target: an array of shape {target.shape}, expected an image (y, x) or a volume (z, y, x)")
    for what, array in (("prediction", prediction), ("mask", mask)):
        if array is not None and array.shape != target.shape:
            raise BadInput(f"{what}: shape {array.shape}, expected that of the target, {target.shape}")
    p, t = prediction.astype(np.float64), target.astype(np.float64)
    for what, array in (("prediction", p), ("target", t)):
        if not np.isfinite(array).all():
            raise BadInput(f"{what}: holds NaN or infinity, expected numbers")
    inside = np.ones(t.shape, bool) if mask is None else mask != 0
    if not inside.any():
        raise BadInput("mask: is 0 everywhere, expected at least one voxel that counts")
    return {name: IMAGE_METRICS[name](p, t, inside) for name in wanted}


def r2(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Return the coefficient of determination, 1 - sum((p - t)^2) / sum((t - mean)^2); NaN for a constant target."""
    p, t = prediction[mask], target[mask]
    around = np.square(t - t.mean()).sum()
    return float(1.0 - np.square(p - t).sum() / around) if np.ptp(t) else float("nan")


def pearson(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Return Pearson's correlation, -1 to 1; NaN if an image is constant."""
    p, t = prediction[mask], target[mask]
    if not np.ptp(p) or not np.ptp(t):
        return float("nan")
    p, t = p - p.mean(), t - t.mean()
    return float((p / np.linalg.norm(p)) @ (t / np.linalg.norm(t)))


def mse(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean squared error."""
    return float(np.square(prediction - target)[mask].mean())


def mae(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean absolute error."""
    return float(np.abs(prediction - target)[mask].mean())


def ssim(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Return the structural similarity, at most 1, averaged over the mask where windows are whole.

    The range of values is that of the whole target.
    """
    return _similarity("ssim", prediction, target, mask)


def ms_ssim(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Return the multi-scale structural similarity, 0 to 1, as `ssim`."""
    return _similarity("ms_ssim", prediction, target, mask)


def similarities(name: str, predictions: np.ndarray, targets: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
    """Return `ssim` or `ms_ssim` of many images at once, (N,) float64, which takes less time than one after the other.

    Args:
        name: `ssim` or `ms_ssim`.
        predictions: (N, Y, X) or (N, Z, Y, X).
        targets: the same shape.
        masks: the same shape, bool; None: all voxels count.
    """
    import torch  # who needs other metrics need not load it

    from emsuite.losses import structural_similarity

    function = {"ssim": structural_similarity.ssim, "ms_ssim": structural_similarity.multiscale_ssim}[name]
    results, step = [], max(1, _VOXELS_AT_ONCE // targets[0].size)
    for begin in range(0, len(targets), step):
        some = slice(begin, begin + step)
        p, t = (torch.from_numpy(x[some].astype(np.float64))[:, None] for x in (predictions, targets))
        weights = torch.ones_like(t) if masks is None else torch.from_numpy(masks[some].astype(np.float64))[:, None]
        results.append(function(p, t, weights, structural_similarity.value_range(t)).numpy())
    return np.concatenate(results)


def _similarity(name: str, prediction: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    return float(similarities(name, prediction[None], target[None], mask[None])[0])


def dice(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Return 2 |p and t| / (|p| + |t|) of the voxels above the thresholds; 1 if neither image has any."""
    p, t = _foreground(prediction)[mask], _foreground(target)[mask]
    either = int(p.sum()) + int(t.sum())
    return 2.0 * int((p & t).sum()) / either if either else 1.0


def accuracy(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of voxels that lie above, or below, the threshold in both images."""
    return float((_foreground(prediction) == _foreground(target))[mask].mean())


def _foreground(image: np.ndarray) -> np.ndarray:
    return image > 0.5 * image.max()


IMAGE_METRICS: dict[str, Metric] = {
    "r2": r2,
    "pearson": pearson,
    "ssim": ssim,
    "ms_ssim": ms_ssim,
    "dice": dice,
    "accuracy": accuracy,
    "mse": mse,
    "mae": mae,
}
