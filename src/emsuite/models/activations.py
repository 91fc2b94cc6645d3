"""Activations that torch has, but whose values at its hands depend on the number of threads of a CPU."""

import torch
from torch import Tensor
from torch.nn import functional


def elu(x: Tensor, inplace: bool = False) -> Tensor:
    """Return x above 0 and exp(x) - 1 below (Clevert et al. 2016), the same on any number of threads.

    torch computes the last values of each thread's part in another way, which differs in the last bit. Behind some
    layers many voxels differ, and so does a prediction by one worker from that by two. With gradients, it is torch's.

    Args:
        x: any shape, float.
        inplace: whether `x` may be overwritten.
    """
    if torch.is_grad_enabled() or x.is_cuda:
        return functional.elu(x, inplace=inplace)
    low = x.clamp(max=0).expm1_()
    return low.add_(x.clamp_(min=0) if inplace else x.clamp(min=0))
