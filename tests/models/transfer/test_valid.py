"""transfer_em's networks: parameters, sizes, and both passes beside layers by their definitions in float64."""

import pytest
import torch
from torch import Tensor

from emsuite.common.errors import BadInput
from models.transfer.networks import as_sections, discriminator, generator, noise, of_sections, parameters
from models.transfer.reference_layers import conv, leaky, middle, transposed


def reference_generator(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    def layer(name: str, x: Tensor, stride: int = 1) -> Tensor:
        return leaky(conv(x, weights[f"{name}.weight"], stride=stride), 0.3)

    def up(name: str, x: Tensor) -> Tensor:
        return leaky(transposed(x, weights[f"{name}.weight"]), 0.3)

    skip0 = layer("down.0", layer("first", x))
    skip1 = layer("down.1", layer("strided.0", skip0, 2))
    x = up("doubled.0", layer("up.0", layer("strided.1", skip1, 2)))
    x = layer("joined.0", torch.cat([x, middle(skip1, x.shape[2:])], 1))
    x = up("doubled.1", layer("up.1", x))
    x = layer("joined.1", torch.cat([x, middle(skip0, x.shape[2:])], 1))
    return conv(x, weights["heads.image.weight"])


def reference_discriminator(weights: dict[str, Tensor], x: Tensor, prior: Tensor | None = None) -> Tensor:
    for index, stride in enumerate((1, 2, 1, 1, 2)):
        x = leaky(conv(x, weights[f"down.{index}.weight"], stride=stride), 0.3)
    x = leaky(x, 0.3)
    x = x if prior is None else torch.cat([x, prior], 1)
    for index, stride in enumerate((1, 2, 1)):
        x = leaky(conv(x, weights[f"judge.{index}.weight"], stride=stride), 0.3)
    return conv(x, weights["last.weight"], weights["last.bias"])


def test_parameters_are_as_published() -> None:
    assert parameters(generator("valid_unet")) == 129_480
    assert parameters(generator("valid_unet", dims=2)) == 38_040
    assert parameters(discriminator("valid")) == 181_369
    assert parameters(generator("valid_unet", width=4)) == 32_532  # the light network


@pytest.mark.parametrize("size", range(38, 103, 4))
def test_every_legal_size_gives_34_less(size: int) -> None:
    for dims, sections in ((2, 1), (3, 38 if size > 60 else size)):
        network = generator("valid_unet", dims=dims, width=1)
        shape = (sections, size, 38)
        out = network(noise(1, 1, *shape))["image"].shape[2:]
        assert tuple(out) == network.output_shape(shape) == (sections if dims == 2 else sections - 34, size - 34, 4)


@pytest.mark.parametrize("size", [34, 37, 39, 40, 41, 72, 73, 75])
def test_other_sizes_are_refused(size: int) -> None:
    network = generator("valid_unet", width=1)
    with pytest.raises(BadInput, match=f"{size} along axis 1 does not fit the generator.*steps of 4"):
        network.output_shape((74, size, 74))
    with pytest.raises(BadInput, match=r"2 along axis 2.*none below and 38"):
        network.output_shape((74, 74, 2))
    with pytest.raises(BadInput, match="70 and 74"):
        network.output_shape((74, 72, 74))


def test_all_published_sizes_are_exact() -> None:
    """74 -> 40, and 98 -> 64, the blocks of its cloud server; the discriminator sees one and four logits an axis."""
    network, judge = generator("valid_unet", width=1), discriminator("valid", width=1)
    assert network.output_shape((74, 74, 74)) == (40, 40, 40)
    assert network.output_shape((98, 98, 98)) == (64, 64, 64)
    assert judge(noise(1, 1, 40, 40, 40)).shape == (1, 1, 1, 1, 1)
    assert judge(noise(1, 1, 40, 64, 64)).shape == (1, 1, 1, 4, 4)


def test_the_generator_computes_what_its_layers_define() -> None:
    network = generator("valid_unet", width=3)
    for weight in network.parameters():
        weight.data *= 10  # so that the last digits of the output tell layers apart
    x = noise(1, 1, 38, 38, 42)
    with torch.no_grad():
        torch.testing.assert_close(network(x)["image"], reference_generator(network.state_dict(), x))


def test_in_2d_each_section_stands_alone() -> None:
    network = generator("valid_unet", dims=2)
    x = noise(2, 1, 2, 38, 42)
    with torch.no_grad():
        expected = of_sections(reference_generator(network.state_dict(), as_sections(x)), 2)
        torch.testing.assert_close(network(x)["image"], expected)
    judge = discriminator("valid", dims=2)
    with torch.no_grad():
        x = noise(2, 1, 3, 40, 48)
        expected = of_sections(reference_discriminator(judge.state_dict(), as_sections(x)), 2)
        torch.testing.assert_close(judge(x), expected)


def test_the_discriminator_computes_what_its_layers_define() -> None:
    judge = discriminator("valid", width=3)
    for weight in judge.parameters():
        weight.data *= 10
    x = noise(2, 1, 40, 48, 41)
    with torch.no_grad():
        torch.testing.assert_close(judge(x), reference_discriminator(judge.state_dict(), x))
    with pytest.raises(BadInput, match=r"\(40, 39, 40\) voxels, expected at least 40 each"):
        judge(noise(1, 1, 40, 39, 40))


def test_one_logit_sees_40_voxels_and_the_next_one_lies_8_behind() -> None:
    judge = discriminator("valid", dims=2)
    x = noise(1, 1, 1, 48, 48).requires_grad_()
    for place, (low, high) in {(0, 0): (0, 40), (1, 1): (8, 48)}.items():
        (slope,) = torch.autograd.grad(judge(x)[(0, 0, 0, *place)], x)
        rows = slope[0, 0, 0].abs().sum(1).nonzero().flatten()
        assert (int(rows.min()), int(rows.max()) + 1) == (low, high)


def test_dropout_lies_between_the_transposed_convolution_and_its_activation() -> None:
    network = generator("valid_unet", width=2).train()
    x = noise(1, 1, 38, 38, 38)
    with torch.no_grad():
        torch.manual_seed(5)
        once = network(x)["image"]
        torch.manual_seed(5)
        torch.testing.assert_close(network(x)["image"], once, rtol=0, atol=0)
        assert not torch.equal(network(x)["image"], once)
        seen: list[Tensor] = []
        network.joined[0].register_forward_hook(lambda _m, inputs, _y: seen.append(inputs[0]))
        torch.manual_seed(5)
        network(x)
    up, skipped = seen[0].chunk(2, 1)
    assert 0.4 < float((up == 0).double().mean()) < 0.6
    assert float((skipped == 0).double().mean()) == 0.0
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(x)["image"], network(x)["image"], rtol=0, atol=0)


def test_weights_begin_as_published() -> None:
    weights = torch.cat([weight.flatten() for weight in generator("valid_unet").parameters()])
    assert abs(float(weights.std()) - 0.02) < 2e-4
    assert abs(float(weights.mean())) < 2e-4
    assert not discriminator("valid").last.bias.any()


def test_further_heads_read_the_same_features() -> None:
    network = generator("valid_unet", {"image": 1, "mask": 1, "distance": 2}, width=2)
    out = network(noise(1, 1, 38, 38, 38))
    assert {name: tuple(values.shape) for name, values in out.items()} == {
        "image": (1, 1, 4, 4, 4), "mask": (1, 1, 4, 4, 4), "distance": (1, 2, 4, 4, 4)}  # fmt: skip
