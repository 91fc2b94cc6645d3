"""Networks as training moves them, channels last in memory, have the gradients of float64 with channels first."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from emsuite.models.network import moved
from emsuite.models.unet import UNet
from emsuite.models.unet_settings import UNetSettings
from models.test_unet_options import OPTIONS
from models.transfer.networks import discriminator, generator, noise

CASES: dict[str, tuple[nn.Module, int, int]] = {}
"""A network, and the voxels of its input along z, and along y and x."""
for _dims in (2, 3):

    def _deep(n: int, dims: int = _dims) -> tuple[int, int]:
        return n if dims == 3 else 1, n

    for _norm in ("instance", "none"):
        _keys: dict[str, Any] = {"dims": _dims, "norm": _norm, "width": 4}
        for _up in ("transposed", "resize"):
            CASES[f"resnet {_up} {_dims} {_norm}"] = generator("resnet", blocks=1, upsample=_up, **_keys), *_deep(16)
        CASES[f"skip_unet {_dims} {_norm}"] = generator("skip_unet", levels=3, **_keys), *_deep(16)
        CASES[f"patch {_dims} {_norm}"] = discriminator("patch", **_keys), *_deep(40)
    CASES[f"valid_unet {_dims}"] = generator("valid_unet", width=4, dims=_dims), *_deep(74)
for _norm in ("group", "none"):
    _keys = {"widths": [8, 8], "downsample_factors": [[1, 2, 2]], "kernels": [[1, 3, 3], [3, 3, 3]], "norm": _norm}
    CASES[f"residual_unet {_norm}"] = generator("residual_unet", **_keys), 4, 16
_FACTORS = {"num_fmaps": 4, "downsample_factors": [[1, 2, 2], [2, 2, 2]]}
for _options in ({}, {"padding": "same", "norm": "batch"}, *({"padding": "same"} | options for options in OPTIONS)):
    _unet = UNetSettings.model_validate(_FACTORS | _options)
    _size = (4, 16) if "padding" in _options else (26, 64)
    CASES[f"unet {_options}"] = UNet(_unet, in_channels=1).double(), *_size


def gradients(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Of a sum of all outputs, each voxel with a weight of its own: by the weights, and by the input."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = network(x)
    outputs = list(out.values()) if isinstance(out, Mapping) else [out]
    torch.stack([(y * noise(*y.shape, seed=3).to(y.dtype)).mean() for y in outputs]).sum().backward()
    known = {name: weight.grad for name, weight in network.named_parameters()} | {"input": x.grad}
    return {name: gradient for name, gradient in known.items() if gradient is not None}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("samples", [1, 2])
def test_gradients_do_not_depend_on_the_order_of_memory(name: str, samples: int) -> None:
    network, depth, size = CASES[name]
    x = noise(samples, 1, depth, size, size)
    expected = gradients(copy.deepcopy(network), x)
    placed = copy.deepcopy(network).float()
    moved(placed, torch.device("cpu"))
    found = gradients(placed, x.float().contiguous(memory_format=torch.channels_last_3d))
    assert found.keys() == expected.keys()
    largest = max(float(gradient.norm()) for gradient in expected.values())
    for weight, gradient in expected.items():
        apart = float((found[weight].double() - gradient).norm())
        assert apart <= 1e-4 * float(gradient.norm()) + 1e-6 * largest, weight
