"""The keys of `unet:` beyond the published networks: values by hand, shapes, tiles that meet, one line for the rest."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from emsuite.common.errors import BadInput
from emsuite.models.crop import centre_crop
from emsuite.models.network import Network
from emsuite.models.receptive_field import context, output_shape, receptive_field, smallest_input
from emsuite.models.unet import UNet
from emsuite.models.unet_settings import UNetSettings
from emsuite.prediction.decoder_cropping import trimmed

ONE = [[[1, 1, 1]], [[1, 1, 1]]]
ONE_LEVEL = {"num_fmaps": 2, "fmap_inc_factor": 2, "downsample_factors": [[2, 2, 2]], "kernel_sizes_down": ONE,
             "kernel_sizes_up": ONE[:1]}  # fmt: skip
SMALL = {"num_fmaps": 3, "fmap_inc_factor": 2, "downsample_factors": [[1, 2, 2], [2, 2, 2]]}
FLAT = {"num_fmaps": 3, "fmap_inc_factor": 2, "downsample_factors": [[1, 2, 2], [1, 2, 2]]}
PLANE, DEEP = [[1, 3, 3], [1, 3, 3]], [[3, 3, 3], [3, 3, 3]]
STACK_TO_SLICE = FLAT | {"padding": "same_in_plane", "kernel_sizes_down": [DEEP, PLANE, PLANE],
                         "kernel_sizes_up": [PLANE, PLANE]}  # fmt: skip
OPTIONS = [
    {"upsample": "nearest"}, {"upsample": "bilinear"}, {"skip": "add"}, {"residual": "padded"},
    {"residual": "projected"}, {"downsample": "average_pool"}, {"activation": "elu"}, {"norm": "batch"},
    {"order": "conv_activation_norm", "norm": "batch"}, {"order": "norm_activation_conv", "norm": "batch"},
    {"upsample": "bilinear", "skip": "add", "residual": "padded", "order": "norm_activation_conv"},
    {"upsample": "bilinear", "downsample_factors": [[1, 3, 3], [2, 2, 2]]},
]  # fmt: skip


def settings(base: dict, **more: object) -> UNetSettings:
    return UNetSettings.model_validate(base | more)


def by_hand(unet: UNet, x: Tensor, pool: nn.Module, up: nn.Module, add: bool) -> Tensor:
    """One level down and up with kernels of one voxel, in torch's own layers."""
    parts = dict(unet.named_modules())
    left = functional.relu(parts["layer_0_left_0"](x))
    below = functional.relu(parts["layer_1_left_0"](pool(left)))
    layer = parts["up_1_to_0"]
    raised = functional.relu(up(functional.conv3d(below, layer.weight, layer.bias)))
    joined = left + raised if add else torch.cat([left, raised], 1)
    return functional.relu(parts["layer_0_right_0"](joined))


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize(("upsample", "up"), [
    ("nearest", nn.Upsample(scale_factor=2)), ("repeat", nn.Upsample(scale_factor=2)),
    ("bilinear", nn.Upsample(scale_factor=2, mode="trilinear"))])  # fmt: skip
def test_one_level_by_hand(upsample: str, up: nn.Module, add: bool) -> None:
    skip = "add" if add else "concatenate"
    made = settings(ONE_LEVEL, upsample=upsample, skip=skip, downsample="average_pool", padding="same")
    unet, x = UNet(made).double(), torch.randn(2, 1, 4, 6, 8, dtype=torch.float64)
    torch.testing.assert_close(unet(x), by_hand(unet, x, nn.AvgPool3d(2), up, add))


@pytest.mark.parametrize("residual", ["padded", "projected"])
def test_a_shortcut_by_hand(residual: str) -> None:
    """Two channels grow to four: one of zeros before and one behind, or a projection. On the way up, four shrink."""
    unet = UNet(settings(ONE_LEVEL, residual=residual), 2)
    names = {name.rsplit(".")[0] for name, _ in unet.named_parameters() if "shortcut" in name}
    grown = {"layer_1_left_shortcut"} if residual == "projected" else set()
    assert names == {"layer_0_right_shortcut"} | grown
    parts, x = dict(unet.named_modules()), torch.randn(1, 2, 2, 2, 2)
    short = functional.pad(x, (0, 0, 0, 0, 0, 0, 1, 1))
    if residual == "projected":
        short = parts["layer_1_left_shortcut"](x)
    expected = functional.relu(parts["layer_1_left_0"](x) + short)
    torch.testing.assert_close(unet._level("layer_1_left", x, [(1, 1, 1)], pads=False), expected)


