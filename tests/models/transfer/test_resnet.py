"""CycleGAN's generator: parameters, sizes, and its pass beside layers by their definitions in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

from emsuite.common.errors import BadInput
from models.transfer.networks import as_sections, generator, noise, of_sections, parameters
from models.transfer.reference_layers import conv, mirrored, normalized, transposed, zeros


def reference(weights: dict[str, Tensor], x: Tensor, blocks: int, *, resize: bool = False, norm: bool = True,
              padded: Any = mirrored) -> Tensor:  # fmt: skip
    def layer(name: str, x: Tensor, stride: int = 1) -> Tensor:
        y = conv(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride)
        return normalized(y) if norm else y

    x = layer("first", padded(x, 3)).clamp(min=0)
    x = layer("down.0", zeros(x, 1), 2).clamp(min=0)
    x = layer("down.1", zeros(x, 1), 2).clamp(min=0)
    for block in range(blocks):
        y = layer(f"blocks.{block}.convs.0", padded(x, 1)).clamp(min=0)
        x = x + layer(f"blocks.{block}.convs.1", padded(y, 1))
    for step in range(2):
        if resize:
            for axis in range(2, x.ndim):
                x = x.repeat_interleave(2, axis)
            x = layer(f"up.{step}", padded(x, 1))
        else:
            # one voxel is cut off at the near end alone: padding 1 and output_padding 1
            x = transposed(x, weights[f"up.{step}.weight"], weights[f"up.{step}.bias"], more=1)
            x = normalized(x) if norm else x
        x = x.clamp(min=0)
    return conv(padded(x, 3), weights["heads.image.weight"], weights["heads.image.bias"])


def spread(network: torch.nn.Module) -> torch.nn.Module:
    """The network with larger weights, and biases that are not 0."""
    for index, weight in enumerate(network.parameters()):
        weight.data = weight.data * 5 + 0.01 * (index + 1)
    return network


def test_parameters_are_as_published() -> None:
    """The published program prints 11.378 M for images of three channels, which both outer layers have here."""
    outer = 2 * (2 * 7 * 7 * 64) + 2  # the two further channels of the first and the last layer
    assert parameters(generator("resnet")) + outer == 11_378_179
    assert parameters(generator("resnet", blocks=6)) + outer == 7_837_699


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_generator_computes_what_its_layers_define(dims: int, resize: bool) -> None:
    keys = {"dims": dims, "width": 2, "blocks": 2, "upsample": "resize" if resize else "transposed"}
    network = spread(generator("resnet", **keys))
    x = noise(2, 1, 8, 12, 16)
    with torch.no_grad():
        y = network(x)["image"]
        if dims == 3:
            expected = reference(network.state_dict(), x, 2, resize=resize)
        else:
            expected = of_sections(reference(network.state_dict(), as_sections(x), 2, resize=resize), 2)
    torch.testing.assert_close(y, expected)
    assert y.shape == x.shape


def test_without_norm_and_with_zeros_around() -> None:
    network = spread(generator("resnet", width=2, blocks=1, norm="none", padding="zeros"))
    x = noise(1, 1, 2, 8, 12)
    with torch.no_grad():
        expected = reference(network.state_dict(), as_sections(x), 1, norm=False, padded=zeros)
        torch.testing.assert_close(network(x)["image"], of_sections(expected, 1))


def test_steps_down_can_leave_out_an_axis() -> None:
    network = generator("resnet", dims=3, width=2, blocks=1, downsample_factors=[[1, 2, 2], [2, 2, 2]])
    assert (network.stride, network.smallest) == ((2, 4, 4), (4, 8, 8))
    for resize in ("transposed", "resize"):
        network = generator(
            "resnet", dims=3, width=2, blocks=1, upsample=resize, downsample_factors=[[1, 2, 2], [2, 2, 2]]
        )
        assert network(noise(1, 1, 6, 8, 12))["image"].shape == (1, 1, 6, 8, 12)


def test_sizes_that_are_not_whole_strides_are_refused() -> None:
    network = generator("resnet", width=1, blocks=1)
    assert network.output_shape((1, 8, 128)) == (1, 8, 128)
    with pytest.raises(BadInput, match=r"126 along axis 1 does not fit.*124 and 128 \(steps of 4\)"):
        network.output_shape((1, 126, 128))
    with pytest.raises(BadInput, match="expected 3 axes"):
        network.output_shape((128, 128))


def test_dropout_is_off_unless_asked_for_and_in_evaluation() -> None:
    x = noise(1, 1, 1, 16, 16)
    with torch.no_grad():
        plain = generator("resnet", width=2, blocks=2)
        torch.testing.assert_close(plain.train()(x)["image"], plain.eval()(x)["image"])
        dropping = generator("resnet", width=2, blocks=2, dropout=0.5)
        torch.testing.assert_close(dropping(x)["image"], plain(x)["image"])
        assert not torch.equal(dropping.train()(x)["image"], dropping(x)["image"])
