"""How far padding reaches in, on paper, beside networks whose input goes on beyond its border, or does not."""

from typing import Any

import pytest
import torch

from emsuite.models.transfer.extent import Extent
from models.transfer.networks import generator, noise

FLAT = {"dims": 2, "norm": "none"}
RESIDUAL = {"widths": [8, 8, 8], "norm": "none", "squeeze": False, "downsample_factors": [[1, 2, 2], [1, 2, 2]],
            "kernels": [[1, 3, 3], [1, 3, 1], [1, 1, 3]]}  # fmt: skip
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("valid_unet", {"dims": 2, "width": 2}),
    ("resnet", FLAT | {"width": 1, "blocks": 1}),
    ("resnet", FLAT | {"width": 1, "blocks": 3, "upsample": "resize"}),
    ("resnet", FLAT | {"width": 1, "blocks": 2, "padding": "zeros", "downsample_factors": [[2, 2]]}),
    ("skip_unet", FLAT | {"width": 1, "levels": 2}),
    ("skip_unet", FLAT | {"width": 1, "levels": 4}),
    ("residual_unet", RESIDUAL),
]


def test_layers_on_paper() -> None:
    assert Extent(10).convolved(3) == Extent(8)
    assert Extent(10).convolved(3, padding=1) == Extent(10, 1, 1)
    assert Extent(10, 1, 1).convolved(3, padding=1) == Extent(10, 2, 2)
    assert Extent(10).convolved(4, 2, 1) == Extent(5, 1, 1)
    assert Extent(10).convolved(3, 2, 1) == Extent(5, 1, 0)
    assert Extent(13).transposed(4, 2, 1) == Extent(26, 1, 1)
    assert Extent(26, 1, 1).convolved(3).convolved(3).transposed(4, 2, 1) == Extent(44, 3, 3)
    assert Extent(5).transposed(3, 2, 1, 1) == Extent(10, 0, 1)
    assert Extent(5, 1, 2).repeated(2) == Extent(10, 2, 4)
    assert Extent(5, 1, 2).interpolated(2) == Extent(9, 2, 4)
    assert Extent(5, 1, 2).interpolated(1) == Extent(5, 1, 2)
    assert Extent(8, 1, 1).joined(Extent(12, 4, 1)) == Extent(8, 2, 1)
    assert Extent(2).convolved(4).size < 1


@pytest.mark.parametrize(("kind", "keys"), NETWORKS)
def test_exactly_the_voxels_told_depend_on_the_border(kind: str, keys: dict[str, Any]) -> None:
    network = generator(kind, **keys)
    for weight in network.parameters():
        weight.data = weight.data.abs() * 5 + 0.01  # so that nothing cancels, and no activation is cut off
    stride = network.stride[2]
    n = network.smallest[2] + 24 * stride
    beyond = 20 * stride
    x = noise(1, 1, 1, network.smallest[1], n + 2 * beyond).abs()
    with torch.no_grad():
        whole, part = network(x)["image"], network(x[..., beyond : beyond + n])["image"]
    extent = network.extent(2, n)
    assert part.shape[-1] == extent.size
    pairs = whole[..., beyond : beyond + extent.size], part
    differs = ((pairs[0] - pairs[1]).abs() > 1e-9 * pairs[0].abs()).flatten(0, 3).any(0)
    right = (~differs).nonzero().flatten()
    assert (int(right[0]), extent.size - 1 - int(right[-1])) == (extent.before, extent.behind)
    assert not differs[right[0] : right[-1] + 1].any()
    assert network.extent(0, 7) == Extent(7)


@pytest.mark.parametrize(("kind", "keys"), NETWORKS)
def test_a_single_voxel_reaches_about_as_far_as_the_context(kind: str, keys: dict[str, Any]) -> None:
    network = generator(kind, **keys)
    field, n = network.receptive_field, network.smallest[2] + 40 * network.stride[2]
    x = noise(1, 1, 1, network.smallest[1], n)
    with torch.no_grad():
        before = network(x)["image"]
        impulse = n // 2
        x[..., impulse] += 1e3
        reached = (network(x)["image"] - before)[0, 0, 0].abs().sum(0).nonzero().flatten()
    lost = (n - before.shape[-1]) // 2
    distances = (reached + lost - impulse).abs()
    # tiles begin at whole strides: a voxel behind the first right one of a tile may see up to a stride less one more
    assert abs(int(distances.max()) - field.offset[2]) < 2 * network.stride[2]
    assert int(distances.max()) < field.offset[2] + network.stride[2]
