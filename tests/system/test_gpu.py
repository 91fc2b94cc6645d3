"""A GPU against the CPU, and its own kernels and graphs against operation by operation.

These tests need a GPU with Triton. They skip elsewhere, also where every other part is required.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv3d

import builders
from builders import ROOT
from emsuite.common.device import tensor_float_32
from emsuite.config.network import build_network, load_network
from emsuite.io.volume import open_volume
from emsuite.models import aligned
from emsuite.models.network import Network
from emsuite.models.receptive_field import receptive_field
from emsuite.models.unet_settings import UNetSettings
from emsuite.training.log import TrainingReport, read_losses
from emsuite.training.trained_network import load_trained
from emsuite.training.trainer import train
from emsuite.training.volumes import load_training_data
from small_training import AFFS, LSDS, two_neurons

if not torch.cuda.is_available() or find_spec("triton") is None:
    pytest.skip("missing: a GPU that torch sees, and Triton", allow_module_level=True)

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
BFLOAT16 = 4e-3
"""Rounding to 8 bits, and once more of the sum: 2**-9 for each value, in the mean of squares."""


def error(found: Tensor, expected: Tensor) -> float:
    """The distance of two tensors over the length of the second."""
    return float((found.double().cpu() - expected.double().cpu()).norm() / expected.double().norm())


@pytest.mark.parametrize(
    ("width", "out", "kernel", "padding"),
    [
        (1, 16, (3, 3, 3), (0, 0, 0)),
        (16, 16, (3, 3, 3), (0, 0, 0)),
        (32, 16, (3, 3, 3), (1, 1, 1)),
        (16, 32, (1, 3, 3), (0, 0, 0)),
        (1, 16, (1, 3, 3), (0, 1, 1)),
    ],
)
def test_convolutions_of_few_channels(width, out, kernel, padding):
    from emsuite.models import channels_triton, convolution_triton

    torch.manual_seed(0)
    x = torch.randn(2, width, 13, 37, 41).bfloat16().double().requires_grad_()
    weight = torch.randn(out, width, *kernel).bfloat16().double().requires_grad_()
    bias = torch.randn(out).double().requires_grad_()
    expected = conv3d(x, weight, bias, padding=padding).relu()
    gradient = torch.randn_like(expected).bfloat16().double()
    expected.backward(gradient)
    on_gpu = [t.detach().to(GPU, torch.bfloat16, memory_format=torch.channels_last_3d) for t in (x, weight, gradient)]
    y = convolution_triton.convolve(*on_gpu[:2], bias.detach().float().to(GPU), padding, relu=True)
    assert error(y, expected) < BFLOAT16
    slope, of_bias = channels_triton.bias_relu_backward(on_gpu[2], y, relu=True)
    assert error(of_bias, bias.grad) < BFLOAT16
    assert error(convolution_triton.weight_gradient(on_gpu[0], slope, kernel, padding), weight.grad) < BFLOAT16
    if width > 1:
        assert error(convolution_triton.input_gradient(slope, on_gpu[1], padding), x.grad) < BFLOAT16


FORMS: list[dict[str, Any]] = [
    {},
    {"num_fmaps_out": 14},
    {"padding": "same"},
    {"padding": "same", "norm": "batch", "stem": {"kernel": [4, 4, 4], "factor": [2, 2, 2]}},
    {"downsample": "strided"},
    {"downsample": "average_pool", "upsample": "bilinear"},
    {"skip": "add", "residual": "projected", "norm": "batch", "activation": "leaky_relu"},
    {"upsample": "nearest", "order": "norm_activation_conv", "norm": "batch"},
    {"output": "vector"},
]


def gradients_of(network: Network, x: Tensor, device: torch.device, precision: torch.dtype) -> dict[str, Tensor]:
    """The logits of a network and the gradients of its weights, of the mean of squares."""
    network = network.to(device, memory_format=torch.channels_last_3d)
    network.zero_grad()
    x = x.to(device).contiguous(memory_format=torch.channels_last_3d)
    with tensor_float_32(False), torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
        logits = network(x)
    with tensor_float_32(False):
        sum(
            (values if precision == torch.float64 else values.float()).square().mean() for values in logits.values()
        ).backward()
    return {name: values.detach().cpu() for name, values in logits.items()} | {
        name: weight.grad.cpu().clone() for name, weight in network.named_parameters()
    }


@pytest.mark.parametrize("form", FORMS, ids=lambda form: " ".join(map(str, form.values())) or "usual")
def test_every_form_of_the_network_computes_what_the_cpu_computes(form):
    torch.manual_seed(0)
    settings = UNetSettings(num_fmaps=12, fmap_inc_factor=2, downsample_factors=[(1, 2, 2), (2, 2, 2)], **form)
    network = Network(settings, 1, {"lsds": 10, "affs": 3})
    shape = (32, 64, 64) if form.get("padding") == "same" else receptive_field(settings).input_for((12, 24, 24))
    x = torch.rand(2, 1, *shape) * 2 - 1
    expected = gradients_of(network.double(), x.double(), CPU, torch.float64)
    network.float()
    for precision, of_logits, of_gradients in ((torch.float32, 2e-5, 3e-3), (torch.bfloat16, 0.02, 0.05)):
        on_cpu, on_gpu = (gradients_of(network, x, device, precision) for device in (CPU, GPU))
        for name in expected:
            if expected[name].norm() > 1e-6:  # a value that rounding brings to the other side of a ReLU counts whole
                least = of_logits if name in network.heads else of_gradients
                limit = 4 * error(on_cpu[name], expected[name]) + least
                assert error(on_gpu[name], expected[name]) < limit, (precision, name, limit)


def test_batch_normalisation_moves_the_averages_as_torch_does():
    from emsuite.models.norm_triton import norm_relu

    torch.manual_seed(0)
    ours, theirs = (torch.nn.BatchNorm3d(48, momentum=0.03).to(GPU) for _ in range(2))
    x = (torch.randn(2, 48, 20, 30, 31, device=GPU) * 3 + 2).bfloat16()
    mine, plain = x.clone().requires_grad_(), x.float().requires_grad_()
    y, expected = norm_relu(ours, mine), theirs(plain).relu()
    slope = torch.randn_like(expected).bfloat16()
    y.backward(slope)
    expected.backward(slope.float())
    assert error(y, expected) < BFLOAT16
    assert error(mine.grad, plain.grad) < 2 * BFLOAT16
    assert error(ours.weight.grad, theirs.weight.grad) < BFLOAT16
    assert error(ours.bias.grad, theirs.bias.grad) < BFLOAT16
    for name, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name].double(), value.double(), rtol=1e-5, atol=1e-6), name
    with torch.no_grad():
        assert error(norm_relu(ours.eval(), x), theirs.eval()(x.float()).relu()) < BFLOAT16


def weights_after(folder: Path, data: str, *overrides: str) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """The weights and the losses of a training on the GPU."""
    config = load_network(folder, overrides)
    volumes = load_training_data(config, [data], ROOT)
    assert train(folder, config, volumes, config.training.iterations, GPU) == 0
    return load_trained(folder, config)[0].state_dict(), read_losses(folder / "log/losses.csv")


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_graphs_snapshots_and_profiles_change_no_bit(tmp_path, norm, caplog):
    """Iterations as a CUDA graph, with iterations between them that are written, and their parts measured."""
    data = str(two_neurons(tmp_path / "v.zarr"))
    unet = {"num_fmaps": 12, "fmap_inc_factor": 2, "downsample_factors": [[2, 2, 2]], "norm": norm}
    training = {"iterations": 12, "deterministic": True, "precision": "bfloat16", "average": 0.9,
                "augment": [{"name": "mirror_transpose", "mirror": [0, 1, 2]}],
                "optimizer": {"learning_rate": 0.001, "clip_norm": 1}}  # fmt: skip
    found = []
    for name, more in {
        "plain": {"cuda_graph": False},
        "graph": {},
        "written": {"snapshot_every": 5},
        "measured": {"profile_every": 4},
    }.items():
        folder = builders.write_network(
            tmp_path / name, heads={"lsds": LSDS, "affs": AFFS}, unet=unet, training=training | more
        )
        found.append(weights_after(folder, data))
    snapshots = sorted((tmp_path / "written/snapshots").iterdir())
    assert snapshots
    for weights, losses in found[1:]:
        assert [row["loss"] for row in losses] == [row["loss"] for row in found[0][1]]
        assert all(torch.equal(weights[key], found[0][0][key]) for key in weights)


def test_a_profile_tells_what_the_gpu_takes(tmp_path, monkeypatch):
    tables = []
    monkeypatch.setattr(TrainingReport, "add_profile", lambda self, iteration, times: tables.append(times))
    data = str(two_neurons(tmp_path / "v.zarr"))
    folder = builders.write_network(tmp_path / "n", training={"iterations": 12, "profile_every": 6})
    weights_after(folder, data)
    assert len(tables) == 2
    assert {"sample", "targets", "step"} <= set(tables[1])
    assert tables[1]["step"].number == 6
    assert 0 < tables[1]["step"].mean < 1000  # ms


def test_a_compiled_network_trains(tmp_path):
    data = str(two_neurons(tmp_path / "v.zarr"))
    folder = builders.write_network(
        tmp_path / "n", training={"iterations": 4, "compile": True, "precision": "bfloat16"}
    )
    _, losses = weights_after(folder, data)
    assert all(np.isfinite(row["loss"]) for row in losses)


def test_a_prediction_equals_that_of_the_cpu(tmp_path):
    from click.testing import CliRunner

    data = two_neurons(tmp_path / "v.zarr")
    folder = builders.write_network(
        tmp_path / "n", training={"iterations": 4, "checkpoint_every": 4}, prediction={"precision": "float32"}
    )
    weights_after(folder, str(data))
    predicted = []
    for device in ("cpu", "cuda"):
        words = [folder, "--raw", data / "volumes/raw", "--out", tmp_path / f"{device}.zarr", "--device", device]
        done = CliRunner().invoke(builders.command_of(ROOT / "03_predict/predict.py"), list(map(str, words)))
        assert done.exit_code == 0, done.output
        predicted.append(open_volume(tmp_path / f"{device}.zarr/affs").read().astype(int))
    assert predicted[0].std() > 0
    assert abs(predicted[0] - predicted[1]).max() <= 1


def test_targets_on_a_gpu_equal_those_of_the_cpu():
    config = load_network(ROOT / "02_train/zebrafinch/mtlsd")
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 40, (1, 6, 13, 13)), np.ones((1, 14, 14, 14), np.int64)).astype(np.int32)
    labels, mask = torch.from_numpy(labels), torch.ones(labels.shape, dtype=torch.uint8)
    expected = config.target_maker(labels, mask, 1)
    found = config.target_maker(labels.to(GPU), mask.to(GPU), 1)
    for name, target in expected.items():
        assert float((found[name].values.cpu() - target.values).abs().max()) < 1e-5, name
        assert float((found[name].weights.cpu() - target.weights).abs().max()) < 1e-5, name


def test_padded_channels_are_those_of_the_gpu():
    network = build_network(load_network(ROOT / "02_train/zebrafinch/mtlsd"))
    x = torch.zeros(1, 1, 4, 4, 4, device=GPU)
    with torch.autocast("cuda", torch.bfloat16):
        assert aligned.aligns(x)
    assert not aligned.aligns(x)
    assert network
