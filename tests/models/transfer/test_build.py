"""Networks from settings: kinds, heads, and settings that contradict each other."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from emsuite.common.errors import BadInput
from emsuite.models.network import Network
from models.transfer.networks import discriminator, generator, noise

KINDS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("valid_unet", {"width": 2}, (38, 42, 46)),
    ("valid_unet", {"width": 2, "dims": 2}, (3, 42, 46)),
    ("resnet", {"width": 2, "blocks": 1}, (3, 8, 12)),
    ("resnet", {"width": 2, "blocks": 1, "dims": 3}, (8, 8, 12)),
    ("skip_unet", {"width": 2, "levels": 3}, (3, 8, 16)),
    ("residual_unet", {"widths": [8, 16], "downsample_factors": [[1, 2, 2]], "kernels": [[1, 3, 3]] * 2}, (3, 9, 11)),
    ("unet", {"unet": {"num_fmaps": 2, "downsample_factors": [[1, 2, 2]], "padding": "same"}}, (3, 8, 10)),
]


@pytest.mark.parametrize(("kind", "keys", "shape"), KINDS)
def test_every_generator_answers_for_all_heads(kind: str, keys: dict[str, Any], shape: tuple[int, ...]) -> None:
    network = generator(kind, {"image": 1, "mask": 1, "contour": 1, "distance": 1}, **keys)
    out = network(noise(2, 1, *shape))
    assert list(out) == ["image", "mask", "contour", "distance"]
    for values in out.values():
        assert tuple(values.shape) == (2, 1, *network.output_shape(shape))
    field = network.receptive_field
    assert network.output_shape(field.smallest)
    assert all(n > 0 for n in field.step(field.smallest))


@pytest.mark.parametrize(("kind", "keys", "shape"), KINDS)
def test_the_same_seed_gives_the_same_weights(kind: str, keys: dict[str, Any], shape: tuple[int, ...]) -> None:
    x = noise(1, 1, *shape)
    with torch.no_grad():
        assert torch.equal(generator(kind, **keys)(x)["image"], generator(kind, **keys)(x)["image"])


def test_any_unet_of_the_suite_is_a_generator() -> None:
    assert isinstance(generator(*KINDS[-1][:1], **KINDS[-1][1]), Network)


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        ("resnet", {"dims": 3, "downsample_factors": [[2, 2]]}, "expected 3 numbers, 1 or 2 each"),
        ("resnet", {"downsample_factors": [[3, 3]]}, "less than or equal to 2"),
        ("resnet", {"tile_margin": [1, 0, 0]}, "expected 0 along z: sections stand alone"),
        ("residual_unet", {"widths": [8]}, "downsample_factors list 4, expected 0 for 1 widths"),
        ("residual_unet", {"widths": [8, 12]}, "multiple of 8"),
        ("residual_unet", {"kernels": [[3, 3, 3]]}, "kernels list 1, expected 5"),
        ("residual_unet", {"kernels": [[1, 3]] * 5}, "kernels: expected 3 numbers each"),
        ("residual_unet", {"kernels": [[1, 3, 5]] * 5}, "1 or 3"),
        ("skip_unet", {"levels": 1}, "greater than or equal to 2"),
        ("valid_unet", {"dropout": 1.0}, "less than 1"),
        ("unet", {"unet": {"downsample_factors": [[2, 2]]}}, "expected factors of 3 axes"),
        ("unet", {"unet": {"downsample_factors": [[2, 2, 2]], "output": "vector"}}, "and the output image"),
        ("gan", {}, "expected tags"),
    ],
)
def test_settings_that_make_no_generator(kind: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        generator(kind, **keys)


def test_a_prior_needs_settings_and_a_discriminator_that_reads_it() -> None:
    prior = torch.nn.Conv3d(1, 32, 20, 4)
    with pytest.raises(BadInput, match=r"discriminator.prior: missing"):
        discriminator("valid", frozen=prior)
    with pytest.raises(BadInput, match="the kind patch has none"):
        discriminator("patch", frozen=prior)
    described = {"network": "other", "layer": "x", "channels": 32}
    assert discriminator("valid", prior=described).prior is None


def test_discriminators_of_heads_read_three_channels() -> None:
    assert discriminator("patch", in_channels=3, width=1)(noise(1, 3, 1, 24, 24)).shape == (1, 1, 1, 1, 1)
    assert discriminator("valid", in_channels=3, width=1)(noise(1, 3, 40, 40, 40)).shape == (1, 1, 1, 1, 1)
