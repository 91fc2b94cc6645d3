"""What a prediction leaves at 0, and how its arrays are compressed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from emsuite.common.device import one_core
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Roi
from emsuite.common.outputs import output
from emsuite.config.network import NetworkConfig, build_network
from emsuite.data.grey_values import in_grey_range
from emsuite.data.normalization import Normalization
from emsuite.io.compression import Compression
from emsuite.io.volume import Volume, create_volume, open_volume
from emsuite.models.network import Network
from emsuite.prediction import predict
from emsuite.prediction.blending import Blended
from emsuite.prediction.predictor import Predictor, make_predictor
from emsuite.prediction.request import EVERYTHING, Request, is_constant, make_request
from emsuite.prediction.tiling import BY_STRIDE, Original, Tiling
from emsuite.training import checkpoint
from emsuite.training.step import NETWORK

PREDICT = "03_predict/predict.py"
TILE, SHAPE = (36, 40, 40), (24, 24, 40)
TILINGS = pytest.mark.parametrize("tiling", [BY_STRIDE, Original(), Blended("linear")], ids=lambda tiling: tiling.name)


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    """Tiles are small: threads would wait for each other."""
    with one_core():
        yield


def config() -> NetworkConfig:
    heads = {"affs": {"target": "affinities", "neighborhood": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]}}
    content = {
        "dataset": "d",
        "network": "n",
        "voxel_size": [10, 10, 10],
        "heads": heads,
        "unet": {"num_fmaps": 4, "fmap_inc_factor": 2, "downsample_factors": [[2, 3, 3]]},
        "training": {"iterations": 1, "input_shape": [48] * 3, "sampling": {}},
        "prediction": {"input_shape": TILE},
    }
    return NetworkConfig.model_validate(content)


def network() -> Network:
    torch.manual_seed(1)
    return build_network(config()).eval()


def stored(path: Path, voxels: np.ndarray, voxel_size: tuple = (10, 10, 10), offset: tuple = (0, 0, 0)) -> Volume:
    create_volume(path, voxels.shape, voxels.dtype, voxel_size, offset).array[...] = voxels
    return open_volume(path)


def raw(path: Path, dtype: str = "u1") -> Volume:
    """Random raw whose first half, along x, is one value."""
    voxels = np.random.default_rng(0).integers(0, 256, SHAPE).astype(dtype)
    voxels[:, :, :20] = 7
    return stored(path / f"raw_{dtype}.zarr/raw", voxels)


def run(
    volume: Volume, out: Path, request: Request = EVERYTHING, tiling: Tiling = BY_STRIDE, workers: int = 1
) -> Volume:
    made = config()
    predictor = make_predictor(network(), made, torch.device("cpu"), TILE, volume, volume.roi, tiling)
    with output(out, {"tiles": tiling.name}) as unfinished:
        predict.predict_volume(predictor, volume, volume.roi, unfinished, workers, request)
    return open_volume(out / "affs")


def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The list grows by one for each tile that is computed."""
    tiles, inner = list[int](), Predictor.__call__

    def call(*arguments: object) -> object:
        tiles.append(1)
        return inner(*arguments)

    monkeypatch.setattr(Predictor, "__call__", call)
    return tiles


@TILINGS
def test_voxels_outside_the_mask_are_0_and_others_do_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiling: Tiling
) -> None:
    volume, mask = raw(tmp_path), np.zeros(SHAPE, np.uint8)
    mask[3:9, 2:6, 1:12] = 1
    asked = make_request(volume, stored(tmp_path / "mask.zarr/mask", mask).path, "predict", "zstd")
    tiles = computed(monkeypatch)
    whole = run(volume, tmp_path / "whole.zarr", tiling=tiling).read()
    count = len(tiles)
    found = run(volume, tmp_path / "masked.zarr", asked, tiling).read()
    assert len(tiles) - count < count
    np.testing.assert_array_equal(found, np.where(mask, whole, 0))
    assert found.any()


@TILINGS
def test_two_workers_and_a_mask_write_the_same_bytes_as_one(tmp_path: Path, tiling: Tiling) -> None:
    volume, mask = raw(tmp_path), np.zeros(SHAPE, bool)
    mask[:, 10:20, 5:35] = True
    asked = make_request(volume, stored(tmp_path / "mask.zarr/mask", mask).path, "skip", "none")
    one, two = (run(volume, tmp_path / f"{n}.zarr", asked, tiling, n) for n in (1, 2))
    np.testing.assert_array_equal(one.read(), two.read())


