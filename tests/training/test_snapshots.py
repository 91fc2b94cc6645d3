"""Snapshots: what a network was shown and what it made of it, with the gradients of the loss, in zarr and in HDF5."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import zarr

import builders
from emsuite.config.network import load_network
from emsuite.io.volume import array_names, open_volume
from emsuite.models.network import AutocontextNetwork
from emsuite.training import checkpoint as checkpoints
from emsuite.training import trainer
from emsuite.training.log import read_losses
from emsuite.training.registry import STEPS
from emsuite.training.trained_network import load_trained
from emsuite.training.volumes import load_training_data

CPU = torch.device("cpu")
NEAREST = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
AFFS = {"target": "affinities", "neighborhood": NEAREST, "loss_weight": 0.5}
BCE = {"target": "affinities", "neighborhood": [[0, 0, 3]], "loss": "bce", "weights": "mask"}
LSDS = {"target": "lsds", "sigma": 30, "downsample": 1}
SIZE = (10, 10, 10)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two neurons, a wall between them, and sections at the end that nobody labelled."""
    path = tmp_path_factory.mktemp("volume") / "v.zarr"
    labels = np.ones((30, 30, 30), np.uint64)
    labels[:, :, 15:] = 7
    labels[20:] = 0
    raw = np.random.default_rng(0).integers(0, 256, labels.shape).astype(np.uint8)
    builders.write_array(path / "volumes/raw", raw, SIZE)
    builders.write_array(path / "volumes/labels/neuron_ids", labels, SIZE)
    builders.write_array(path / "volumes/labels/labels_mask", (labels > 0).astype(np.uint8), SIZE)
    return path


def train(folder: Path, volume: Path, until: int, *overrides: str, **sections: Any) -> Path:
    sections = {"heads": {"affs": AFFS, "far": BCE}} | sections
    if not folder.exists():
        builders.write_network(folder, **sections)
    config = load_network(folder, ["training.snapshot_every=3", "training.grow_boundary={in_plane: true}", *overrides])
    trainer.train(folder, config, load_training_data(config, [str(volume)], folder), until, CPU)
    return folder


def read(snapshot: Path) -> dict[str, np.ndarray]:
    return {name: open_volume(snapshot / name).read() for name in array_names(snapshot)}


def test_a_snapshot_holds_the_sample_and_all_that_was_made_of_it(tmp_path: Path, volume: Path) -> None:
    folder = train(tmp_path / "d/n", volume, 4, "training.optimizer.learning_rate=0.01")
    assert sorted(path.name for path in (folder / "snapshots").iterdir()) == ["batch_1.zarr", "batch_3.zarr"]
    found = read(folder / "snapshots/batch_3.zarr")
    of_heads = {
        f"{what}/{head}" for what in ("targets", "weights", "predictions", "gradients") for head in ("affs", "far")
    }
    assert found.keys() == {"raw", "labels", "mask"} | of_heads
    assert found["raw"].shape == (20, 20, 20)
    assert found["labels"].shape == found["mask"].shape == (4, 4, 4)
    assert (found["labels"].dtype, found["mask"].dtype) == (np.uint64, np.uint8)
    for name in of_heads:
        assert found[name].dtype == np.float32
        assert open_volume(folder / "snapshots/batch_3.zarr" / name).offset == (80, 80, 80)
    attributes = dict(zarr.open_group(folder / "snapshots/batch_3.zarr", mode="r").attrs)
    losses = {row["iteration"]: row["loss"] for row in read_losses(folder / "log/losses.csv")}
    assert attributes["iteration"] == 3
    assert attributes["loss"] == pytest.approx(losses[3], rel=1e-6)


def test_the_mask_is_that_of_the_output(tmp_path: Path, volume: Path) -> None:
    """Nothing moves voxels here, and the mask is 1 where labels lie; a boundary is labelled, and is 0."""
    folder = train(tmp_path / "d/n", volume, 12, "training.snapshot_every=1", "training.grow_boundary=null",
                   "training.sampling.min_masked=0.2")  # fmt: skip
    shares = []
    for path in folder.glob("snapshots/*.zarr"):
        found = read(path)
        assert np.array_equal(found["mask"] != 0, found["labels"] != 0)
        shares.append(found["mask"].mean())
    assert min(shares) < 1
    assert max(shares) == 1


