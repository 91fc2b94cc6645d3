"""Every network.yaml of the suite: builds, with the published parameter counts and shapes."""

import re
from pathlib import Path

import pytest

from builders import NETWORKS, PUBLISHED_NETWORKS, ROOT
from emsuite.config.describe import as_text, describe
from emsuite.config.network import load_network

TRAIN = ROOT / "02_train"
POOLED_SECTIONS = 1500 * 300 * (27 - 9)
"""Weights by which the coarsest transposed convolution of 3x3x3 is larger than one of 1x3x3."""
ZEBRAFINCH = {"baseline": 95_853_495, "malis": 95_853_495, "long_range": 95_853_612, "lsd": 95_853_586,
              "mtlsd": 95_856_355, "aclsd": 95_856_411, "acrlsd": 95_856_735}  # fmt: skip


def test_all_published_networks_are_there() -> None:
    for folder in NETWORKS:
        assert (folder / "network.yaml").exists(), folder


@pytest.mark.parametrize("name", ZEBRAFINCH)
def test_zebrafinch_parameter_counts(name: str) -> None:
    config = load_network(TRAIN / "zebrafinch" / name)
    described = describe(TRAIN / "zebrafinch" / name, config, config.training.input_shape)
    assert described.trained == ZEBRAFINCH[name]
    assert described.frozen == (ZEBRAFINCH["lsd"] if name in ("aclsd", "acrlsd") else 0)
    assert described.output_shape == (48, 56, 56)
    if not described.frozen:
        assert described.training_flops / 1.75e12 == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("dataset", ["fib25", "hemi"])
@pytest.mark.parametrize("name", PUBLISHED_NETWORKS)
def test_isotropic_networks(dataset: str, name: str) -> None:
    config = load_network(TRAIN / dataset / name)
    described = describe(TRAIN / dataset / name, config, config.training.input_shape)
    assert round(described.trained / 1e6, 1) == 263.7
    assert described.output_shape == (92, 92, 92)


@pytest.mark.parametrize("folder", NETWORKS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_prediction_shapes_are_legal_and_the_table_can_be_printed(folder: Path) -> None:
    config = load_network(folder)
    text = as_text(config, describe(folder, config, config.prediction.input_shape))
    assert f"{config.dataset}/{config.network}" in text
    assert re.search(r"\bheads\.|^last ", text, re.MULTILINE)


def test_arithmetic_per_output_voxel_is_the_published() -> None:
    for name, expected in (("baseline", 0.91), ("mtlsd", 0.92)):
        config = load_network(TRAIN / "zebrafinch" / name)
        described = describe(TRAIN / "zebrafinch" / name, config, config.prediction.input_shape)
        assert described.flops_per_voxel / 1e6 == pytest.approx(expected, abs=0.02)


def test_the_networks_of_transfer_em() -> None:
    folder = TRAIN / "fib25/transfer_em"
    config = load_network(folder)
    described = describe(folder, config, config.training.input_shape)
    assert "parameters of a2b 129,480, b2a 129,480, d_a 181,369, d_b 181,369" in as_text(config, described)
    assert described.output_shape == (40, 40, 40)
    prior = load_network(folder, ["transfer.discriminator.prior={network: ../small, layer: unet.layer_2_left_1}"])
    assert "d_b 181,369 (d_b without those that read its prior)" in as_text(prior, described)


def test_the_cremi_tutorials_network() -> None:
    """As gunpowder's tutorial states it: parameters and shapes."""
    config = load_network(TRAIN / "cremi/boundaries")
    described = describe(TRAIN / "cremi/boundaries", config, config.training.input_shape)
    assert described.trained == 6_459_549
    assert config.training.input_shape == (84, 268, 268)
    assert described.output_shape == (56, 56, 56)
    assert config.prediction.input_shape == (120, 322, 322)
    assert describe(TRAIN / "cremi/boundaries", config, (120, 322, 322)).output_shape == (92, 110, 110)
    assert config.normalization.fixed == (1, 0)


@pytest.mark.parametrize("name", ["mtlsd", "lsd", "acrlsd"])
def test_cremi_networks_are_the_papers_without_pooled_sections(name: str) -> None:
    config = load_network(TRAIN / "cremi" / name)
    described = describe(TRAIN / "cremi" / name, config, config.training.input_shape)
    assert described.output_shape == (56, 56, 56)
    assert described.trained == ZEBRAFINCH[name] - POOLED_SECTIONS
    assert described.frozen == (ZEBRAFINCH["lsd"] - POOLED_SECTIONS if name == "acrlsd" else 0)