def test_a_mask_of_other_voxels_counts_at_the_centre_of_each_voxel(tmp_path: Path) -> None:
    volume = stored(tmp_path / "raw.zarr/raw", np.zeros((4, 6, 8), np.uint8), offset=(100, 0, -40))
    coarse = np.array([[[1, 0], [0, 1]], [[0, 0], [1, 0]]], np.uint16)
    mask = stored(tmp_path / "mask.zarr/mask", coarse, (20, 30, 20), (100, 0, -20))
    found = Request(mask).masked_in(volume, Roi((0, 0, 0), (4, 6, 8)))
    expected = np.zeros((4, 6, 8), bool)
    expected[:, :, 2:6] = coarse.repeat(2, 0).repeat(3, 1).repeat(2, 2)
    np.testing.assert_array_equal(found, expected)
    assert not Request(mask).masked_in(volume, Roi((0, 0, 0), (4, 6, 2))).any()
    assert Request(mask).masked_in(volume, Roi((0, 0, 2), (2, 3, 2))) is None


@TILINGS
def test_a_tile_of_constant_raw_is_left_at_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiling: Tiling) -> None:
    volume = stored(tmp_path / "raw.zarr/raw", np.zeros((60, 30, 30), np.uint8))
    volume = Volume(volume.path, open_volume(volume.path, "r+").array, volume.voxel_size, volume.offset)
    volume.array[:20] = np.random.default_rng(0).integers(0, 256, (20, 30, 30))
    tiles = computed(monkeypatch)
    whole = run(volume, tmp_path / "whole.zarr", tiling=tiling).read()
    count = len(tiles)
    found = run(volume, tmp_path / "skipped.zarr", Request(skip_constant=True), tiling).read()
    assert 0 < len(tiles) - count < count
    assert found[:, :10].any()
    np.testing.assert_array_equal(found[:, :8], whole[:, :8])
    assert not found[:, 55:].any()
    assert whole[:, 55:].any()


def test_what_is_constant() -> None:
    assert is_constant(np.full((2, 3, 4), 0.5, np.float32))
    assert not is_constant(np.full((2, 3, 4), np.nan, np.float32))
    odd = np.zeros((2, 3, 4), np.uint8)
    odd[1, 2, 3] = 1
    assert not is_constant(odd)


@pytest.mark.parametrize("text", ["zstd", "zstd:7", "blosc-lz4", "blosc-lz4:1", "none"])
def test_compressions_hold_the_same_voxels(tmp_path: Path, text: str) -> None:
    volume = raw(tmp_path)
    asked = make_request(volume, None, "predict", text)
    found = run(volume, tmp_path / "p.zarr", asked)
    np.testing.assert_array_equal(found.read(), run(volume, tmp_path / "plain.zarr").read())
    codecs = json.loads((found.path / "zarr.json").read_text())["codecs"]
    names = {codec["name"]: codec.get("configuration", {}) for codec in codecs}
    assert ("zstd" in names, "blosc" in names) == (text.startswith("zstd"), text.startswith("blosc"))
    if ":" in text:
        assert int(text[-1]) in (names.get("zstd", {}).get("level"), names.get("blosc", {}).get("clevel"))


def test_compressions_of_zarr_2(tmp_path: Path) -> None:
    for name in ("zstd", "blosc-lz4", "none"):
        made = create_volume(tmp_path / f"{name}.zarr/raw", (4, 5, 6), "u1", (8, 8, 8), (0, 0, 0), zarr_format=2,
                             compression=Compression(name, 0 if name == "none" else 4))  # fmt: skip
        made.array[...] = 3
        assert (open_volume(made.path).read() == 3).all()
        told = json.loads((made.path / ".zarray").read_text())["compressor"]
        assert (told or {}).get("id") == {"zstd": "zstd", "blosc-lz4": "blosc", "none": None}[name]


def test_odd_requests_are_refused_in_one_line(tmp_path: Path) -> None:
    volume = raw(tmp_path)
    for text in ("gzip", "zstd:23", "zstd:-1", "none:1", "blosc-lz4:10", "zstd:", ""):
        with pytest.raises(BadInput, match=f"--compression {text}: ") as refused:
            make_request(volume, None, "skip", text)
        assert "\n" not in str(refused.value)
    masks = {
        "floats": (np.ones(SHAPE, np.float32), (0, 0, 0), "float32, expected a mask of integers"),
        "channels": (np.ones((2, *SHAPE), np.uint8), (0, 0, 0), "4 axes"),
        "beside": (np.ones(SHAPE, np.uint8), (1000, 0, 0), "nothing of raw"),
    }
    for name, (voxels, offset, message) in masks.items():
        path = stored(tmp_path / f"{name}.zarr/mask", voxels, offset=offset).path
        with pytest.raises(BadInput, match=f"{name}.zarr/mask: .*{message}"):
            make_request(volume, path, "skip", "zstd")


