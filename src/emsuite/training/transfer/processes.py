"""What the processes of a run share: gradients, averaged once for each iteration, and the fakes of all of them.

Networks of domain transfer are called several times before each backward pass, with the weights of some left out:
torch's wrapper of one network knows neither.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Average the gradients of all processes, in place; every process must call this with the same weights."""
    if not distributed.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, averaged in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(averaged.view(gradient.shape))


def everywhere(images: Tensor) -> Tensor:
    """Return the images of all processes, one behind the other in the order of their ranks; the same in each."""
    if not distributed.is_initialized():
        return images
    gathered = [torch.empty_like(images, memory_format=torch.contiguous_format) for _ in range(_count())]
    distributed.all_gather(gathered, images.contiguous())
    return torch.cat(gathered)


def own_part(images: Tensor, size: int) -> Tensor:
    """Return the images of this process among those of all, as `everywhere` orders them."""
    first = distributed.get_rank() * size if distributed.is_initialized() else 0
    return images[first : first + size]


def _count() -> int:
    return int(distributed.get_world_size())