@pytest.mark.parametrize("order", ["conv_norm_activation", "conv_activation_norm", "norm_activation_conv"])
def test_the_order_of_the_steps(order: str) -> None:
    unet = UNet(settings(ONE_LEVEL, order=order, norm="batch", activation="leaky_relu"), 2).double()
    parts, x = dict(unet.named_modules()), torch.randn(1, 2, 4, 4, 4, dtype=torch.float64)
    steps = {"conv": parts["layer_0_left_0"], "norm": parts["layer_0_left_0_norm"],
             "activation": functional.leaky_relu}  # fmt: skip
    expected = x
    for step in order.split("_"):
        expected = steps[step](expected)
    torch.testing.assert_close(unet._level("layer_0_left", x, [(1, 1, 1)], pads=False), expected)
    assert (parts["layer_0_left_0"].bias is None) == (order == "conv_norm_activation")


def test_dropout_is_for_training_alone() -> None:
    unet, x = UNet(settings(ONE_LEVEL, dropout=0.5)), torch.randn(1, 1, 8, 8, 8)
    torch.manual_seed(1)
    first = unet(x)
    assert not torch.equal(first, unet(x))
    torch.manual_seed(1)
    assert torch.equal(first, unet(x))
    plain = UNet(settings(ONE_LEVEL))
    plain.load_state_dict(unet.state_dict())
    assert torch.equal(unet.eval()(x), plain(x))


def test_the_final_activation_follows_the_heads() -> None:
    network = Network(settings(ONE_LEVEL, final_activation="softmax"), 1, {"classes": 3})
    x = torch.randn(1, 1, 4, 4, 4)
    expected = torch.softmax(network.heads["classes"](network.unet(x)), 1)
    assert torch.equal(network(x)["classes"], expected)


@pytest.mark.parametrize("more", OPTIONS)
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_tiles_meet(more: dict, padding: str) -> None:
    """A shift by the stride shifts the output, of padded networks where no border is seen; and sizes are foretold."""
    torch.manual_seed(0)
    made = settings(SMALL, padding=padding, **more)
    unet, field = UNet(made).double().eval(), receptive_field(made)
    x = torch.randn(1, 1, *(n + s for n, s in zip(field.smallest, field.stride, strict=True)), dtype=torch.float64)
    whole = unet(x)
    assert whole.shape[2:] == output_shape(made, x.shape[2:])
    part, stride = unet(x[:, :, *(slice(s, None) for s in field.stride)]), field.stride
    shifted = whole[:, :, *(slice(s, None) for s in stride)]
    right = [n - s - c for n, s, c in zip(x.shape[2:], stride, field.context, strict=True)]
    torch.testing.assert_close(centre_crop(part, right), centre_crop(shifted, right))
    if padding == "valid":
        assert list(part.shape[2:]) == right


@pytest.mark.parametrize("base", [SMALL | {"padding": "same", "upsample": "bilinear", "residual": "projected"},
                                  STACK_TO_SLICE, STACK_TO_SLICE | {"upsample": "bilinear"}])  # fmt: skip
def test_the_cropped_decoder_gives_the_centre_of_the_whole_pass(base: dict) -> None:
    torch.manual_seed(0)
    made = settings(base)
    unet, x = UNet(made).eval(), torch.randn(1, 1, 8, 64, 64)
    kept = (x.shape[2] - context(made)[0] if made.padding == "same_in_plane" else 8, 8, 8)
    with torch.inference_mode():
        whole = unet(x)
        with trimmed(unet, x.shape[2:], kept):
            features = unet(x)
    assert features.numel() < whole.numel()
    torch.testing.assert_close(centre_crop(features, kept), centre_crop(whole, kept), rtol=1e-5, atol=1e-5)


