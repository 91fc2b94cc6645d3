"""Padded channels change no output and no gradient of any published network."""

from pathlib import Path

import pytest
import torch

from emsuite.config.network import _network, load_network
from emsuite.models import aligned, upsample
from emsuite.models.receptive_field import receptive_field

TRAIN = Path(__file__).parents[2] / "02_train"
NETWORKS = sorted(path.parent for path in TRAIN.glob("*/*/network.yaml"))
NARROW = ["unet.num_fmaps=3", "unet.max_fmaps=13"]
"""Networks with few feature maps, in numbers that have to be padded."""


def architectures():
    """Return one network for each architecture, with the names of all networks that have it."""
    names, configs = {}, {}
    for folder in NETWORKS:
        if load_network(folder).unet is None:
            continue
        config = load_network(folder, NARROW)
        key = (config.unet.model_dump_json(), config.in_channels, tuple(h.channels for h in config.heads.values()))
        names.setdefault(key, []).append(f"{config.dataset}-{config.network}")
        configs[key] = config
    return [pytest.param(config, id="+".join(names[key])) for key, config in configs.items()]


@pytest.mark.parametrize("config", architectures())
def test_padding_changes_neither_outputs_nor_gradients(config, monkeypatch):
    for module in (aligned, upsample):  # to multiples of 4, which take less time than those of 16
        monkeypatch.setattr(module, "aligned", lambda channels: channels if channels == 1 else -(-channels // 4) * 4)
    torch.manual_seed(0)
    if config.unet.norm == "batch":
        pytest.skip("batch normalisation: never padded")
    network = _network(config).double()
    shape = receptive_field(config.unet).smallest
    x = torch.rand(1, config.in_channels, *shape, dtype=torch.float64) * 2 - 1
    outputs, gradients = [], []
    for padded in (False, True):
        network.zero_grad()
        with aligned.forced(padded):
            logits = network(x)
        sum(values.square().sum() for values in logits.values()).backward()
        outputs.append({name: values.detach() for name, values in logits.items()})
        gradients.append({name: weight.grad.clone() for name, weight in network.named_parameters()})
    for name in config.heads:
        torch.testing.assert_close(outputs[1][name], outputs[0][name], rtol=0, atol=1e-12)
    for name, gradient in gradients[0].items():
        assert gradients[1][name].shape == gradient.shape
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-9, atol=1e-12 * float(gradient.abs().max()))


@pytest.mark.parametrize(
    ("channels", "padded"),
    [(1, 1), (10, 16), (12, 16), (14, 16), (24, 32), (60, 64), (300, 304), (1500, 1504), (72, 72)],
)
def test_widths(channels, padded):
    assert aligned.aligned(channels) == padded


def test_padded_weights_hold_the_weights_part_by_part_and_zeros():
    weight = torch.rand(14, 24, 3, 1, 3)
    padded = aligned.pad_weight(weight, 2, torch.float32)
    assert padded.shape == (16, 32, 3, 1, 3)
    assert torch.equal(padded[:14, :12], weight[:, :12])
    assert torch.equal(padded[:14, 16:28], weight[:, 12:])
    assert padded.count_nonzero() == weight.count_nonzero()
    assert torch.equal(aligned.crop_weight(padded, weight.shape, 2), weight)


def test_padded_channels_stay_zero():
    layer = torch.nn.Conv3d(12, 14, 3)
    y = aligned.convolve_relu(layer, torch.rand(1, 12, 5, 5, 5))
    assert y.shape == (1, 16, 3, 3, 3)
    assert not y[:, 14:].any()


def test_cpu_in_float32_runs_without_padding():
    assert not aligned.aligns(torch.rand(1, 1, 4, 4, 4))
