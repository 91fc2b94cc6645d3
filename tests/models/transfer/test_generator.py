"""Legal sizes and tiles: put together, tiles equal one whole pass, voxel for voxel."""

from typing import Any

import pytest
import torch
from torch import Tensor

from emsuite.models.crop import centre_crop
from models.transfer.networks import generator, noise

_KINDS: list[tuple[str, dict[str, Any]]] = [
    ("valid_unet", {"width": 2}),
    ("resnet", {"width": 2, "blocks": 1, "norm": "none"}),
    ("resnet", {"width": 2, "blocks": 1, "norm": "none", "upsample": "resize"}),
    ("skip_unet", {"width": 2, "levels": 3, "norm": "none"}),
]
_RESIDUAL = {"widths": [8, 8, 8], "downsample_factors": [[1, 2, 2], [2, 2, 2]], "norm": "none", "squeeze": False,
             "kernels": [[1, 3, 3], [1, 3, 3], [3, 3, 3]]}  # fmt: skip
TILED = [(kind, keys | {"dims": dims}) for kind, keys in _KINDS for dims in (2, 3)] + [("residual_unet", _RESIDUAL)]


@pytest.mark.parametrize(("kind", "keys"), TILED)
def test_stitched_equals_whole(kind: str, keys: dict[str, Any]) -> None:
    network = generator(kind, **keys)
    field = network.receptive_field
    assert network.is_local
    tile, least = field.smallest[2] + field.stride[2], network.smallest[:2]
    n = tile + 4 * field.stride[2]
    step = field.step((*least, tile))[2]

    def right(x: Tensor) -> Tensor:
        """The output of a pass over `x`, along X without the context."""
        y = network(x)["image"]
        return centre_crop(y, [*y.shape[2:4], x.shape[4] - field.context[2]])

    x = noise(1, 1, *least, n)
    with torch.no_grad():
        tiles = [right(x[..., begin : begin + tile])[..., :step] for begin in range(0, n - tile + 1, step)]
        stitched, whole = torch.cat(tiles, -1), right(x)
    assert len(tiles) >= 2
    torch.testing.assert_close(stitched, whole[..., : stitched.shape[-1]], rtol=1e-9, atol=1e-12)


def test_the_smallest_tile_yields_a_whole_stride() -> None:
    for kind, keys in TILED:
        network = generator(kind, **keys)
        field = network.receptive_field
        step = field.step(field.smallest)
        assert all(n >= s for n, s in zip(step, field.stride, strict=True))
        network.output_shape(field.smallest)
        assert network.output_shape(field.input_for((30, 30, 30)))


def test_published_contexts() -> None:
    """Of all that a voxel sees: 20 voxels on each side of transfer_em's, in whole strides of the padded networks."""
    assert generator("valid_unet", width=1).receptive_field.offset == (20, 20, 20)
    assert generator("valid_unet", dims=2, width=1).receptive_field.offset == (0, 20, 20)
    assert generator("resnet", width=1).receptive_field.offset == (0, 84, 84)
    assert generator("resnet", width=1, blocks=6).receptive_field.offset == (0, 60, 60)
    assert generator("skip_unet", width=1, levels=7).receptive_field.offset == (0, 256, 256)


def test_with_instance_norm_a_voxel_depends_on_its_whole_tile() -> None:
    network = generator("resnet", width=2, blocks=1)
    assert not network.is_local
    field, x = network.receptive_field, noise(1, 1, 1, 16, 200)
    with torch.no_grad():
        before = network(x)["image"]
        x[..., -1] += 100
        far = (network(x)["image"] - before)[..., : 200 - field.context[2]]
    assert float(far.abs().max()) > 1e-6


def test_a_margin_of_ones_own_takes_the_place_of_the_context() -> None:
    network = generator("resnet", width=1, tile_margin=[0, 8, 0])
    field = network.receptive_field
    assert (field.context, field.offset) == ((0, 16, 0), (0, 8, 0))
    assert field.smallest == (1, 20, 8)
    assert field.step((4, 128, 128)) == (4, 112, 128)
