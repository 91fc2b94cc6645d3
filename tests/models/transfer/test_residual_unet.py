"""CySGAN's generator: parameters, its pass beside layers by their definitions in float64, sizes, and tiles."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from emsuite.common.errors import BadInput
from models.transfer.networks import generator, noise, parameters
from models.transfer.reference_layers import conv, leaky

HEADS = {"image": 1, "mask": 1, "contour": 1, "distance": 1}
SMALL: dict[str, Any] = {"widths": [8, 16, 24], "downsample_factors": [[1, 2, 2], [2, 2, 2]],
                         "kernels": [[1, 3, 3], [1, 3, 3], [3, 3, 3]]}  # fmt: skip


def clamped(x: Tensor, widths: tuple[int, ...]) -> Tensor:
    """`x` with its border repeated."""
    for axis, width in enumerate(widths, start=2):
        n = x.shape[axis]
        x = x.index_select(axis, torch.tensor([min(max(i, 0), n - 1) for i in range(-width, n + width)]))
    return x


def grouped(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Eight groups of channels, each with mean 0 and variance 1, epsilon 1e-5."""
    groups = x.reshape(len(x), 8, -1)
    mean, variance = groups.mean(2, keepdim=True), groups.var(2, correction=0, keepdim=True)
    return ((groups - mean) / (variance + 1e-5).sqrt()).reshape(x.shape) * scale.view(-1, 1, 1, 1) + shift.view(
        -1, 1, 1, 1
    )


def between(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Linear along each axis, ends in their places, by NumPy."""
    values = x.numpy()
    for axis, n in enumerate(shape, start=2):
        at, known = np.linspace(0, values.shape[axis] - 1, n), np.arange(values.shape[axis])
        values = np.apply_along_axis(lambda line, at=at, known=known: np.interp(at, known, line), axis, values)
    return torch.from_numpy(values)


class Reference:
    """The network of the state `weights` by its description."""

    def __init__(self, weights: dict[str, Tensor], activation: str, non_local: bool):
        self.weights, self.non_local = weights, non_local
        self.activate = {"elu": lambda x: torch.where(x > 0, x, x.exp() - 1), "leaky_relu": lambda x: leaky(x, 0.2)}[
            activation
        ]

    def convolved(self, name: str, x: Tensor, stride: Any = 1, active: bool = True, pads: Any = None) -> Tensor:
        weight = self.weights[f"{name}.conv.weight"]
        x = conv(clamped(x, pads or tuple(n // 2 for n in weight.shape[2:])), weight, None, stride)
        x = grouped(x, self.weights[f"{name}.norm.weight"], self.weights[f"{name}.norm.bias"])
        return self.activate(x) if active else x

    def block(self, name: str, x: Tensor) -> Tensor:
        y = self.convolved(f"{name}.convs.1", self.convolved(f"{name}.convs.0", x), active=False)
        inner, outer = (self.weights[f"{name}.squeeze.{part}.weight"] for part in ("inner", "outer"))
        weight = 1 / (1 + torch.exp(-self.activate(y.mean((2, 3, 4)) @ inner.T) @ outer.T))
        return self.activate(x + y * weight[..., None, None, None])

    def likened(self, x: Tensor) -> Tensor:
        value, query, key = (
            conv(x, self.weights[f"non_local.{part}.weight"], self.weights[f"non_local.{part}.bias"]).flatten(2)
            for part in ("value", "query", "key")
        )
        likeness = torch.exp(torch.einsum("ncq,nck->nqk", query, key))
        mean = torch.einsum("nqk,nck->ncq", likeness / likeness.sum(2, keepdim=True), value)
        y = conv(
            mean.reshape(*mean.shape[:2], *x.shape[2:]),
            *(self.weights[f"non_local.back.{p}"] for p in ("weight", "bias")),
        )
        return x + grouped(y, *(self.weights[f"non_local.norm.{p}"] for p in ("weight", "bias")))

    def __call__(self, x: Tensor) -> Tensor:
        x, skips = self.convolved("first", x), []
        for level in range(3):
            stride = SMALL["downsample_factors"][level - 1] if level else 1
            x = self.block(f"down.{level}.1", self.convolved(f"down.{level}.0", x, stride))
            skips.append(x)
        x = coarsest = self.likened(skips.pop()) if self.non_local else skips.pop()
        for index in range(2):
            skip = skips.pop()
            x = between(self.convolved(f"up.{index}", x), tuple(skip.shape[2:])) + skip
            if self.non_local:
                x = x + between(self.convolved(f"coarsest.{index}", coarsest, pads=(1, 1, 1)), tuple(skip.shape[2:]))
            x = self.block(f"right.{index}", x)
        return conv(clamped(x, (0, 2, 2)), self.weights["last.weight"], self.weights["last.bias"])


def test_parameters_are_as_published() -> None:
    """Those of UNet3D and UNetPlus3D of pytorch_connectomics v1.0 with residual_se, gn and its default filters."""
    assert parameters(generator("residual_unet", HEADS)) == 3_545_252
    assert parameters(generator("residual_unet", HEADS, non_local=True)) == 3_649_012


@pytest.mark.parametrize("non_local", [False, True])
@pytest.mark.parametrize(("activation", "shape"), [("elu", (3, 9, 13)), ("leaky_relu", (4, 10, 7))])
def test_the_generator_computes_what_its_layers_define(non_local: bool, activation: str, shape: Any) -> None:
    network = generator("residual_unet", HEADS, **SMALL, activation=activation, non_local=non_local)
    for index, weight in enumerate(network.parameters()):
        weight.data += 0.1 * noise(*weight.shape, seed=index)
    x = noise(2, 1, *shape)
    with torch.no_grad():
        expected = Reference(network.state_dict(), activation, non_local)(x)
        torch.testing.assert_close(torch.cat([*network(x).values()], 1), expected)


def test_a_fresh_network_likens_nothing() -> None:
    network, x = generator("residual_unet", **SMALL, non_local=True).non_local, noise(1, 24, 2, 3, 4)
    assert torch.equal(network(x), x)


def test_first_kernels_are_orthogonal() -> None:
    network = generator("residual_unet", **SMALL)
    rows = network.down[2][0].conv.weight.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(24).double(), rtol=0, atol=1e-5)


def test_sizes_are_whole_strides_and_one_voxel() -> None:
    network = generator("residual_unet")
    assert network.output_shape((17, 97, 97)) == (17, 97, 97)
    assert network.output_shape((33, 257, 257)) == (33, 257, 257)
    with pytest.raises(BadInput, match=r"96 along axis 2.*81 and 97 \(steps of 16\)"):
        network.output_shape((17, 97, 96))


@pytest.mark.parametrize("which", ["group norm", "squeeze", "non-local"])
def test_what_sees_the_whole_tile_is_not_local(which: str) -> None:
    keys = {"norm": "group" if which == "group norm" else "none", "squeeze": which == "squeeze",
            "non_local": which == "non-local"}  # fmt: skip
    network, x = generator("residual_unet", **SMALL, **keys), noise(1, 1, 5, 9, 201)
    for index, weight in enumerate(network.parameters()):
        weight.data += 0.1 * noise(*weight.shape, seed=index)
    assert not network.is_local
    with torch.no_grad():
        before = network(x)["image"]
        x[..., -1] += 100
        far = (network(x)["image"] - before)[..., :20]
    assert float(far.abs().max()) > 1e-9
