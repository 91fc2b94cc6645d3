"""The memory that a training run needs at the least, counted before anything is allocated.

The count leaves out most of what a run really takes, so that no run is refused that could succeed.
"""

import math

import torch

from emsuite.common.device import free_memory
from emsuite.common.errors import BadInput
from emsuite.config.network import NetworkConfig, parameter_count
from emsuite.config.transfer_networks import parameter_counts

_COPIES = 4
"""Of the weights: themselves, their gradients, and Adam's two moments."""


def check_memory(config: NetworkConfig, device: torch.device, processes: int = 1) -> None:
    """Raise BadInput if a training step cannot fit into the free memory of `device` or of this machine.

    Args:
        config: the configuration of the network.
        device: where the network is trained.
        processes: how many share every batch.
    """
    on_device, on_host = least_bytes(config, processes)
    where = f"{config.dataset}/{config.network}: training.input_shape {list(config.training.input_shape)}"
    batch = f"batches of {config.training.batch_size} in {config.training.accumulate} passes"
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    for needed, there, name in ((on_device, free, device.type), (on_host, free_memory(), "machine")):
        if needed > there:
            raise BadInput(
                f"{where}, {batch}: a step takes at least {needed / 2**30:.1f} GiB, of which this {name} has "
                f"{there / 2**30:.1f} free; expected smaller samples, fewer of them, or more passes"
            )


def least_bytes(config: NetworkConfig, processes: int = 1) -> tuple[int, int]:
    """Return the bytes that a training step needs at the least: on the device of the network, and for its samples.

    Of domain transfer, samples count, and no features.

    The device holds the weights, what the optimizer keeps of them, and the features of one pass at the finest level
    (not counted behind a frozen network, which reads a crop); the machine holds the raw voxels of one batch, and the
    labels around an output of one voxel.
    """
    training = config.training
    voxels = math.prod(training.input_shape)
    share = -(-training.batch_size // processes)
    if config.transfer is not None:
        images = 2 * 4 * voxels  # one of each domain
        weights = sum(parameter_counts(config.transfer, config.heads).values())
        return _COPIES * 4 * weights + images * -(-share // training.accumulate), images * share
    unet = config.supervised_unet
    samples = 0 if config.autocontext else -(-share // training.accumulate)
    coarser = math.prod(unet.stem.factor) if unet.stem else 1
    width = 2 if training.precision == "bfloat16" else 4
    kept = [max(0, n - 2 * (k - 1)) for n, k in zip(training.input_shape, _first_kernel(config), strict=True)]
    features = math.prod(kept) // coarser * unet.fmaps(0) * width * samples
    around = config.target_maker.label_context
    labels = math.prod(before + behind + 1 for before, behind in zip(*around, strict=True))
    return _COPIES * 4 * parameter_count(config) + features, 4 * (voxels + labels) * share


def _first_kernel(config: NetworkConfig) -> tuple[int, ...]:
    unet = config.supervised_unet
    return unet.stem.kernel if unet.stem else unet.kernels_down(0)[0]
