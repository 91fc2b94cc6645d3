"""The volumes that a network is trained on, and what is said of their labels."""

from pathlib import Path

import numpy as np
import pytest

from builders import write_array, write_network
from emsuite.common.errors import BadInput
from emsuite.config.network import NetworkConfig, load_network
from emsuite.training.volumes import load_training_data


def write(folder: Path, name: str, labels: np.ndarray, mask: np.ndarray | None = None) -> str:
    arrays = {"raw": np.zeros(labels.shape, np.uint8), "labels/neuron_ids": labels.astype(np.uint64)}
    for array, voxels in (arrays | ({} if mask is None else {"labels/labels_mask": mask})).items():
        write_array(folder / f"{name}.zarr/volumes/{array}", voxels, (10, 10, 10))
    return str(folder / f"{name}.zarr")


@pytest.fixture
def config(tmp_path: Path) -> NetworkConfig:
    return load_network(write_network(tmp_path / "d/n"))


NOTHING = np.zeros((40, 4, 4), int)
LAST = np.where(np.arange(40)[:, None, None] == 39, 7, NOTHING)


@pytest.mark.parametrize("stream", [False, True])
def test_labels_that_are_all_0_are_refused_and_some_that_are_told(
    config: NetworkConfig, tmp_path: Path, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config = config.model_copy(update={"training": config.training.model_copy(update={"stream": stream})})
    empty, labelled = write(tmp_path, "empty", NOTHING), write(tmp_path, "labelled", LAST)
    masked = write(tmp_path, "masked", LAST, (LAST == 0).astype(np.uint8))
    with pytest.raises(BadInput, match=r"empty\.zarr: all labels are 0 or masked out, expected neurons"):
        load_training_data(config, [empty], tmp_path)
    with pytest.raises(BadInput, match=r"empty\.zarr, .*masked\.zarr: all labels are 0 or masked out"):
        load_training_data(config, [empty, masked], tmp_path)
    assert len(load_training_data(config, [labelled, empty], tmp_path)) == 2
    assert [message.partition(": ")[0] for message in caplog.messages] == [empty]
    caplog.clear()
    assert len(load_training_data(config, [labelled], tmp_path)) == 1
    assert caplog.messages == []


def test_volumes_without_voxels_are_told(config: NetworkConfig, tmp_path: Path) -> None:
    nothing = write(tmp_path, "none", np.zeros((0, 4, 4), int))
    with pytest.raises(BadInput, match=r"holds no voxel, expected at least 1 along each axis"):
        load_training_data(config, [nothing], tmp_path)
