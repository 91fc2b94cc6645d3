"""The yaml files of networks: all of them load, and what is wrong in one is named by file, line and key."""

import shutil
from pathlib import Path

import pytest
import yaml

from builders import NETWORKS, ROOT, SETTINGS
from emsuite.common.errors import BadInput
from emsuite.config.network import frozen_network_folder, load_network


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
    assert refused(folder) == f"dataset.yaml:{line}: training.augment.2.drift: unknown key; it holds 0.01"


def test_an_unknown_augmentation(folder: Path) -> None:
    line = spoil(folder.parent / "dataset.yaml", "name: intensity", "name: intensty")
    message = refused(folder)
    assert message.startswith(f"dataset.yaml:{line}: training.augment.3: Input tag 'intensty' found using 'name'")
    assert "'missing_sections'" in message, "it says which there are"


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
