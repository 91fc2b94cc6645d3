"""The yaml files of networks: all of them load, and what is wrong in one is named by file, line and key."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from builders import NETWORKS, ROOT, SETTINGS
from emsuite.common.errors import BadInput
from emsuite.config import network as module
from emsuite.config.network import build_network, frozen_network_folder, load_network, parameter_count


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of fib25/mtlsd, to be spoilt."""
    copy = tmp_path / "02_train/fib25/mtlsd"
    copy.mkdir(parents=True)
    shutil.copytree(ROOT / "01_data/datasets", tmp_path / "01_data/datasets")
    shutil.copy(ROOT / "02_train/fib25/dataset.yaml", copy.parent)
    shutil.copy(ROOT / "02_train/fib25/mtlsd/network.yaml", copy)
    return copy


def line_of(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), start=1) if text in line)


def spoil(path: Path, old: str, new: str) -> int:
    """Replace a piece of a yaml file; returns the line where it was."""
    line = line_of(path, old)
    path.write_text(path.read_text().replace(old, new, 1))
    return line


def refused(folder: Path, *overrides: str) -> str:
    with pytest.raises(BadInput) as error:
        load_network(folder, overrides)
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{folder.resolve().parent}/", "")


@pytest.mark.parametrize("network", NETWORKS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_network_of_the_suite_loads(network: Path) -> None:
    config = load_network(network)
    assert (config.dataset, config.network) == (network.parent.name, network.name)
    first = frozen_network_folder(network, config)
    assert first is None or "lsds" in load_network(first).heads


def test_a_wrong_value_inside_an_augmentation(folder: Path) -> None:
    line = spoil(folder.parent / "dataset.yaml", "shift: 0.01", "shift: much")
    assert refused(folder).startswith(f"dataset.yaml:{line}: training.augment.2.shift: Input should be a valid number")
    line = spoil(folder.parent / "dataset.yaml", "shift: much", "drift: 0.01")
    line = f"dataset.yaml:{line}: training.augment.2.drift: unknown key; it holds 0.01; expected one of shift, "
    assert refused(folder).startswith(line)


def test_an_unknown_augmentation(folder: Path) -> None:
    line = spoil(folder.parent / "dataset.yaml", "name: intensity", "name: intensty")
    message = refused(folder)
    assert message.startswith(f"dataset.yaml:{line}: training.augment.3.name: expected one of intensity, ")
    assert "missing_sections" in message, "it says which there are"


def test_a_wrong_value_inside_a_head(folder: Path) -> None:
    line = spoil(folder / "network.yaml", "sigma: 80", "sigma: -80")
    assert refused(folder).startswith(f"mtlsd/network.yaml:{line}: heads.lsds.sigma: Input should be greater than 0")
    line = spoil(folder / "network.yaml", "sigma: -80", "sigmas: 80")
    assert refused(folder).startswith(f"mtlsd/network.yaml:{line}: heads.lsds.sigmas: unknown key; it holds 80")
    spoil(folder / "network.yaml", "sigmas: 80", "")
    assert refused(folder) == f"mtlsd/network.yaml:{line - 2}: heads.lsds.sigma: missing, expected a value"


def test_a_wrong_value_among_those_of_the_network(folder: Path) -> None:
    line = spoil(folder / "network.yaml", "num_fmaps_out: 14", "num_fmaps_out: 0")
    assert refused(folder).startswith(f"mtlsd/network.yaml:{line}: unet.num_fmaps_out: ")


def test_overrides_are_named_themselves(folder: Path) -> None:
    assert refused(folder, "training.batch_size=0").startswith("--set training.batch_size=0: training.batch_size: ")
    assert refused(folder, "training.bach_size=2").startswith("--set training.bach_size=2: training.bach_size: unknown")
    assert "betas.1: Input should be less than 1; it holds 3" in refused(folder, "training.optimizer.betas=[0.9, 3]")
    assert load_network(folder, ["training.batch_size=2"]).training.batch_size == 2


def test_a_last_activation_that_the_heads_have_themselves_is_refused(folder: Path) -> None:
    assert "the head 'lsds' has an activation of its own, sigmoid" in refused(folder, "unet.final_activation=relu")
    vector = ["unet.output=vector", "unet.num_fmaps_out=null"]
    assert "unet.output holds vector, but heads predict values of voxels" in refused(folder, *vector)


def test_the_first_weights_are_those_that_the_network_names(folder: Path) -> None:
    small = ["unet.num_fmaps=2", "unet.fmap_inc_factor=1"]
    weights = {}
    for kind in ("he", "glorot"):
        torch.manual_seed(0)
        weights[kind] = build_network(load_network(folder, [*small, f"training.initial_weights={kind}"])).state_dict()
    assert weights["glorot"]["unet.layer_0_left_0.weight"].abs().max() <= (6 / (27 * (1 + 2))) ** 0.5
    assert not weights["glorot"]["heads.affs.bias"].any()
    assert weights["he"]["heads.affs.bias"].any()
    he, glorot = (load_network(folder, [f"training.initial_weights={kind}"]).architecture() for kind in weights)
    assert he == glorot, "a checkpoint that began as one goes on as the other"


@pytest.mark.parametrize("name", ["32", "1e5", "no", "null", "2024-01-01"])
def test_a_folder_may_have_any_name(folder: Path, name: str) -> None:
    renamed = folder.rename(folder.with_name(name))
    assert load_network(renamed).network == name


def test_what_is_no_network_is_refused(folder: Path) -> None:
    assert "no such folder" in refused(folder / "none")
    assert "has no network.yaml" in refused(folder.parent)


def test_yaml_of_the_suite_keeps_to_what_yaml_says_today() -> None:
    """PyYAML reads 1e-4 as a text and 010 as 8: neither may be in our files."""
    for path in SETTINGS:
        for token in yaml.scan(path.read_text()):
            if isinstance(token, yaml.ScalarToken) and token.plain:
                assert not (token.value[:1].isdigit() and "e" in token.value and "." not in token.value), path
                assert not (token.value.startswith("0") and token.value.isdigit() and token.value != "0"), path


def test_the_voxel_size_is_the_data_sets_unless_the_network_says_another(folder: Path) -> None:
    assert load_network(folder).voxel_size == (8, 8, 8)
    data_set = folder.parents[2] / "01_data/datasets/fib25.yaml"
    data_set.write_text(data_set.read_text().replace("voxel_size: [8, 8, 8]", "voxel_size: [4, 6, 8]"))
    assert load_network(folder).voxel_size == (4, 6, 8)
    assert load_network(folder, ["voxel_size=[5, 5, 5]"]).voxel_size == (5, 5, 5)
    network = folder / "network.yaml"
    network.write_text("voxel_size: [16, 16, 16]\n" + network.read_text())
    assert load_network(folder).voxel_size == (16, 16, 16)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.batch_size=1000000000", "training.batch_size: Input should be less than or equal to 1048576"),
        ("training.input_shape=[1000000000, 196, 196]", "training: input_shape [1000000000, 196, 196] of 1 samples"),
        ("prediction.input_shape=[100000, 100000, 100000]", "expected at most 2^40"),
        (f"training.sampling.seed={2**80}", "training.sampling.seed: expected a number of at most 64 bits"),
        (f"training.iterations={10**30}", "training.iterations: expected a number of at most 64 bits"),
        ("voxel_size=[8, 8, 10000000000]", "voxel_size.2: Input should be less than or equal to 1000000000"),
        ("network=' '", "network: a blank text"),
        ("training.augment=[{name: blur, sigma: [0, 1e300]}]", "training.augment.0.sigma.1: Input should be less"),
    ],
)
def test_sizes_without_end(folder: Path, override: str, words: str) -> None:
    assert words in refused(folder, override)


def test_weights_that_do_not_fit_into_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted before they are allocated; the count draws nothing from torch's random state."""
    config = load_network(folder)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    count = parameter_count(config)
    assert torch.equal(torch.rand(1), expected)
    with torch.device("meta"):
        assert count == sum(parameter.numel() for parameter in build_network(config).parameters())
    monkeypatch.setattr(module, "free_memory", lambda: 4 * count - 1)
    with pytest.raises(BadInput, match=r"fib25/mtlsd: its weights take \d+\.\d GiB, of which this machine has"):
        build_network(config)
    wide = load_network(folder, ["unet.num_fmaps=60000", "unet.fmap_inc_factor=1", "unet.num_fmaps_out=null"])
    with pytest.raises(BadInput, match=r"its weights take \d{3,}"):
        build_network(wide)