def test_a_stack_becomes_its_middle_section() -> None:
    made = settings(STACK_TO_SLICE, norm="batch", residual="padded")
    assert output_shape(made, (5, 32, 32)) == (1, 32, 32)
    assert output_shape(made, (9, 32, 32)) == (5, 32, 32)
    assert context(made)[0] == 4
    with pytest.raises(BadInput, match="4 along axis 0 does not fit the network; the nearest that do are none below"):
        output_shape(made, (4, 32, 32))
    unet, x = UNet(made).eval(), torch.randn(1, 1, 9, 32, 32)
    assert unet(x).shape == (1, 3, 5, 32, 32)
    torch.testing.assert_close(unet(x[:, :, 2:7])[:, :, 0], unet(x)[:, :, 2])


def test_sections_stay_alone_in_two_dimensions() -> None:
    made = settings(FLAT, padding="same", kernel_sizes_down=[PLANE] * 3, kernel_sizes_up=[PLANE] * 2)
    unet, x = UNet(made).eval(), torch.randn(1, 1, 2, 16, 16)
    torch.testing.assert_close(unet(x)[:, :, :1], unet(x[:, :, :1]))
    flat = UNetSettings(num_fmaps=2, fmap_inc_factor=2, downsample_factors=((2, 2),), padding="same",
                        upsample="bilinear", residual="padded", downsample="average_pool", norm="batch")  # fmt: skip
    assert UNet(flat, 3)(torch.randn(2, 3, 20, 24)).shape == (2, 2, 20, 24)


def test_a_stack_becomes_a_stack() -> None:
    made = settings(SMALL, padding="same", downsample_factors=[[2, 2, 2], [2, 2, 2]])
    assert UNet(made)(torch.zeros(1, 1, 8, 16, 16)).shape == (1, 3, 8, 16, 16)


def test_an_image_becomes_a_vector() -> None:
    made = settings(SMALL, padding="same", output="vector")
    assert output_shape(made, (4, 16, 16)) == (1, 1, 1)
    with pytest.raises(BadInput, match="does not fit the network"):
        output_shape(made, (4, 18, 16))
    network = Network(made, 1, {"numbers": 5})
    assert not [name for name, _ in network.named_parameters() if "up_" in name or "right" in name]
    x = torch.randn(2, 1, 4, 16, 16)
    below = network.unet(x)
    assert below.shape == (2, 12, 1, 1, 1)
    assert network(x)["numbers"].shape == (2, 5, 1, 1, 1)
    alone = settings(SMALL, padding="same", output="vector", kernel_sizes_down=[[[1, 1, 1]]] * 3,
                     downsample_factors=[[1, 1, 1]] * 2)  # fmt: skip
    unet, voxels = UNet(alone), torch.randn(1, 1, 2, 3, 4)
    single = torch.stack([unet(voxel.reshape(1, 1, 1, 1, 1)) for voxel in voxels.flatten()]).mean(0)
    torch.testing.assert_close(unet(voxels), single)


@pytest.mark.parametrize("more", OPTIONS)
def test_every_parameter_receives_a_gradient(more: dict) -> None:
    torch.manual_seed(0)
    made = settings(SMALL, **more)
    unet = UNet(made)
    unet(torch.randn(1, 1, *smallest_input(made))).square().sum().backward()
    without = [name for name, p in unet.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert without == []


@pytest.mark.parametrize(("more", "message"), [
    ({"padding": "same_in_plane", "downsample_factors": [[2, 2]], "kernel_sizes_down": None}, "of 3 axes"),
    ({"output": "vector", "num_fmaps_out": 4}, "no way up"), ({"dropout": 0.7}, "less than 0.7"),
    ({"upsample": "cubic"}, "'transposed', 'repeat', 'nearest' or 'bilinear'"), ({"residual": True}, "'projected'"),
])  # fmt: skip
def test_settings_that_do_not_fit(more: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(SMALL, **more)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_bfloat16_trains_on_a_cpu(options: dict) -> None:
    torch.manual_seed(0)
    unet, x, gradients = UNet(settings(SMALL | {"padding": "same"}, **options)), torch.randn(2, 1, 4, 36, 36), []
    slope = torch.randn_like(unet(x))
    for precise in (True, False):
        unet.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            (unet(x).float() * slope).sum().backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in unet.parameters() if weight.grad is not None]))
    apart = float((gradients[1] - gradients[0]).norm()) / float(gradients[0].norm())
    assert apart < 0.4, "sums of random signs double what 8 bits round off"
