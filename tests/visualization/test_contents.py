"""Which arrays of volumes, snapshots and results become layers."""

import json
import logging
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from emsuite.common.errors import BadInput
from emsuite.io.single_file import write_hdf5
from emsuite.io.volume import create_volume
from emsuite.visualization.contents import data_layers, newest_snapshot, result_layers, snapshot_columns


def put(path: Path, *channels: int, dtype: str = "uint8", offset: tuple[int, ...] = (0, 0, 0)) -> None:
    create_volume(path, (*channels, 4, 5, 6), dtype, (40, 4, 4), offset)


def kinds(layers: list) -> dict[str, str]:
    return {layer.name: layer.kind for layer in layers}


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    path = tmp_path / "cube.zarr"
    put(path / "volumes/labels/neuron_ids", dtype="uint64")
    put(path / "volumes/labels/labels_mask")
    put(path / "volumes/raw")
    return path


def test_every_array_below_volumes_raw_first(cube: Path) -> None:
    layers = data_layers([cube])
    assert layers[0].name == "raw"
    assert kinds(layers) == {"raw": "image", "labels/neuron_ids": "segmentation", "labels/labels_mask": "mask"}


def test_several_volumes_are_told_apart(cube: Path, tmp_path: Path) -> None:
    put(tmp_path / "other.zarr/volumes/raw")
    put(tmp_path / "b/cube.zarr/volumes/raw")
    assert [layer.name for layer in data_layers([cube, tmp_path / "other.zarr"])][::3] == ["cube/raw", "other/raw"]
    names = [layer.name for layer in data_layers([cube, tmp_path / "b/cube.zarr"])]
    assert names[-1] == f"{tmp_path}/b/cube.zarr/raw"
    assert len(set(names)) == 4
    assert len(data_layers([cube, cube])) == 3


def test_hdf5(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "cremi.hdf", "w") as file:
        for name, dtype in (("volumes/raw", "u1"), ("volumes/labels/neuron_ids", "u8")):
            file[name] = np.ones((4, 5, 6), dtype)
            file[name].attrs["resolution"] = [40.0, 4.0, 4.0]
    assert kinds(data_layers([tmp_path / "cremi.hdf"])) == {"raw": "image", "labels/neuron_ids": "segmentation"}


def test_an_array_without_a_place_is_left_out_by_name(cube: Path, caplog: pytest.LogCaptureFixture) -> None:
    zarr.open_group(cube, mode="a").create_array("volumes/list", shape=(3,), dtype="u8")
    with caplog.at_level(logging.WARNING):
        assert len(data_layers([cube])) == 3
    assert "not shown" in caplog.text
    assert "volumes/list: no attribute 'resolution'" in caplog.text


def test_containers_that_hold_nothing_are_refused(cube: Path, tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "text.h5").write_text("no HDF5")
    for path, complaint in (
        (tmp_path / "empty.zarr", "holds no array that can be shown"),
        (tmp_path / "none.zarr", "no such volume"),
        (tmp_path / "none.h5", "no such volume"),
        (tmp_path / "text.h5", "cannot be read as HDF5"),
        (tmp_path / "folder.zarr", "cannot be read as a zarr group"),
        (cube / "volumes/raw", "expected the container itself"),
        (tmp_path, "not in a .zarr, .*, .h5, .* or .tiff container"),
    ):
        with pytest.raises(BadInput, match=complaint):
            data_layers([path])


def test_a_snapshot_stands_in_columns(tmp_path: Path) -> None:
    path = tmp_path / "snapshots/batch_101.zarr"
    put(path / "raw", dtype="float32")
    put(path / "labels", dtype="uint64", offset=(40, 4, 4))
    put(path / "labels_mask", offset=(40, 4, 4))
    put(path / "read/lsds", 10, dtype="float32")
    for group in ("targets", "predictions", "weights", "gradients"):
        put(path / group / "affs", 12, dtype="float32")
        put(path / group / "lsds", 10, dtype="float32")
    batch, targets, predictions, gradients = snapshot_columns(path)
    assert kinds(batch) == {
        "raw": "image", "labels": "segmentation", "labels_mask": "mask", "read/lsds": "descriptors",
    }  # fmt: skip
    assert kinds(gradients) == {"gradients/affs": "image", "gradients/lsds": "image"}
    assert kinds(targets) == {
        "targets/affs": "affinities", "targets/lsds": "descriptors", "weights/affs": "image", "weights/lsds": "image",
    }  # fmt: skip
    assert kinds(predictions) == {"predictions/affs": "affinities", "predictions/lsds": "descriptors"}


