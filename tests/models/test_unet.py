"""The U-Net: parameters of the published networks, names, equivariance, the crop, bad settings."""

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from emsuite.models.crop import centre_crop
from emsuite.models.receptive_field import smallest_input
from emsuite.models.unet import UNet
from emsuite.models.unet_settings import UNetSettings

SMALL = {"num_fmaps": 3, "fmap_inc_factor": 2, "downsample_factors": [[1, 2, 2], [2, 2, 2]]}


def settings(**more: object) -> UNetSettings:
    return UNetSettings.model_validate(SMALL | more)


def test_layers_are_named_as_the_published_checkpoints_name_them() -> None:
    names = {name.rsplit(".", 1)[0] for name, _ in UNet(settings()).named_parameters()}
    sides = [f"layer_{level}_{side}_{i}" for level in range(3) for side in ("left", "right") for i in range(2)]
    assert names == {*sides, "up_1_to_0", "up_2_to_1"} - {"layer_2_right_0", "layer_2_right_1"}


def test_the_first_level_by_hand() -> None:
    """One level down and up, 1x1x1 kernels: pooling, crop, order of the concatenation and ReLUs can be written down."""
    one = [[[1, 1, 1]], [[1, 1, 1]]]
    unet = UNet(settings(downsample_factors=[[2, 2, 2]], kernel_sizes_down=one, kernel_sizes_up=one[:1], num_fmaps=2))
    x = torch.randn(1, 1, 4, 6, 8)
    parts = dict(unet.named_modules())
    left = functional.relu(parts["layer_0_left_0"](x))
    below = functional.relu(parts["layer_1_left_0"](functional.max_pool3d(left, 2)))
    up = functional.relu(parts["up_1_to_0"](below))
    expected = functional.relu(parts["layer_0_right_0"](torch.cat([left, up], 1)))
    torch.testing.assert_close(unet(x), expected)
    assert not torch.allclose(unet(x), functional.relu(parts["layer_0_right_0"](torch.cat([up, left], 1))))


@pytest.mark.parametrize("more", [{}, {"downsample": "strided"}, {"norm": "batch"},
                                  {"stem": {"kernel": [1, 4, 4], "factor": [1, 2, 2]}}])  # fmt: skip
def test_a_shift_by_the_stride_shifts_the_output(more: dict) -> None:
    torch.manual_seed(0)
    unet = UNet(settings(**more)).double().eval()
    shape = [n + 3 * s for n, s in zip(smallest_input(unet.settings), unet.settings.stride, strict=True)]
    x = torch.randn(1, 1, *shape, dtype=torch.float64)
    whole = unet(x)
    z, y, x_ = unet.settings.stride
    part = unet(x[:, :, z:, y:, x_:])
    factor = unet.settings.stem.factor if unet.settings.stem else (1, 1, 1)
    torch.testing.assert_close(part, whole[:, :, z // factor[0] :, y // factor[1] :, x_ // factor[2] :])


def test_every_parameter_receives_a_gradient() -> None:
    unet = UNet(settings(num_fmaps=6))
    unet(torch.randn(1, 1, *smallest_input(unet.settings))).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in unet.parameters())


def test_two_dimensions() -> None:
    flat = UNetSettings(num_fmaps=2, fmap_inc_factor=2, downsample_factors=((2, 2),))
    assert UNet(flat, 3)(torch.zeros(1, 3, 20, 24)).shape == (1, 2, 4, 8)


def test_the_crop_takes_half_the_difference_rounded_down() -> None:
    assert centre_crop(torch.arange(7)[None], (4,)).tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"downsample_factors": [[2, 2], [2, 2, 2]]}, "all of 2 or all of 3"),
        ({"kernel_sizes_down": [[[3, 3, 3]]]}, "lists 1 levels, expected 3"),
        ({"kernel_sizes_up": [[[3, 3, 2]], [[3, 3, 3]]]}, "odd"),
        ({"stem": {"kernel": [3, 3, 3], "factor": [2, 2, 2]}}, "even number"),
        ({"stem": {"kernel": [4, 4, 4], "factor": [0, 2, 2]}}, "greater than 0"),
        ({"downsample_factors": [[2, 2, 0]]}, "greater than 0"),
        ({"kernel_sizes_up": [[[3, 3, -1]], [[3, 3, 3]]]}, "greater than 0"),
        ({"kernel_sizes_down": [[], [[3, 3, 3]], [[3, 3, 3]]]}, "at least 1 item"),
    ],
)
def test_settings_that_do_not_fit_together(more: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**more)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"num_fmaps": 10**18}, "less than or equal to 65536"),
        ({"num_fmaps": 60_000, "fmap_inc_factor": 2}, "240000 feature maps in the coarsest level"),
        ({"downsample_factors": [[1, 1, 1]] * 70}, "at most 12 items"),
        ({"downsample_factors": [[1, 1, 2**70]]}, "at most 64 bits"),
        ({"downsample_factors": [[1, 1, 2**50]]}, "a stride of 1125899906842624"),
        ({"downsample_factors": [[2, 2, 8]] * 5, "fmap_inc_factor": 1}, "a stride of 32768 and a context of"),
        ({"downsample_factors": []}, "at least one factor"),
        ({"downsample_factors": [[1, 1, 1]], "kernel_sizes_down": [[[1, 1, 10**9 + 1]]] * 2}, "a stride of 1 and"),
        ({"downsample_factors": [[1, 1, 1]], "kernel_sizes_down": [[[99, 99, 99]]] * 2}, "a kernel of 970299 voxels"),
        ({"downsample_factors": [[1, 1, 1]], "stem": {"kernel": [1, 1, 9999], "factor": [1, 1, 9999]}}, "a stride of"),
    ],
)
def test_networks_without_end(more: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(**more)


def test_the_largest_networks_are_searched_in_no_time() -> None:
    large = settings(downsample_factors=[[2, 2, 2]] * 7, fmap_inc_factor=1)
    assert min(smallest_input(large)) > 1000
