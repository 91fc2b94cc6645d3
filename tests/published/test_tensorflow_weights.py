"""Converted networks against what TensorFlow computed with the same checkpoints (fixtures/make_tensorflow_bundles.py).

The fixtures' input is unequal along z, y and x, and their biases are not zero. That the comparison can fail was seen by
breaking the code: kernels transposed (4, 3, 0, 2, 1), the ReLU behind the transposed convolution left out, skip and
upsampled features swapped, descriptors rounded instead of truncated, first and second moments swapped; the tests of
perturbed checkpoints below do it for single weights.
"""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from builders import RECORDED, recorded
from emsuite.common.errors import BadInput
from emsuite.config.network import load_network
from emsuite.models.network import AnyNetwork, trained_part
from emsuite.published.published import convert
from emsuite.published.tensorflow_bundle import Bundle
from emsuite.published.tensorflow_weights import (
    iteration_of,
    match_variables,
    read_optimizer,
    read_weights,
    weight_names,
)
from emsuite.training import checkpoint as checkpoints
from emsuite.training.optimizer import make_optimizer
from emsuite.training.trained_network import load_trained

FROM_RAW = [("zebrafinch", name) for name in ("baseline", "long_range", "malis", "lsd", "mtlsd")] + [("fib25", "mtlsd")]
AUTOCONTEXT = [("zebrafinch", "aclsd"), ("zebrafinch", "acrlsd")]
WITHIN = 1e-4


def computed(dataset: str, network: str) -> dict[str, np.ndarray]:
    """What TensorFlow computed with a recorded checkpoint."""
    return dict(np.load(RECORDED / dataset / network / "expected.npz"))


def raw_of(expected: dict[str, np.ndarray]) -> Tensor:
    """The recorded input, (1, 1, Z, Y, X) in [-1, 1]."""
    grey = np.random.default_rng(int(expected["raw_seed"])).integers(0, 256, expected["raw_period"], dtype=np.uint8)
    places = [np.arange(n) % period for n, period in zip(expected["raw_shape"], grey.shape, strict=True)]
    raw = grey[np.ix_(*places)].astype(np.float32) / np.float32(255) * np.float32(2) - np.float32(1)
    assert zlib.crc32(raw.tobytes()) == expected["raw_crc32"]
    return torch.from_numpy(raw)[None, None]


def converted(networks: Path, dataset: str, network: str) -> AnyNetwork:
    folder = networks / dataset / network
    convert(recorded(dataset, network), folder)
    return load_trained(folder, load_network(folder))[0].eval()


def farthest(network: AnyNetwork, raw: Tensor, expected: dict[str, np.ndarray]) -> float:
    """The largest difference of any head from what was recorded."""
    with torch.inference_mode():
        predicted = {name: logits.float().sigmoid() for name, logits in network(raw).items()}
    assert predicted.keys() == expected.keys() & {"affs", "lsds"}
    return max(float((out[0] - torch.from_numpy(expected[name])).abs().max()) for name, out in predicted.items())


@pytest.mark.parametrize(("dataset", "network"), FROM_RAW)
def test_heads_equal_tensorflows(thin_networks: Path, dataset: str, network: str) -> None:
    expected = computed(dataset, network)
    assert farthest(converted(thin_networks, dataset, network), raw_of(expected), expected) < WITHIN


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "network"), AUTOCONTEXT)
def test_autocontext_equals_tensorflows(thin_networks: Path, dataset: str, network: str) -> None:
    """The chain from raw: its recorded LSDs keep off the steps between grey values, so that both truncate alike."""
    expected = computed(dataset, network)
    converted(thin_networks, dataset, "lsd")
    assert farthest(converted(thin_networks, dataset, network), raw_of(expected), expected) < WITHIN


@pytest.mark.parametrize(("dataset", "network"), AUTOCONTEXT)
def test_the_second_network_of_autocontext(thin_networks: Path, dataset: str, network: str) -> None:
    expected = computed(dataset, network)
    converted(thin_networks, dataset, "lsd")
    second = trained_part(converted(thin_networks, dataset, network))
    generator = np.random.default_rng(int(expected["context_seed"]))
    context = generator.integers(0, 256, expected["context_shape"], dtype=np.uint8).astype(np.float32) / np.float32(255)
    if network == "acrlsd":  # raw first
        context[0] = context[0] * 2 - 1
    assert farthest(second, torch.from_numpy(context)[None], {"affs": expected["affs_of_context"]}) < WITHIN


@pytest.mark.parametrize("layer", ["layer_0_left_0", "up_3_to_2", "layer_2_right_1", "layer_3_left_1"])
@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_a_single_different_weight_is_noticed(thin_networks: Path, layer: str, kind: str) -> None:
    expected = computed("zebrafinch", "mtlsd")
    network = converted(thin_networks, "zebrafinch", "mtlsd")
    parameter = network.get_parameter(f"unet.{layer}.{kind}")
    with torch.no_grad():
        parameter.view(-1)[-1] += 0.5 * parameter.abs().max()
    assert farthest(network, raw_of(expected), expected) > 3 * WITHIN