@pytest.mark.parametrize("parts", [1, 2])
def test_gradients_are_those_of_the_loss_by_the_prediction(tmp_path: Path, volume: Path, parts: int) -> None:
    """In closed form, of the squared error and of the cross entropy; of the first of the samples of a pass."""
    folder = train(tmp_path / "d/n", volume, 3, "training.batch_size=2", f"training.accumulate={parts}")
    found = read(folder / "snapshots/batch_3.zarr")
    for name, slope in (("affs", lambda p, t: 0.5 * 2 * (p - t)), ("far", lambda p, t: (p - t) / (p * (1 - p)))):
        p, t, w = (found[f"{what}/{name}"].astype(np.float64) for what in ("predictions", "targets", "weights"))
        expected = w * slope(p, t) / (w != 0).sum() / (2 // parts)
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(found[f"gradients/{name}"], expected, rtol=1e-4, atol=1e-9)


def test_both_formats_hold_the_same(tmp_path: Path, volume: Path) -> None:
    paths = []
    for number, form in enumerate(("zarr", "hdf5")):
        folder = train(tmp_path / f"{number}/n", volume, 1, f"training.snapshot_format={form}")
        (path,) = (folder / "snapshots").iterdir()
        paths.append(path)
    assert [path.name for path in paths] == ["batch_1.zarr", "batch_1.hdf"]
    one, other = map(read, paths)
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        np.testing.assert_array_equal(one[name], other[name])
        assert open_volume(paths[0] / name).roi == open_volume(paths[1] / name).roi
    with h5py.File(paths[1]) as file:  # as a user of the tutorial reads it
        assert file.attrs["iteration"] == 1
        assert file.attrs["loss"] == pytest.approx(dict(zarr.open_group(paths[0], mode="r").attrs)["loss"])
        assert list(file["gradients/affs"].attrs["offset"]) == [80, 80, 80]
        assert list(file["gradients/affs"].attrs["resolution"]) == [10, 10, 10]
        assert file["raw"].compression == "gzip"


def test_a_snapshot_in_the_other_format_takes_the_place_of_an_earlier_one(tmp_path: Path, volume: Path) -> None:
    train(tmp_path / "d/n", volume, 1)
    (tmp_path / "d/n/snapshots/.batch_1.hdf.0a1b2c3d.part").write_bytes(b"killed")
    for path in (tmp_path / "d/n/checkpoints").iterdir():
        path.unlink()
    folder = train(tmp_path / "d/n", volume, 1, "training.snapshot_format=hdf5")
    assert [path.name for path in (folder / "snapshots").iterdir()] == ["batch_1.hdf"]


def test_snapshots_and_their_format_have_no_influence_on_weights(tmp_path: Path, volume: Path) -> None:
    settings = ("training.snapshot_every=100", "training.snapshot_every=1"), ("training.snapshot_format=hdf5",) * 2
    files = []
    for number, overrides in enumerate(zip(*settings, strict=True)):
        folder = train(tmp_path / f"{number}/n", volume, 4, *overrides[: 1 + number])
        files.append(checkpoints.read(folder / "checkpoints/checkpoint_4.pt").weights)
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])


def test_gradients_are_kept_in_iterations_that_are_written_alone(
    tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, supervised = {}, STEPS["supervised"]
    run = supervised.run

    def watched(state: Any, config: Any, batches: Any, iteration: int, keep: bool) -> Any:
        result = run(state, config, batches, iteration, keep)
        kept[iteration] = {name: output.gradient is not None for name, output in result.outputs.items()}
        return result

    monkeypatch.setattr(supervised, "run", watched)
    train(tmp_path / "d/n", volume, 4)
    assert kept == {number: dict.fromkeys(("affs", "far"), number in (1, 3)) for number in range(1, 5)}


@pytest.mark.parametrize("with_raw", [False, True])
def test_an_autocontext_snapshot_holds_the_lsds_that_were_read(tmp_path: Path, volume: Path, with_raw: bool) -> None:
    train(tmp_path / "d/lsd", volume, 2, heads={"lsds": LSDS})
    folder = train(tmp_path / "d/ac", volume, 1, heads={"affs": AFFS},
                   autocontext={"network": "lsd", "with_raw": with_raw},
                   training={"input_shape": [36, 36, 36]})  # fmt: skip
    found, path = read(folder / "snapshots/batch_1.zarr"), folder / "snapshots/batch_1.zarr"
    assert found["read/lsds"].shape == (10, 20, 20, 20)
    assert open_volume(path / "read/lsds").offset == (80, 80, 80)
    network, _ = load_trained(folder, load_network(folder))
    assert isinstance(network, AutocontextNetwork)
    raw = torch.from_numpy(found["raw"])[None, None] * 2 - 1
    with torch.no_grad():
        expected = torch.sigmoid(network.frozen(raw)["lsds"])
    np.testing.assert_allclose(found["read/lsds"], (expected * 255).floor()[0] / 255, atol=1.01 / 255)
    assert math.isclose(np.mean(found["read/lsds"] == ((expected * 255).floor()[0] / 255).numpy()), 1, abs_tol=0.01)