def test_the_newest_snapshot_is_of_the_highest_iteration_and_finished(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no folder of a network"):
        newest_snapshot(tmp_path)
    (tmp_path / "network.yaml").touch()
    with pytest.raises(BadInput, match="the network was not trained yet"):
        newest_snapshot(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoint_9.pt", "checkpoint_30.pt", "notes.txt"):
        (tmp_path / "checkpoints" / name).touch()
    with pytest.raises(BadInput, match=r"no snapshot yet, the newest checkpoint is of iteration 30; .*snapshot_every"):
        newest_snapshot(tmp_path)
    (tmp_path / "snapshots/batch_1002.hdf").parent.mkdir()
    (tmp_path / "snapshots/batch_1002.hdf").write_bytes(b"")
    assert newest_snapshot(tmp_path).name == "batch_1002.hdf"
    (tmp_path / "snapshots/batch_1002.hdf").unlink()
    for name in ("batch_99.zarr", "batch_1001.zarr", "batch_2001.zarr", "batch_old.zarr"):
        (tmp_path / "snapshots" / name).mkdir(parents=True)
    (tmp_path / "snapshots/batch_2001.zarr.unfinished.json").write_text("{}")
    assert newest_snapshot(tmp_path).name == "batch_1001.zarr"


def test_a_snapshot_that_is_missing_is_told_with_those_that_exist(tmp_path: Path) -> None:
    for iteration in (1, 1000, 200):
        (tmp_path / f"snapshots/batch_{iteration}.zarr").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"batch_7\.zarr: no such snapshot; expected that of iteration 1, 200, 1000$"):
        snapshot_columns(tmp_path / "snapshots/batch_7.zarr")
    for iteration in range(2, 9):
        (tmp_path / f"snapshots/batch_{iteration}.zarr").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"of iteration 1 to 1000 \(10\)$"):
        snapshot_columns(tmp_path / "snapshots/batch_7777.zarr")


def test_results_are_shown_as_far_as_they_are_there(cube: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    put(folder / "prediction.zarr/affs", 3)
    put(folder / "segmentation.zarr/segmentation", dtype="uint64")
    assert kinds(result_layers(folder, {})) == {"affs": "affinities", "segmentation": "segmentation"}
    manifest = {"inputs": {"raw": {"path": str(cube / "volumes/raw")}}}
    (folder / "prediction.zarr.manifest.json").write_text(json.dumps(manifest))
    labels = cube / "volumes/labels/neuron_ids"
    layers = result_layers(folder, {"labels": labels, "segmentation": labels, "raw": None})
    assert [layer.name for layer in layers] == ["raw", "affs", "segmentation", "labels"]
    assert layers[0].volume.path == cube / "volumes/raw"
    assert layers[2].volume.path == labels


def test_labels_that_results_were_scored_by_are_shown(cube: Path, tmp_path: Path) -> None:
    put(tmp_path / "segmentation.zarr/segmentation", dtype="uint64")
    labels = str(cube / "volumes/labels/neuron_ids")
    for content, shown in (
        ({"provenance": {"inputs": {"labels": {"path": labels}}}}, ["segmentation", "labels"]),
        ({"provenance": {"inputs": {"labels": {"path": labels + "_gone"}}}}, ["segmentation"]),
        ({"provenance": 5}, ["segmentation"]),
        ([], ["segmentation"]),
    ):
        (tmp_path / "scores.json").write_text(json.dumps(content))
        assert [layer.name for layer in result_layers(tmp_path, {})] == shown


def test_raw_of_a_file_is_shown_as_that_of_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "prediction.zarr/affs", 3)
    write_hdf5(tmp_path / "cube.h5", {"volumes/raw": (np.zeros((2, 3, 4), np.uint8), {"resolution": [8.0] * 3})}, {})
    for path, shown in (("cube.h5/volumes/raw", ["raw", "affs"]), ("gone.h5/volumes/raw", ["affs"])):
        manifest = {"inputs": {"raw": {"path": str(tmp_path / path)}}}
        (tmp_path / "prediction.zarr.manifest.json").write_text(json.dumps(manifest))
        assert [layer.name for layer in result_layers(tmp_path, {})] == shown


def test_unfinished_results_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "prediction.zarr/affs", 3)
    put(tmp_path / "fragments.zarr/fragments", dtype="uint64")
    (tmp_path / "fragments.zarr.unfinished.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        assert kinds(result_layers(tmp_path, {})) == {"affs": "affinities"}
    assert "fragments.zarr: unfinished" in caplog.text


def test_no_results_are_refused(cube: Path, tmp_path: Path) -> None:
    for folder, given, complaint in (
        (None, {}, "nothing to show"),
        (tmp_path / "none", {}, "no such folder"),
        (tmp_path, {}, "holds no finished prediction.zarr"),
        (None, {"segmentation": cube / "volumes/none"}, "has no array 'volumes/none'"),
        (None, {"affs": cube / "volumes/raw"}, "cannot be shown as affinities"),
    ):
        with pytest.raises(BadInput, match=complaint):
            result_layers(folder, given)


def test_a_folder_above_shows_the_newest_results(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = {}
    for number, name in enumerate(["net/90/a", "net/9/a", "net/9/b"]):
        made[name] = tmp_path / name
        for inside in ("prediction.zarr/affs", "segmentation.zarr/segmentation"):
            put(made[name] / inside, *((3,) if inside.endswith("affs") else ()), dtype="uint8")
            os.utime((made[name] / inside).parent, ns=(number, number))
    caplog.set_level("INFO", "emsuite")
    for folder in (tmp_path, tmp_path / "net", tmp_path / "net/9"):
        paths = {layer.volume.path.parents[1] for layer in result_layers(folder, {})}
        assert paths == {made["net/9/b"]}
    assert f"{made['net/9/b']}; older: {made['net/9/a']}, {made['net/90/a']}" in caplog.text
    paths = {layer.volume.path.parents[1] for layer in result_layers(made["net/90/a"], {})}
    assert paths == {made["net/90/a"]}
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no finished"):
        result_layers(tmp_path / "empty", {})