def test_one_more_step_of_adam_equals_tensorflows(thin_networks: Path) -> None:
    prefix, expected = recorded("zebrafinch", "mtlsd"), computed("zebrafinch", "mtlsd")
    folder = thin_networks / "zebrafinch" / "mtlsd"
    convert(prefix, folder, optimizer=True)
    config = load_network(folder)
    network, checkpoint = load_trained(folder, config)
    optimizer = make_optimizer(list(network.parameters()), config.training.optimizer)
    assert checkpoint.optimizer is not None
    checkpoints.load_optimizer(optimizer, checkpoint.optimizer, prefix)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    predicted = {name: logits.float().sigmoid() for name, logits in network(raw_of(expected)).items()}
    (((predicted["affs"] - 0.5) ** 2).mean() + ((predicted["lsds"] - 0.25) ** 2).mean()).backward()
    optimizer.step()
    for parameter, variable in match_variables(Bundle(prefix), config).items():
        after = torch.from_numpy(expected[f"after_step/{variable}"])
        after = after.permute(4, 3, 0, 1, 2) if after.ndim == 5 else after
        moved = after - before[parameter]
        assert float(moved.abs().max()) > 1e-6
        torch.testing.assert_close(network.state_dict()[parameter] - before[parameter], moved, rtol=2e-3, atol=1e-7)


def test_malis_reads_the_second_optimizer(thin_networks: Path) -> None:
    prefix = recorded("zebrafinch", "malis")
    config, bundle = load_network(thin_networks / "zebrafinch/malis"), Bundle(prefix)
    first = bundle.read("setup07/unet_layer_0_left_0/bias/malis_optimizer")
    state = read_optimizer(bundle, config, 400_000)["state"]
    assert state[1]["exp_avg"].numpy() == first
    assert state[1]["step"] == 390_000
    early = read_optimizer(bundle, config, 10_000)["state"]
    assert early[1]["exp_avg"].numpy() == bundle.read("setup07/setup07/unet_layer_0_left_0/bias/Adam")
    assert early[1]["step"] == 10_000


def test_every_published_variable_has_a_parameter(thin_networks: Path) -> None:
    for dataset, network in FROM_RAW + AUTOCONTEXT:
        bundle = Bundle(recorded(dataset, network))
        matched = match_variables(bundle, load_network(thin_networks / dataset / network))
        assert sorted(matched.values()) == weight_names(bundle.variables)
        assert len(matched) == 34 + 2 * len(load_network(thin_networks / dataset / network).heads)
        assert iteration_of(bundle) == int(bundle.prefix.name.rsplit("_", 1)[1])


def test_kernels_are_transposed_and_biases_kept(thin_networks: Path) -> None:
    bundle = Bundle(recorded("zebrafinch", "mtlsd"))
    weights = read_weights(bundle, load_network(thin_networks / "zebrafinch/mtlsd"))
    kernel = bundle.read("setup02/unet_up_2_to_1/kernel")  # z y x out in
    assert kernel.shape == (1, 3, 3, 2, 4)
    assert weights["unet.up_2_to_1.weight"].shape == (4, 2, 1, 3, 3)
    assert weights["unet.up_2_to_1.weight"][3, 1, 0, 2, 1] == kernel[0, 2, 1, 1, 3]
    assert weights["heads.lsds.bias"].tolist() == bundle.read("setup02/embedding_0/bias").tolist()
    assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in weights.values())


@pytest.mark.parametrize(
    ("network", "other", "message"),
    [
        ("zebrafinch/baseline", "zebrafinch/lsd", "holds 'setup03/embedding_0/bias', which is no part of the network"),
        ("zebrafinch/mtlsd", "zebrafinch/lsd", "has nothing for 'heads.affs.weight' of the network zebrafinch/mtlsd"),
        ("zebrafinch/lsd", "zebrafinch/mtlsd", "'setup02/affs_0/bias', which is no part of the network zebrafinch/lsd"),
        ("zebrafinch/mtlsd", "fib25/mtlsd", r"'mtlsd/unet_up_1_to_0/kernel' has the shape \(2, 2, 2, 1, 2\), expected"),
        (
            "zebrafinch/baseline",
            "zebrafinch/long_range",
            r"'setup23/affs_0/bias' has the shape \(12,\), expected \(3,\)",
        ),
        ("fib25/small", "fib25/mtlsd", "which is no part of the network fib25/small"),
    ],
)
def test_checkpoints_of_other_networks_are_refused(thin_networks: Path, network: str, other: str, message: str) -> None:
    bundle = Bundle(recorded(*other.split("/")))
    with pytest.raises(BadInput, match=message):
        read_weights(bundle, load_network(thin_networks / network))