@TILINGS
def test_uint16_that_is_uint8_in_its_range_predicts_the_same_bytes(tmp_path: Path, tiling: Tiling) -> None:
    eight, wide = raw(tmp_path), raw(tmp_path, "u2").read()
    expected = run(eight, tmp_path / "8.zarr", tiling=tiling).read()
    for name, voxels, grey_range in (("full", wide * 257, "dtype"), ("given", wide * 16, [0, 4080])):
        sixteen = stored(tmp_path / f"{name}.zarr/raw", voxels)
        read = in_grey_range(sixteen, Normalization.model_validate({"grey_range": grey_range}))
        for workers in (1, 2):
            found = run(read, tmp_path / f"16_{name}_{workers}.zarr", tiling=tiling, workers=workers)
            np.testing.assert_array_equal(found.read(), expected)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a network, with weights."""
    made, content = network(), config().model_dump(mode="json", exclude={"dataset", "network"})
    folder = tmp_path / "d" / "n"
    folder.mkdir(parents=True)
    (folder / "network.yaml").write_text(json.dumps(content))
    saved = checkpoint.Checkpoint(iteration=1, architecture=made_architecture(), networks={NETWORK: made.state_dict()})
    checkpoint.save(folder, saved)
    return folder


def made_architecture() -> dict:
    return config().architecture()


def test_the_script_masks_and_records_it(tmp_path: Path, folder: Path, call_script: Callable) -> None:
    volume, out = raw(tmp_path, "u2"), tmp_path / "p.zarr"
    mask = stored(tmp_path / "mask.zarr/mask", np.ones((4, 4, 4), np.uint8), (20, 20, 20))
    arguments = [folder, "--raw", volume.path, "--out", out, "--device", "cpu", "--mask", mask.path]
    ended = call_script(PREDICT, *arguments, "--compression", "none")
    assert ended.code == 0, ended.err
    manifest = json.loads((tmp_path / "p.zarr.manifest.json").read_text())
    settings = manifest["settings"]
    assert settings["mask"].endswith("mask.zarr/mask")
    assert (settings["constant"], settings["compression"]) == ("skip", "none:0")
    assert manifest["inputs"]["mask"]
    assert not open_volume(out / "affs").read()[:, 8:].any()
    there = f"{out}: already there, made with the same settings\n"
    assert call_script(PREDICT, *arguments, "--compression", "none").out == there
    open_volume(mask.path, "r+").write(mask.roi, np.zeros(mask.shape, np.uint8))
    assert call_script(PREDICT, *arguments, "--compression", "none").out != there, "the mask was edited in place"
    assert not open_volume(out / "affs").read().any()
    assert call_script(PREDICT, *arguments[:-2], "--compression", "none").out != there
    manifest = json.loads((tmp_path / "p.zarr.manifest.json").read_text())
    settings = manifest["settings"]
    for key in ("mask", "constant", "compression"):  # as an earlier version wrote it
        settings.pop(key)
    manifest["settings"] |= {"compression": "none:0"}
    (tmp_path / "p.zarr.manifest.json").write_text(json.dumps(manifest))
    assert call_script(PREDICT, *arguments[:-2], "--compression", "none").out == there


def test_a_stopped_run_with_a_mask_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume, mask = raw(tmp_path), np.ones(SHAPE, np.uint8)
    mask[:, :12] = 0
    asked = make_request(volume, stored(tmp_path / "mask.zarr/mask", mask).path, "skip", "blosc-lz4")
    expected, inner = run(volume, tmp_path / "whole.zarr", asked).read(), Predictor.__call__
    calls = list[int]()

    def failing(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return inner(*arguments)

    monkeypatch.setattr(Predictor, "__call__", failing)
    with pytest.raises(KeyboardInterrupt):
        run(volume, tmp_path / "p.zarr", asked)
    np.testing.assert_array_equal(run(volume, tmp_path / "p.zarr", asked).read(), expected)
