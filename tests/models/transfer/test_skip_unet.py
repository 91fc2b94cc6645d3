"""pix2pix's generators: parameters, sizes, and their pass beside layers by their definitions in float64."""

import pytest
import torch
from torch import Tensor

from emsuite.common.errors import BadInput
from models.transfer.networks import as_sections, generator, noise, of_sections, parameters
from models.transfer.reference_layers import conv, leaky, normalized, transposed, zeros


def reference(weights: dict[str, Tensor], x: Tensor, levels: int) -> Tensor:
    """One level within the other, as the published program builds them."""

    def down(level: int, x: Tensor) -> Tensor:
        return conv(zeros(x, 1), weights[f"down.{level}.weight"], weights[f"down.{level}.bias"], 2)

    def inner(level: int, x: Tensor) -> Tensor:
        y = down(level, leaky(x, 0.2))
        if level < levels - 1:
            y = inner(level + 1, normalized(y))
        name = f"up.{levels - 1 - level}"
        y = normalized(transposed(y.clamp(min=0), weights[f"{name}.weight"], weights[f"{name}.bias"]))
        return torch.cat([x, y], 1)

    y = inner(1, down(0, x)).clamp(min=0)
    return transposed(y, weights["heads.image.weight"], weights["heads.image.bias"])


def test_parameters_are_as_published() -> None:
    """54.414 M and 41.829 M are printed for three channels and batch norm: a weight and a bias of each normed channel
    there, a bias of the convolution alone here, and none of the innermost ones there.
    """
    for levels, shown in ((8, 54.414), (7, 41.829)):
        outer = 2 * 16 * (64 + 128) + 2
        normed = 128 + 256 + 512 * (levels - 4) + 512 * (levels - 4) + 256 + 128 + 64
        biases = 64 + normed + 512  # of the outermost, of normed and of the innermost convolution
        printed = parameters(generator("skip_unet", levels=levels)) + outer - biases + 2 * normed
        assert round(printed / 1e6, 3) == shown


@pytest.mark.parametrize(("dims", "levels", "shape"), [(2, 3, (2, 8, 16)), (3, 3, (8, 8, 16)), (2, 2, (1, 4, 8))])
def test_the_generator_computes_what_its_layers_define(dims: int, levels: int, shape: tuple[int, ...]) -> None:
    network = generator("skip_unet", dims=dims, levels=levels, width=2)
    for index, weight in enumerate(network.parameters()):
        weight.data = weight.data * 5 + 0.01 * (index + 1)
    x = noise(2, 1, *shape)
    with torch.no_grad():
        y = network(x)["image"]
        expected = reference(network.state_dict(), x if dims == 3 else as_sections(x), levels)
    torch.testing.assert_close(y, expected if dims == 3 else of_sections(expected, 2))


def test_sizes_are_multiples_of_the_whole_stride() -> None:
    network = generator("skip_unet", levels=7, width=1)
    assert network.output_shape((5, 128, 256)) == (5, 128, 256)
    with pytest.raises(BadInput, match=r"192 along axis 2.*128 and 256 \(steps of 128\)"):
        network.output_shape((1, 128, 192))


def test_levels_from_the_fifth_to_the_last_but_one_drop_out() -> None:
    network = generator("skip_unet", levels=7, width=1, dropout=0.5).train()
    seen: list[Tensor] = []
    for layer in [*network.up, network.heads["image"]]:
        layer.register_forward_hook(lambda _layer, inputs, _output: seen.append(inputs[0]))
    network(noise(1, 1, 1, 128, 128))
    # on the way up: behind the innermost level, then levels 5, 4 (dropped), 3, 2, 1
    dropped = [bool((x[:, x.shape[1] // 2 :] == 0).flatten(2).all(2).logical_not().any()) for x in seen]
    assert len(dropped) == 7
    came_up = [x[:, x.shape[1] // 2 :] for x in seen[1:]]
    shares = [float((x == 0).double().mean()) for x in came_up]
    # behind ReLU about half of all values are 0, behind dropout and ReLU three quarters
    assert [share > 0.65 for share in shares] == [False, True, True, False, False, False]
