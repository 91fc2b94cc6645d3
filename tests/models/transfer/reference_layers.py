"""Layers by their definitions, loops over the voxels of kernels, in any precision and for any number of axes."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Sequence[int] = 1) -> Tensor:
    """y[j] = sum over k of w[k] x[stride j + k], without padding."""
    axes = weight.ndim - 2
    strides = (stride,) * axes if isinstance(stride, int) else tuple(stride)
    sizes = [(n - k) // s + 1 for n, k, s in zip(x.shape[2:], weight.shape[2:], strides, strict=True)]
    total: Tensor | float = 0.0
    for offset in itertools.product(*map(range, weight.shape[2:])):
        cut = [slice(o, o + s * (m - 1) + 1, s) for o, s, m in zip(offset, strides, sizes, strict=True)]
        total = total + torch.einsum("nc...,oc->no...", x[(..., *cut)], weight[(..., *offset)])
    assert isinstance(total, Tensor)
    return total if bias is None else total + bias.view(-1, *(1,) * axes)


def transposed(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 2, cut: int = 1,
               more: int = 0) -> Tensor:  # fmt: skip
    """y[stride i + k] += w[k] x[i], then `cut` voxels less at either end, `more` more at the far one."""
    axes = weight.ndim - 2
    full = [(n - 1) * stride + k + more for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)]
    total = torch.zeros((len(x), weight.shape[1], *full), dtype=x.dtype)
    for offset in itertools.product(*map(range, weight.shape[2:])):
        place = [slice(o, o + stride * (n - 1) + 1, stride) for o, n in zip(offset, x.shape[2:], strict=True)]
        total[(..., *place)] += torch.einsum("nc...,co->no...", x, weight[(..., *offset)])
    total = total[(..., *(slice(cut, n - cut) for n in full))]
    return total if bias is None else total + bias.view(-1, *(1,) * axes)


def zeros(x: Tensor, width: int) -> Tensor:
    """`x` with `width` zeros at both ends of all its axes but the first two."""
    larger = torch.zeros((*x.shape[:2], *(n + 2 * width for n in x.shape[2:])), dtype=x.dtype)
    larger[(..., *(slice(width, width + n) for n in x.shape[2:]))] = x
    return larger


def mirrored(x: Tensor, width: int) -> Tensor:
    """`x` with `width` voxels of its mirror image at both ends of all its axes but the first two."""
    for axis in range(2, x.ndim):
        last = x.shape[axis] - 1
        places = [abs(i) if i <= last else 2 * last - i for i in range(-width, last + 1 + width)]
        x = x.index_select(axis, torch.tensor(places))
    return x


def normalized(x: Tensor) -> Tensor:
    """Each channel of each sample with mean 0 and variance 1, epsilon 1e-5."""
    values = x.flatten(2)
    mean, variance = values.mean(2), values.var(2, correction=0)
    one = (..., *(None,) * (x.ndim - 2))
    return (x - mean[one]) / (variance[one] + 1e-5).sqrt()


def leaky(x: Tensor, slope: float) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def middle(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The middle of `x`, of a size that differs by an even number."""
    cuts = [(n - m) // 2 for n, m in zip(x.shape[2:], shape, strict=True)]
    return x[(..., *(slice(c, c + m) for c, m in zip(cuts, shape, strict=True)))]
