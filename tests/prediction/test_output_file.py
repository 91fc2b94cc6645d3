"""A prediction in one HDF5 file, beside that in a zarr."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from builders import ROOT
from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.outputs import manifest_path, read_manifest, unfinished_path
from emsuite.common.state.lock import OutputInUse
from emsuite.common.state.ownership import mark_path
from emsuite.config.network import NetworkConfig, build_network
from emsuite.io.compression import read_compression
from emsuite.io.volume import Volume, array_names, create_volume, open_volume
from emsuite.models.network import Network
from emsuite.prediction import output_file
from emsuite.prediction.output_file import predict_into
from emsuite.prediction.predictor import Predictor, make_predictor
from emsuite.prediction.region import valid_roi
from emsuite.prediction.request import Request
from emsuite.prediction.tiling import BY_STRIDE, Original, Tiling
from emsuite.training import checkpoint
from emsuite.training.step import NETWORK

PREDICT = "03_predict/predict.py"
OFFSET = (400, 0, 46)
TILE = (22, 36, 32)  # 10x20x16 come out of it
TUTORIAL = Original(valid=True, whole_context=True)


def config(margin: str = "half") -> NetworkConfig:
    """A small network of sections with two heads."""
    shape = [*TILE]
    heads = {
        "affs": {"target": "affinities", "neighborhood": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]},
        "long_affs": {"target": "affinities", "neighborhood": [[0, -9, 0], [0, 0, -9]]},
    }
    content = {"dataset": "d", "network": "n", "voxel_size": [50, 4.6, 4.6], "heads": heads}
    content |= {"unet": {"num_fmaps": 3, "fmap_inc_factor": 2, "downsample_factors": [[1, 2, 2]]}}
    content |= {"prediction": {"input_shape": shape, "original_margin": margin}}
    content |= {"training": {"iterations": 1, "input_shape": shape, "sampling": {}}}
    return NetworkConfig.model_validate(content)


@pytest.fixture
def made() -> Network:
    torch.manual_seed(1)
    network = build_network(config()).eval()
    for parameter in network.heads.parameters():
        parameter.data.mul_(3)
    return network


@pytest.fixture
def raw(tmp_path: Path) -> Volume:
    volume = create_volume(tmp_path / "raw.zarr/raw", (36, 60, 50), np.uint8, (50, 4.6, 4.6), OFFSET)
    volume.array[...] = np.random.default_rng(0).integers(0, 256, volume.shape, np.uint8)
    return open_volume(volume.path)


def predictor_of(made: Network, raw: Volume, tiling: Tiling = BY_STRIDE) -> tuple[Predictor, Volume, object]:
    roi = raw.roi if tiling is BY_STRIDE else valid_roi(made, raw, raw.roi, tiling)
    return make_predictor(made, config(), torch.device("cpu"), TILE, raw, roi, tiling), raw, roi


def predict(out: Path, made: Network, raw: Volume, tiling: Tiling = BY_STRIDE, **more: object) -> bool:
    return predict_into(out, {"weights": "w"}, {}, *predictor_of(made, raw, tiling), **more)


def arrays_of(path: Path) -> dict[str, Volume]:
    return {name: open_volume(path / name) for name in array_names(path)}


def test_a_file_holds_what_the_zarr_holds(tmp_path: Path, made: Network, raw: Volume) -> None:
    assert predict(tmp_path / "p.zarr", made, raw)
    assert predict(tmp_path / "p.hdf", made, raw)
    expected, found = arrays_of(tmp_path / "p.zarr"), arrays_of(tmp_path / "p.hdf")
    assert found.keys() == expected.keys() == {"affs", "long_affs"}
    for name, array in found.items():
        np.testing.assert_array_equal(array.read(), expected[name].read())
        assert (array.roi, array.voxel_size, array.dtype) == (raw.roi, raw.voxel_size, np.uint8)
    with h5py.File(tmp_path / "p.hdf") as file:  # as another program reads it
        assert file["affs"].shape == (3, 36, 60, 50)
        assert file["affs"].attrs["offset"].tolist() == list(OFFSET)
        assert file["affs"].attrs["resolution"].tolist() == [50, 4.6, 4.6]
        assert file["affs"].attrs["neighborhood"].tolist() == [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
    assert sorted(path.name for path in tmp_path.iterdir() if "unfinished" in path.name) == []
    assert read_manifest(tmp_path / "p.hdf")["settings"]["file"] == "hdf5"
    assert not predict(tmp_path / "p.hdf", made, raw)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_two_workers_write_the_same_bytes_as_three(tmp_path: Path, made: Network, raw: Volume) -> None:
    predict(tmp_path / "two.h5", made, raw, workers=2)
    predict(tmp_path / "three.h5", made, raw, workers=3)
    assert digest(tmp_path / "two.h5") == digest(tmp_path / "three.h5")


@pytest.mark.parametrize("stage", ["tiles", "file"])
def test_a_stopped_run_continues_to_the_same_bytes(
    tmp_path: Path, made: Network, raw: Volume, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    predict(tmp_path / "whole.hdf", made, raw)
    out, counted = tmp_path / "stopped.hdf", []

    def stopping(whole: Callable) -> Callable:
        def call(*args: object) -> object:
            counted.append(1)
            if len(counted) == 3:
                raise KeyboardInterrupt
            return whole(*args)

        return call

    with monkeypatch.context() as patch:
        if stage == "tiles":
            patch.setattr(Predictor, "__call__", stopping(Predictor.__call__))
        else:
            counted.append(1)
            patch.setattr(output_file, "open_volume", stopping(open_volume))  # while the file is read back
        with pytest.raises(KeyboardInterrupt):
            predict(out, made, raw)
    assert not out.exists()
    assert unfinished_path(out).exists()
    computed, whole = [], Predictor.__call__

    def counting(*args: object) -> object:
        computed.append(1)
        return whole(*args)

    monkeypatch.setattr(Predictor, "__call__", counting)
    assert predict(out, made, raw)
    assert (len(computed) == 0) == (stage == "file")
    assert digest(out) == digest(tmp_path / "whole.hdf")
    assert manifest_path(out).exists()
    assert not unfinished_path(out).exists()


def in_use(lock: Path, out: Path) -> None:
    raise OutputInUse(f"{out}: another run writes it")


@pytest.mark.parametrize("left", ["all of it", "its mark"])
def test_tiles_of_a_run_that_was_killed_behind_its_manifest_go(
    tmp_path: Path, made: Network, raw: Volume, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    out, tiles = tmp_path / "p.hdf", tmp_path / "p.hdf.unfinished.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(output_file, "_remove_tiles", lambda tiles: None)
        predict(out, made, raw)
    if left == "its mark":
        manifest_path(tiles).unlink()
        remove(tiles)
    before = digest(out)
    with monkeypatch.context() as patch:
        patch.setattr(output_file, "owned", in_use)
        assert not predict(out, made, raw)
    assert mark_path(tiles).exists()
    assert not predict(out, made, raw)
    assert sorted(path.name for path in tmp_path.iterdir() if "unfinished" in path.name) == []
    assert digest(out) == before


def test_tiles_of_another_program_stay(tmp_path: Path, made: Network, raw: Volume) -> None:
    predict(tmp_path / "p.hdf", made, raw)
    (tmp_path / "p.hdf.unfinished.zarr").mkdir()
    assert not predict(tmp_path / "p.hdf", made, raw)
    assert (tmp_path / "p.hdf.unfinished.zarr").exists()


def test_other_settings_replace_the_file(tmp_path: Path, made: Network, raw: Volume) -> None:
    out = tmp_path / "p.hdf"
    predict(out, made, raw)
    assert predict_into(out, {"weights": "other"}, {}, *predictor_of(made, raw))
    assert read_manifest(out)["settings"]["weights"] == "other"


def test_a_file_that_the_suite_did_not_write_stays(tmp_path: Path, made: Network, raw: Volume) -> None:
    with h5py.File(tmp_path / "p.hdf", "w") as file:
        file["mine"] = np.arange(3)
    before = digest(tmp_path / "p.hdf")
    with pytest.raises(BadInput, match=r"p\.hdf: exists but was not made by this suite"):
        predict(tmp_path / "p.hdf", made, raw)
    assert digest(tmp_path / "p.hdf") == before


def test_what_a_file_cannot_be_is_refused(tmp_path: Path, made: Network, raw: Volume) -> None:
    with pytest.raises(BadInput, match=r"p\.hdf/volumes: lies in an HDF5 file; expected the name of the file"):
        predict(tmp_path / "p.hdf/volumes", made, raw)
    with pytest.raises(BadInput, match="HDF5 files are packed by gzip, not by blosc"):
        predict(tmp_path / "p.hdf", made, raw, request=Request(compression=read_compression("blosc-lz4")))
    with pytest.raises(BadInput, match=r"expected a name that ends in \.zarr, or in \.hdf"):
        predict(tmp_path / "p.tif", made, raw)
    assert [path.name for path in tmp_path.iterdir()] == ["raw.zarr"]


def test_the_tutorial_s_region_and_its_values(tmp_path: Path, made: Network, raw: Volume) -> None:
    """The whole context is left out on either side; inside, each tile is the network applied to its own input."""
    context, offset = made.receptive_field.context, made.receptive_field.offset
    predict(tmp_path / "p.hdf", made, raw, TUTORIAL)
    affs = open_volume(tmp_path / "p.hdf/affs")
    assert affs.shape == (3, *(n - 2 * c for n, c in zip(raw.shape, context, strict=True)))
    assert affs.offset == raw.offset + raw.voxel_size * context
    read = tuple(slice(c - o, c - o + n) for c, o, n in zip(context, offset, TILE, strict=True))
    x = torch.from_numpy(raw.read()[read]).float()[None, None] / 127.5 - 1
    with torch.no_grad():
        expected = torch.sigmoid(made(x)["affs"])[0].numpy() * 255
    first = tuple(slice(0, n) for n in expected.shape[1:])
    assert np.abs(affs.read()[(slice(None), *first)] - expected).max() <= 1.01  # truncated


def saved(folder: Path, made: Network, margin: str) -> Path:
    content = config(margin).model_dump_json(exclude={"dataset", "network"})
    folder.mkdir(parents=True)
    (folder / "network.yaml").write_text(content)
    state = {NETWORK: made.state_dict()}
    checkpoint.save(folder, checkpoint.Checkpoint(iteration=1, architecture=config().architecture(), networks=state))
    return folder


@pytest.mark.parametrize("margin", ["half", "whole"])
def test_the_script_writes_a_file_and_the_original_s_region(
    tmp_path: Path, made: Network, raw: Volume, call_script: Callable, margin: str
) -> None:
    folder, out = saved(tmp_path / "d/n", made, margin), tmp_path / "p.hdf"
    arguments = [folder, "--raw", raw.path, "--out", out, "--device", "cpu"]
    assert call_script(PREDICT, *arguments, "--tile", "original").code == 0
    cut = 2 if margin == "whole" else 0  # LSD's original tiles overhang the volume
    context = made.receptive_field.context
    assert open_volume(out / "affs").shape[1:] == tuple(n - cut * c for n, c in zip(raw.shape, context, strict=True))
    assert call_script(PREDICT, *arguments, "--tile", "original").out.endswith("made with the same settings\n")
    assert call_script(PREDICT, *arguments, "--valid").code == 0  # by the stride: half the context, whatever the margin
    assert open_volume(out / "affs").shape[1:] == tuple(n - c for n, c in zip(raw.shape, context, strict=True))


def test_fragments_are_made_from_a_file(tmp_path: Path, made: Network, raw: Volume) -> None:
    for name in ("p.zarr", "p.hdf"):
        predict(tmp_path / name, made, raw)
        words = ["--affs", tmp_path / name / "affs", "--out", tmp_path / f"of_{name}", "--in-sections"]
        words += ["--block-size", "500,92,92", "--workers", "2"]
        command = [sys.executable, ROOT / "04_segment/extract_fragments.py", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    of_zarr, of_file = (open_volume(tmp_path / f"of_p.{kind}/fragments.zarr/fragments") for kind in ("zarr", "hdf"))
    np.testing.assert_array_equal(of_file.read(), of_zarr.read())
