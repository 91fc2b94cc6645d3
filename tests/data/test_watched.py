"""What training reads, edited before its content is recorded, or before the last sample is read from it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import ROOT, command_of, write_array
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate
from emsuite.config.dataset import Part
from emsuite.config.network import load_network
from emsuite.data.training_volume import StoredVoxels, TrainingVolume
from emsuite.data.watched import Watched
from emsuite.io.volume import LABELS, MASK, RAW, open_volume
from emsuite.training import checkpoint as checkpoints
from emsuite.training import trainer, volumes
from emsuite.training.volumes import load_held_out, load_training_data, paths_read
from small_training import AFFS, two_neurons, write_network
from small_transfer import two_domains, write_padded

CPU = torch.device("cpu")
VOXEL = Coordinate(8, 8, 8)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A network of a volume with a mask, of another to validate on, and of artifacts."""
    for name in ("v.zarr", "val.zarr"):
        two_neurons(tmp_path / name)
        shape = open_volume(tmp_path / name / LABELS).shape
        mask = np.ones(shape, np.uint8)
        mask[0] = 0
        write_array(tmp_path / name / MASK, mask, open_volume(tmp_path / name / LABELS).voxel_size)
    for name in ("raw", "mask"):
        voxels = np.full((2, 40, 40), 200, np.uint8)
        write_array(
            tmp_path / "art.zarr/defect_sections" / name, voxels, open_volume(tmp_path / "v.zarr" / RAW).voxel_size
        )
    artifacts = {"name": "missing_sections", "artifact": 0.5, "artifacts": {"volume": str(tmp_path / "art.zarr")}}
    validation = {"every": 2, "samples": 1, "patience": 9, "data": [str(tmp_path / "val.zarr")]}
    return write_network(tmp_path / "n", {"affs": AFFS}, training={"augment": [artifacts], "validation": validation})


ARRAYS = [f"{name}/{array}" for name in ("v.zarr", "val.zarr") for array in (RAW, LABELS, MASK)]
ARRAYS += ["art.zarr/defect_sections/raw", "art.zarr/defect_sections/mask"]


def edit(array: Path) -> None:
    open_volume(array, "r+").array[1, 2, 3] = 7


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("array", ARRAYS)
def test_an_edit_between_loading_and_recording_gives_no_weights(
    tmp_path: Path, network: Path, array: str, stream: bool
) -> None:
    """The voxels in memory are the old ones, and the record would name the new ones."""
    config, named = load_network(network, [f"training.stream={json.dumps(stream)}"]), [str(tmp_path / "v.zarr")]
    watched = Watched.of(paths_read(config, named, tmp_path))
    loaded = load_training_data(config, named, tmp_path)
    held_out = load_held_out(config, tmp_path, loaded)
    edit(tmp_path / array)
    with pytest.raises(BadInput, match="was replaced or edited while it was read"):
        trainer.train(network, config, loaded, 2, CPU, "refuse", held_out, watched)
    assert checkpoints.iterations(network) == []


@pytest.mark.parametrize("array", ["v.zarr/" + RAW, "val.zarr/" + LABELS])
@pytest.mark.parametrize("stream", [True, False])
def test_an_edit_during_training_matters_to_what_is_streamed(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch, array: str, stream: bool
) -> None:
    config, named = load_network(network, [f"training.stream={json.dumps(stream)}"]), [str(tmp_path / "v.zarr")]
    watched = Watched.of(paths_read(config, named, tmp_path))
    loaded = load_training_data(config, named, tmp_path)
    held_out = load_held_out(config, tmp_path, loaded)
    real = trainer._report

    def edited(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        edit(tmp_path / array)

    monkeypatch.setattr(trainer, "_report", edited)
    arguments = (network, config, loaded, 1, CPU, "refuse", held_out, watched)
    if stream:
        with pytest.raises(BadInput, match=r"volumes/(raw|labels/neuron_ids): was replaced or edited while it was"):
            trainer.train(*arguments)  # type: ignore[arg-type]
    else:
        assert trainer.train(*arguments) == 0  # type: ignore[arg-type]
    assert checkpoints.iterations(network) == ([] if stream else [1])


@pytest.mark.parametrize("array", [
    f"{folder}/{name}" for folder in ("data", "held") for name in (f"a.zarr/{RAW}", f"a.zarr/{LABELS}", f"b.zarr/{RAW}")
])  # fmt: skip
def test_edits_of_domains_count_as_those_of_volumes(tmp_path: Path, array: str) -> None:
    network = write_padded(
        tmp_path / "n", {"held_out": two_domains(tmp_path / "held")}, training={"validation": {"every": 2}}
    )
    config = load_network(network)
    watched = Watched.of(paths_read(config, [], tmp_path))
    loaded = load_training_data(config, [], tmp_path)
    held_out = load_held_out(config, tmp_path, loaded)
    edit(tmp_path / array)
    with pytest.raises(BadInput, match="was replaced or edited while it was read"):
        trainer.train(network, config, loaded, 2, CPU, "refuse", held_out, watched)


def test_train_py_watches_from_before_it_reads(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real = volumes.load_training_data

    def edited(*arguments: Any) -> Any:
        loaded = real(*arguments)
        edit(tmp_path / "v.zarr" / RAW)
        return loaded

    monkeypatch.setattr(volumes, "load_training_data", edited)
    with pytest.raises(SystemExit) as ended:
        command_of(ROOT / "02_train/train.py").main(
            [str(network), "--data", str(tmp_path / "v.zarr"), "--iterations", "1", "--device", "cpu"]
        )
    assert ended.value.code == 2
    assert "volumes/raw: was replaced or edited while it was read; run this stage again" in capfd.readouterr().err


def test_a_plate_in_memory_is_read_once(tmp_path: Path) -> None:
    """Its folder is watched, in which its images lie; so are images that are read as they are needed."""
    (tmp_path / "ready/plate.zarr").mkdir(parents=True)
    name = str(tmp_path / "ready/plate.zarr/A/1/0")
    held = TrainingVolume(torch.zeros(1, 2, 2), None, None, VOXEL, VOXEL, VOXEL, name)
    streamed = replace(held, raw=StoredVoxels)  # type: ignore[arg-type]
    watched = Watched.of([tmp_path / "ready", tmp_path / "art.zarr/raw"])
    assert [*watched.streamed([held]).reading.inputs] == [str(tmp_path / "art.zarr/raw")]
    assert [*watched.streamed([streamed]).reading.inputs] == [*watched.reading.inputs]


def test_volumes_that_are_left_out_may_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, missing = tmp_path / "there.zarr", tmp_path / "missing.zarr"
    there.mkdir()
    parts = [(path, Part(volume=path.stem)) for path in (there, missing)]
    monkeypatch.setattr(volumes, "_parts_of_split", lambda *_: parts)
    network = write_network(tmp_path / "n", {"affs": AFFS})
    read = paths_read(load_network(network), [], tmp_path)
    assert read == [there / name for name in (RAW, LABELS, MASK)]
