"""Prediction: tiles against one whole pass, the volume's border, bad raw, a killed run."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.backends import cuda, cudnn

from builders import ROOT
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.geometry import Coordinate, Roi
from emsuite.common.outputs import Output, manifest_path, output, unfinished_path
from emsuite.config.network import NetworkConfig, build_network
from emsuite.data.raw import check_raw
from emsuite.io.volume import Volume, create_volume, open_volume
from emsuite.models.network import AnyNetwork, AutocontextNetwork, Network
from emsuite.prediction import predict, predictor, tile_size
from emsuite.prediction.blending import BLENDINGS, Blended
from emsuite.prediction.finished_tiles import TileRecord
from emsuite.prediction.region import in_voxels, valid_roi
from emsuite.prediction.storage_layout import make_blended_layout, share_rows
from emsuite.prediction.tiling import BY_STRIDE, Original, Tiling
from emsuite.training import checkpoint
from emsuite.training.step import NETWORK

PREDICT = "03_predict/predict.py"
ANISOTROPIC = {"downsample_factors": [[1, 2, 2], [2, 3, 3]]}
SHALLOW = {"downsample_factors": [[2, 3, 3]]}
TILE = (26, 28, 28)  # 10x8x8 come out of it, along y and x no multiple of the stride of 2x3x3
STEM = {"downsample_factors": [[2, 2, 2]], "stem": {"kernel": [4, 4, 4], "factor": [2, 2, 2]}, "norm": "batch"}


def config(unet: dict, precision: str = "bfloat16") -> NetworkConfig:
    """A small network with both heads; voxels of 10 nm."""
    heads = {
        "lsds": {"target": "lsds", "sigma": 40},
        "affs": {"target": "affinities", "neighborhood": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]},
    }
    shape = [48, 48, 48]
    content = {"dataset": "d", "network": "n", "voxel_size": [10, 10, 10], "heads": heads}
    content |= {
        "unet": {"num_fmaps": 4, "fmap_inc_factor": 2} | unet,
        "prediction": {"input_shape": shape, "precision": precision},
    }
    content |= {"training": {"iterations": 1, "input_shape": shape, "sampling": {}}}
    return NetworkConfig.model_validate(content)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_predictions_use_tensor_float_32_only_where_it_is_asked_for(tmp_path: Path, precision: str) -> None:
    made, raw, seen = network(SHALLOW, precision), volume(tmp_path, (10, 8, 8)), set()
    made.heads["affs"].register_forward_hook(lambda *_: seen.add((cuda.matmul.allow_tf32, cudnn.allow_tf32)))
    tile = torch.zeros(TILE, dtype=torch.uint8)
    made_predictor = make_predictor(made, TILE, raw, raw.roi)
    made_predictor(tile[tuple(slice(n) for n in made_predictor.input_shape)]).arrays()
    assert seen == {(precision == "tf32",) * 2}


def network(unet: dict, precision: str = "bfloat16") -> Network:
    """Return a network of random weights, spread so that predictions are not all alike."""
    torch.manual_seed(1)
    made = build_network(config(unet, precision)).eval()
    made.config = config(unet, precision)  # kept there for these tests alone
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    for parameter in made.heads.parameters():
        parameter.data.mul_(3)
    return made


def make_predictor(
    made: AnyNetwork, largest: tuple[int, ...], raw: Volume, roi: Roi, tiling: Tiling = BY_STRIDE
) -> predictor.Predictor:
    """A predictor on the CPU."""
    frozen = made.frozen.config if isinstance(made, AutocontextNetwork) else None
    return predictor.make_predictor(made, made.config, torch.device("cpu"), largest, raw, roi, tiling, frozen)


def volume(path: Path, shape: tuple[int, ...], offset: tuple[int, ...] = (0, 0, 0)) -> Volume:
    """Random raw."""
    made = create_volume(path / "raw.zarr/raw", shape, np.uint8, (10, 10, 10), offset)
    made.array[...] = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return open_volume(made.path)


def run(
    made: AnyNetwork,
    raw: Volume,
    out: Path,
    largest: tuple[int, ...],
    roi: Roi | None = None,
    tiling: Tiling = BY_STRIDE,
) -> dict:
    """Predict and read everything back."""
    tile_predictor = make_predictor(made, largest, raw, roi or raw.roi, tiling)
    with output(out, {"tile": largest}) as unfinished:
        predict.predict_volume(tile_predictor, raw, roi or raw.roi, unfinished)
    assert not list(out.glob("*.txt"))
    return {path.name: open_volume(path) for path in out.iterdir() if path.is_dir()}


DEEP = STEM | {"downsample_factors": [[2, 2, 2], [2, 2, 2]], "padding": "same"}


@pytest.mark.parametrize("unet", [ANISOTROPIC, STEM, DEEP, ANISOTROPIC | {"padding": "same"}])
def test_tiles_equal_one_whole_pass_voxel_for_voxel(tmp_path: Path, unet: dict) -> None:
    raw = volume(tmp_path, (37, 50, 61))
    made = network(unet)
    whole = run(made, raw, tmp_path / "whole.zarr", (500, 500, 500))
    small = made.receptive_field.input_for([4 * s for s in made.receptive_field.stride])
    stitched = run(made, raw, tmp_path / "stitched.zarr", small)
    for name in ("affs", "lsds"):
        assert whole[name].shape[1:] == raw.shape
        assert whole[name].read().std() > 1
        np.testing.assert_array_equal(stitched[name].read(), whole[name].read())


def test_in_float32_tiles_equal_the_whole_pass_but_for_the_order_of_sums(tmp_path: Path) -> None:
    raw = volume(tmp_path, (37, 50, 61))
    made = network(ANISOTROPIC, "float32")
    whole = run(made, raw, tmp_path / "whole.zarr", (500, 500, 500))["affs"].read()
    stitched = run(made, raw, tmp_path / "stitched.zarr", (60, 60, 60))["affs"].read()
    difference = np.abs(stitched.astype(int) - whole)
    assert difference.max() <= 1  # a float32 sum in another order, next to where uint8 rounds
    assert (difference > 0).mean() < 2e-4


def test_the_inside_equals_the_network_applied_by_hand(tmp_path: Path) -> None:
    made, raw = network(ANISOTROPIC, "float32"), volume(tmp_path, (40, 60, 66))
    predicted = run(made, raw, tmp_path / "p.zarr", (500, 500, 500))["affs"].read()
    shape = made.receptive_field.largest_within(raw.shape)
    x = torch.from_numpy(raw.read()).float()[None, None, : shape[0], : shape[1], : shape[2]] / 127.5 - 1
    with torch.no_grad():
        expected = (torch.sigmoid(made(x)["affs"])[0] * 255).round().numpy()
    inside = tuple(slice(o, o + n) for o, n in zip(made.receptive_field.offset, expected.shape[1:], strict=True))
    difference = np.abs(predicted[:, *inside].astype(int) - expected)
    assert difference.max() <= 1  # float32 sums in another order may round the other way
    assert (difference > 0).mean() < 1e-3


def test_a_region_equals_the_same_region_of_the_whole(tmp_path: Path) -> None:
    made, raw = network(ANISOTROPIC), volume(tmp_path, (40, 60, 66), (100, 0, 50))
    whole = run(made, raw, tmp_path / "whole.zarr", (60, 60, 60))["affs"]
    roi = Roi((170, 110, 220), (130, 310, 190))
    part = run(made, raw, tmp_path / "part.zarr", (60, 60, 60), roi)["affs"]
    assert part.roi == roi
    np.testing.assert_array_equal(part.read(), whole.read(roi))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (2, 90, 4)])
def test_volumes_smaller_than_a_tile_are_predicted_whole(tmp_path: Path, shape: tuple[int, ...]) -> None:
    predicted = run(network(ANISOTROPIC), volume(tmp_path, shape), tmp_path / "p.zarr", (48, 48, 48))
    assert predicted["affs"].shape == (3, *shape)
    assert predicted["lsds"].shape == (10, *shape)


def test_the_valid_part_leaves_the_context_out(tmp_path: Path) -> None:
    made, raw = network(ANISOTROPIC), volume(tmp_path, (40, 60, 66), (100, 0, 50))
    valid = valid_roi(made, raw, raw.roi)
    assert tuple(valid.shape / raw.voxel_size) == tuple(
        n - c for n, c in zip(raw.shape, made.receptive_field.context, strict=True)
    )
    inside = Roi(valid.offset, (10, 10, 10))
    assert valid_roi(made, raw, inside.grow((500, 500, 500), (0, 0, 0))) == inside
    small = volume(tmp_path / "small", (10, 60, 66))
    with pytest.raises(BadInput, match="no more than the network's context"):
        valid_roi(made, small, small.roi)
    with pytest.raises(BadInput, match=r"nothing of .* has real context"):
        valid_roi(made, raw, Roi(raw.offset, (20, 20, 20)))


STAGES = {"read": (predictor.Predictor, "read"), "compute": (predictor.Predictor, "__call__"),
          "write": (predict._Run, "_write"), "store": (Volume, "write"), "note": (TileRecord, "add")}  # fmt: skip


def count(monkeypatch: pytest.MonkeyPatch, stage: str, stop: int = 0) -> list:
    """Return a list that the calls of a stage are added to from here on; interrupt call number `stop`."""
    kind, name = STAGES[stage]
    original, calls = getattr(kind, name), []

    def counted(*arguments: object, **more: object) -> object:
        calls.append(arguments)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return original(*arguments, **more)

    monkeypatch.setattr(kind, name, counted)
    return calls


@pytest.mark.parametrize("stage", STAGES)
def test_a_stopped_run_continues_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    made, raw, largest = network(ANISOTROPIC), volume(tmp_path, (40, 60, 66)), (60, 60, 60)
    expected = run(made, raw, tmp_path / "whole.zarr", largest)
    tile_predictor = make_predictor(made, largest, raw, raw.roi)
    tiles = len(tile_predictor.grid(raw, Roi((0, 0, 0), raw.shape)))
    stopped = tmp_path / "stopped.zarr"
    with monkeypatch.context() as patch:
        count(patch, stage, 4)
        with pytest.raises(KeyboardInterrupt):
            run(made, raw, stopped, largest)
    with pytest.raises(BadInput, match="unfinished"):
        open_volume(stopped / "affs")
    noted = TileRecord(stopped, "done_tiles").read()
    for number in noted:  # a tile that is recorded is written
        tile = tile_predictor.grid(raw, Roi((0, 0, 0), raw.shape))[number]
        inner = (slice(None), *(slice(b, b + n) for b, n in zip(tile.keep_begin, tile.keep_shape, strict=True)))
        for name, array in expected.items():
            written = open_volume(stopped / name, "r+").array[inner]
            np.testing.assert_array_equal(written, array.array[inner])
    assert 1 <= len(noted) <= 3
    predicted = count(monkeypatch, "compute")
    continued = run(made, raw, stopped, largest)
    assert len(predicted) == tiles - len(noted)
    for name, array in expected.items():
        np.testing.assert_array_equal(continued[name].read(), array.read())


@pytest.mark.parametrize("blended", [False, True])
def test_recorded_tiles_without_their_files_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blended: bool
) -> None:
    """A copy that was taken while a run wrote holds them, as does one whose record is one file with the run's."""
    made, raw, largest = network(ANISOTROPIC), volume(tmp_path, (40, 60, 66)), (60, 60, 60)
    options: dict = {}
    if blended:
        made, raw, largest, options = uneven(), uneven_volume(tmp_path), BLENDED, {"tiling": Blended("gaussian")}
    expected = run(made, raw, tmp_path / "whole.zarr", largest, **options)
    stopped = tmp_path / "stopped.zarr"
    with monkeypatch.context() as patch:
        count(patch, "note", 2 if blended else 3)
        with pytest.raises(KeyboardInterrupt):
            run(made, raw, stopped, largest, **options)
    for array in expected:
        next(path for path in sorted((stopped / array / "c").rglob("*")) if path.is_file()).unlink()
    (record,) = stopped.glob("done_tiles*.txt")
    (tmp_path / "copied.txt").hardlink_to(record)
    noted = record.read_text()
    continued = run(made, raw, stopped, largest, **options)
    for name, array in expected.items():
        np.testing.assert_array_equal(continued[name].read(), array.read())
    assert (tmp_path / "copied.txt").read_text() == noted


def test_tiles_that_lost_their_files_are_forgotten_before_others_write_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles may share a file: one that writes it again makes it look as if it held the voxels of all."""
    made, raw, stopped = network(ANISOTROPIC), volume(tmp_path, (20, 60, 66)), tmp_path / "stopped.zarr"
    for stop in (4, 2):
        with monkeypatch.context() as patch:
            count(patch, "note", stop)
            with pytest.raises(KeyboardInterrupt):
                run(made, raw, stopped, (24, 48, 48))
        assert len(TileRecord(stopped, "done_tiles").read()) == stop - 1
        for path in [path for path in stopped.rglob("c/**/*") if path.is_file()]:
            path.unlink()


def test_a_line_that_was_cut_short_does_not_count(tmp_path: Path) -> None:
    record = TileRecord(tmp_path, "done_tiles")
    assert not record.begun
    record.begin()
    (tmp_path / "done_tiles.txt").write_text("3\n14")
    TileRecord(tmp_path, "done_tiles").open("worker").add(7)
    TileRecord(tmp_path, "done_input_tiles").open("worker").add(9)
    assert record.begun
    assert record.read() == {3, 7}
    record.open().add(5)
    record.close()
    assert (tmp_path / "done_tiles.txt").read_text() == "3\n5\n"


@pytest.mark.parametrize("begin", [0, 3])
@pytest.mark.parametrize("unet", [ANISOTROPIC, DEEP])
def test_a_tile_writes_whole_files_that_no_other_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unet: dict, begin: int
) -> None:
    """Also where the ROI begins within a stride."""
    made, raw = network(unet), volume(tmp_path, (50, 90, 61))
    roi = Roi((10 * begin,) * 3, [10 * (n - begin) for n in raw.shape])
    small = made.receptive_field.input_for([4 * s for s in made.receptive_field.stride])
    written, original = [], predict._Run._write

    def watch(self: predict._Run, number: int, predicted: predictor.Predicted) -> None:
        before = {path: path.stat().st_mtime_ns for path in files()}
        original(self, number, predicted)
        written.append({path for path in files() if before.get(path) != path.stat().st_mtime_ns})

    def files() -> list[Path]:
        return [path for path in (tmp_path / "p.zarr").glob("*/c/**/*") if path.is_file()]

    monkeypatch.setattr(predict._Run, "_write", watch)
    run(made, raw, tmp_path / "p.zarr", small, roi)
    assert len(written) > 4
    assert sum(map(len, written)) == len(set().union(*written)) == 2 * len(written)


def workers(
    made: AnyNetwork,
    raw: Volume,
    out: Path,
    largest: tuple[int, ...],
    number: int,
    roi: Roi | None = None,
    tiling: Tiling = BY_STRIDE,
) -> None:
    """Predict with several processes."""
    tile_predictor = make_predictor(made, largest, raw, roi or raw.roi, tiling)
    with output(out, {"tile": largest}) as unfinished:
        predict.predict_volume(tile_predictor, raw, roi or raw.roi, unfinished, number)
    assert not list(out.glob("*.txt"))


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("tiling", [BY_STRIDE, Original(), Original(valid=True)], ids=lambda tiling: tiling.name)
def test_two_workers_write_the_same_bytes_as_one(tmp_path: Path, tiling: Tiling) -> None:
    made, raw = network(SHALLOW, "float32"), volume(tmp_path, (39, 50, 37), (100, 0, 50))
    roi = valid_roi(made, raw, raw.roi, tiling) if tiling.name == "original, valid" else raw.roi
    run(made, raw, tmp_path / "one.zarr", TILE, roi, tiling)
    workers(made, raw, tmp_path / "two.zarr", TILE, 2, roi, tiling)
    assert content(tmp_path / "two.zarr") == content(tmp_path / "one.zarr")


def test_workers_predict_autocontext_in_two_passes(tmp_path: Path) -> None:
    made, raw = autocontext(True), volume(tmp_path, (19, 22, 17))
    run(made, raw, tmp_path / "one.zarr", RAW_TILE, tiling=ORIGINAL)
    workers(made, raw, tmp_path / "two.zarr", RAW_TILE, 2, raw.roi, ORIGINAL)
    assert content(tmp_path / "two.zarr") == content(tmp_path / "one.zarr")


def test_workers_go_on_where_one_process_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, raw, largest = network(ANISOTROPIC), volume(tmp_path, (40, 60, 66)), (60, 60, 60)
    run(made, raw, tmp_path / "whole.zarr", largest)
    with monkeypatch.context() as patch:
        count(patch, "compute", 4)
        with pytest.raises(KeyboardInterrupt):
            run(made, raw, tmp_path / "stopped.zarr", largest)
    done = TileRecord(tmp_path / "stopped.zarr", "done_tiles").read()
    workers(made, raw, tmp_path / "stopped.zarr", largest, 2)
    assert content(tmp_path / "stopped.zarr") == content(tmp_path / "whole.zarr")
    assert done


@pytest.mark.slow
@pytest.mark.parametrize(("blend", "least", "all_units"), [("crop", 20, 360), ("linear", 2, 10)])
def test_workers_that_are_killed_go_on_to_the_same_bytes(
    tmp_path: Path, folders: Path, call_script: Callable, blend: str, least: int, all_units: int
) -> None:
    """The stage is killed amid its work. Its workers end with it, and one process does the tiles, or rows, left."""
    raw = volume(tmp_path, (40, 60, 50))
    arguments = [folders.with_name("lsd"), "--raw", raw.path, "--device", "cpu", "--input-shape", "26,28,28"]
    arguments += ["--blend", blend]
    assert call_script(PREDICT, *arguments, "--out", tmp_path / "whole.zarr").code == 0
    out = tmp_path / "killed.zarr"
    command = [sys.executable, ROOT / PREDICT, *arguments, "--out", out, "--workers", "2"]
    record, deadline = TileRecord(out, "done_tiles"), time.monotonic() + 120
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL, cwd=tmp_path) as process:
        while len(record.read()) < least or len(list(out.glob("done_tiles*_*.txt"))) < 2:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline, "it did not begin"
            time.sleep(0.005)
        process.kill()
    assert least <= len(record.read()) < all_units
    while running(out):
        assert time.monotonic() < deadline, "its workers go on"
        time.sleep(0.01)
    assert not (tmp_path / "killed.zarr.manifest.json").exists()
    assert call_script(PREDICT, *arguments, "--out", out).code == 0
    assert content(out) == content(tmp_path / "whole.zarr")


def running(out: Path) -> list[str]:
    """Return the running processes that have a record of tiles of `out`."""
    pids = [path.stem.rpartition("_")[2] for path in out.glob("done_tiles*_*.txt")]
    return [pid for pid in pids if Path("/proc", pid).exists()]


def test_what_a_worker_refuses_ends_the_run_in_its_words(tmp_path: Path) -> None:
    made = network(ANISOTROPIC)
    made.heads["affs"].bias.data.fill_(torch.nan)
    with pytest.raises(RunFailed, match=r"^prediction of affs: NaN from the network; its weights are broken$"):
        workers(made, volume(tmp_path, (40, 60, 66)), tmp_path / "p.zarr", (60, 60, 60), 2)
    raw = create_volume(tmp_path / "float.zarr/raw", (40, 60, 66), np.float32, (10, 10, 10), (0, 0, 0))
    raw.array[39, 59, 65] = 2
    with pytest.raises(BadInput, match=r"float.zarr/raw: holds floats from 0 to 2, expected"):
        workers(network(ANISOTROPIC), raw, tmp_path / "q.zarr", (60, 60, 60), 2)
    assert not list(tmp_path.glob("*.manifest.json"))


# ---- original tiles, against blocks cut by hand

CONTEXT = (16, 20, 20)
ORIGINAL, SCAN = Original(), Original(valid=True)


def blocks(
    made: Network, head: str, padded: torch.Tensor, starts: list, shape: tuple[int, ...], round_up: float = 0
) -> np.ndarray:
    """Predict `shape` voxels block by block from `padded`, `(C, Z, Y, X)` floats with half the context around them."""
    channels = made.config.heads[head].channels
    out = np.zeros((channels, *(n + 100 for n in shape)), np.uint8)
    for z in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                tile = padded[:, z : z + TILE[0], y : y + TILE[1], x : x + TILE[2]]
                with torch.no_grad():
                    predicted = torch.sigmoid(made(tile[None])[head][0]) * 255
                out[:, z : z + 10, y : y + 8, x : x + 8] = (predicted.numpy() + round_up).astype(np.uint8)
    return out[:, : shape[0], : shape[1], : shape[2]]


def padded(voxels: np.ndarray, more: int = 40) -> np.ndarray:
    """Zeros around the last three axes: half the context before, plenty behind."""
    around = [(c // 2, c // 2 + more) for c in CONTEXT]
    return np.pad(voxels, [(0, 0)] * (voxels.ndim - 3) + around)


def as_read(raw: np.ndarray) -> torch.Tensor:
    """`(1, Z, Y, X)` in [-1, 1]."""
    return torch.from_numpy(raw).float()[None] / 255 * 2 - 1


def overhanging(shape: tuple[int, ...]) -> list[range]:
    return [range(0, n, step) for n, step in zip(shape, (10, 8, 8), strict=True)]


def test_original_tiles_are_as_blocks_cut_by_hand(tmp_path: Path) -> None:
    made, raw = network(SHALLOW, "float32"), volume(tmp_path, (23, 30, 17), (100, 0, 50))
    predicted = run(made, raw, tmp_path / "p.zarr", TILE, tiling=ORIGINAL)
    for head in ("affs", "lsds"):
        expected = blocks(made, head, as_read(padded(raw.read())), overhanging(raw.shape), raw.shape)
        np.testing.assert_array_equal(predicted[head].read(), expected)
        assert predicted[head].roi == raw.roi
    ours = run(made, raw, tmp_path / "ours.zarr", TILE)["affs"].read()
    assert (ours != predicted["affs"].read()).any(axis=(1, 2, 3)).all()


def test_original_tiles_of_the_valid_part_are_as_a_scan_by_hand(tmp_path: Path) -> None:
    made, raw = network(SHALLOW, "float32"), volume(tmp_path, (39, 50, 37), (100, 0, 50))
    valid = valid_roi(made, raw, raw.roi, SCAN)
    predicted = run(made, raw, tmp_path / "p.zarr", TILE, valid, SCAN)["affs"]
    starts = [[0, 10, 13], [0, 8, 16, 22], [0, 8, 9]]  # 23x30x17 have real context
    expected = blocks(made, "affs", as_read(raw.read()), starts, (23, 30, 17))
    np.testing.assert_array_equal(predicted.read(), expected)
    assert predicted.roi == valid
    part = Roi(valid.offset + Coordinate(50, 90, 70), (150, 210, 100))
    region = run(made, raw, tmp_path / "part.zarr", TILE, part, SCAN)["affs"]
    np.testing.assert_array_equal(region.read(), predicted.read(part))


def test_by_the_stride_tiles_are_as_blocks_cut_by_hand(tmp_path: Path) -> None:
    """The default: mirrored context, steps of 10x6x6, rounded. Here the tiles are cut by hand."""
    made, raw = network(SHALLOW, "float32"), volume(tmp_path, (20, 30, 17))
    predicted = run(made, raw, tmp_path / "p.zarr", TILE)["affs"].read()
    mirrored = raw.read()
    for axis, n in enumerate(raw.shape):
        period = 2 * max(1, n - 1)
        index = np.abs(np.arange(-CONTEXT[axis] // 2, n + 60)) % period
        mirrored = mirrored.take(np.minimum(index, period - index), axis)
    starts = [range(0, 20, 10), range(0, 30, 6), range(0, 17, 6)]
    expected = blocks(made, "affs", as_read(mirrored), starts, raw.shape, 0.5)
    np.testing.assert_array_equal(predicted, expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (2, 30, 4)])
def test_a_volume_smaller_than_an_original_tile_is_overhung(tmp_path: Path, shape: tuple[int, ...]) -> None:
    made, raw = network(SHALLOW, "float32"), volume(tmp_path, shape)
    predicted = run(made, raw, tmp_path / "p.zarr", TILE, tiling=ORIGINAL)["affs"].read()
    expected = blocks(made, "affs", as_read(padded(raw.read())), overhanging(shape), shape)
    np.testing.assert_array_equal(predicted, expected)


def test_original_tiles_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    made, raw = network(SHALLOW), volume(tmp_path, (25, 50, 50))
    with pytest.raises(BadInput, match=r"\(26, 29, 28\) does not fit"):
        run(made, raw, tmp_path / "p.zarr", (26, 29, 28), tiling=ORIGINAL)
    valid = valid_roi(made, raw, raw.roi, SCAN)
    with pytest.raises(BadInput, match=r"raw.zarr/raw: \(9, 30, 30\) voxels .* fewer than the \(10, 8, 8\) of one"):
        run(made, raw, tmp_path / "p.zarr", TILE, valid, SCAN)
    assert not (tmp_path / "p.zarr").exists()


def autocontext(with_raw: bool, **of_the_second: object) -> AutocontextNetwork:
    """A network that reads the LSDs of another; 26x28x28 of them per tile."""
    torch.manual_seed(2)
    first = network(SHALLOW, "float32")
    first.config = first.config.model_copy(
        update={"prediction": first.config.prediction.model_copy(update={"input_shape": TILE})}
    )
    content = config(SHALLOW | of_the_second, "float32").model_dump(mode="json")
    content["heads"].pop("lsds")
    content["autocontext"] = {"network": "n", "with_raw": with_raw}
    second = NetworkConfig.model_validate(content)
    made = AutocontextNetwork(first, build_network(second), with_raw).eval()
    made.config = made.trained.config = second
    for parameter in made.trained.heads.parameters():
        parameter.data.mul_(10)
    return made


RAW_TILE = (42, 49, 49)  # 26x29x29 LSDs come out of it


@pytest.mark.parametrize("with_raw", [False, True])
def test_original_autocontext_reads_stored_descriptors(tmp_path: Path, with_raw: bool) -> None:
    """LSDs of the whole volume on their own grid, truncated. The second network reads them, with zeros around both."""
    made, raw = autocontext(with_raw), volume(tmp_path, (23, 30, 17), (100, 0, 50))
    predicted = run(made, raw, tmp_path / "p.zarr", RAW_TILE, tiling=ORIGINAL)
    assert predicted.keys() == {"affs", "input_lsds"}
    seen = as_read(padded(raw.read()))
    lsds = blocks(made.frozen, "lsds", seen, overhanging(raw.shape), raw.shape)
    np.testing.assert_array_equal(predicted["input_lsds"].read(), lsds)
    read = torch.from_numpy(padded(lsds)).float() / 255
    read = torch.cat([seen, read]) if with_raw else read
    expected = blocks(made.trained, "affs", read, overhanging(raw.shape), raw.shape)
    np.testing.assert_array_equal(predicted["affs"].read(), expected)
    assert expected.std() > 0.5
    region = Roi(raw.offset + Coordinate(30, 110, 90), (180, 90, 70))
    part = run(made, raw, tmp_path / "part.zarr", RAW_TILE, region, ORIGINAL)
    np.testing.assert_array_equal(part["affs"].read(), predicted["affs"].read(region))


def test_original_autocontext_of_the_valid_part_is_as_two_scans(tmp_path: Path) -> None:
    """Only where LSDs have real context. Around them, the second network reads raw, and zeros instead of LSDs."""
    made, raw = autocontext(True), volume(tmp_path, (39, 50, 37), (100, 0, 50))
    valid = valid_roi(made, raw, raw.roi, SCAN)
    predicted = run(made, raw, tmp_path / "p.zarr", RAW_TILE, valid, SCAN)
    starts, shape = [[0, 10, 13], [0, 8, 16, 22], [0, 8, 9]], (23, 30, 17)
    lsds = blocks(made.frozen, "lsds", as_read(raw.read()), starts, shape)
    np.testing.assert_array_equal(predicted["input_lsds"].read(), lsds)
    read = torch.cat([as_read(raw.read()), torch.from_numpy(padded(lsds, 0)).float() / 255])
    np.testing.assert_array_equal(predicted["affs"].read(), blocks(made.trained, "affs", read, starts, shape))


def test_what_has_real_context_is_the_first_network_s_affair(tmp_path: Path) -> None:
    """Of raw 39x50x37, 23x30x17 LSDs have it, however far the second network looks."""
    raw = volume(tmp_path, (39, 50, 37))
    made = autocontext(False, kernel_sizes_up=[[[3, 3, 3]]])
    assert made.trained.receptive_field.offset == (7, 9, 9)
    valid = valid_roi(made, raw, raw.roi, SCAN)
    assert valid == Roi((80, 100, 100), (230, 300, 170))
    tile_predictor = make_predictor(made, RAW_TILE, raw, valid, SCAN)
    assert tile_predictor.whole(raw) == Roi((8, 10, 10), (23, 30, 17))
    predicted = run(made, raw, tmp_path / "p.zarr", RAW_TILE, Roi((150, 180, 150), (40, 30, 20)), SCAN)
    assert predicted["input_lsds"].roi.intersect(valid) == predicted["input_lsds"].roi


@pytest.mark.parametrize("stop", [2, 12, 30])
def test_stopped_original_autocontext_continues_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    made, raw = autocontext(False), volume(tmp_path, (19, 22, 17))  # 18 tiles of either network
    expected = run(made, raw, tmp_path / "whole.zarr", RAW_TILE, tiling=ORIGINAL)
    with monkeypatch.context() as patch:
        count(patch, "compute", stop)
        with pytest.raises(KeyboardInterrupt):
            run(made, raw, tmp_path / "stopped.zarr", RAW_TILE, tiling=ORIGINAL)
    noted = sum(len(TileRecord(tmp_path / "stopped.zarr", f"done_{p}tiles").read()) for p in ("input_", ""))
    assert stop - 3 <= noted <= stop - 1
    predicted = count(monkeypatch, "compute")
    continued = run(made, raw, tmp_path / "stopped.zarr", RAW_TILE, tiling=ORIGINAL)
    assert len(predicted) == 2 * 18 - noted
    for name, array in expected.items():
        np.testing.assert_array_equal(continued[name].read(), array.read())


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """The folder of an autocontext network, its LSD network's beside it, with weights."""
    made = autocontext(True)
    made.frozen.config = made.frozen.config.model_copy(update={"network": "lsd"})
    for name, part in (("lsd", made.frozen), ("acrlsd", made.trained)):
        content = part.config.model_dump(mode="json", exclude={"dataset", "network"})
        if name == "acrlsd":
            content["autocontext"]["network"] = "lsd"
            content["prediction"]["input_shape"] = RAW_TILE
        folder = tmp_path / "d" / name
        folder.mkdir(parents=True)
        (folder / "network.yaml").write_text(json.dumps(content))
        saved = checkpoint.Checkpoint(
            iteration=1,
            architecture=part.config.architecture(),
            networks={NETWORK: part.state_dict()},
            frozen_digest=checkpoint.digest(made.frozen.state_dict()) if name == "acrlsd" else None,
        )
        checkpoint.save(folder, saved)
    return folder


def test_the_script_predicts_as_the_originals_did(tmp_path: Path, folders: Path, call_script: Callable) -> None:
    raw, out = volume(tmp_path, (23, 30, 17)), tmp_path / "p.zarr"
    arguments = [folders, "--raw", raw.path, "--out", out, "--device", "cpu", "--tile", "original"]
    assert call_script(PREDICT, *arguments).code == 0
    expected = run(autocontext(True), raw, tmp_path / "expected.zarr", RAW_TILE, tiling=ORIGINAL)
    np.testing.assert_array_equal(open_volume(out / "affs").read(), expected["affs"].read())
    settings = json.loads((tmp_path / "p.zarr.manifest.json").read_text())["settings"]
    assert settings["tiles"] == "original"
    assert (settings["input_shape"], settings["lsds_input_shape"]) == ([*TILE], [*TILE])
    assert call_script(PREDICT, *arguments).out == f"{out}: already there, made with the same settings\n"
    assert call_script(PREDICT, *arguments[:-2]).code == 0  # by the stride: other settings, so it is predicted again
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"affs"}
    assert (open_volume(out / "affs").read() != expected["affs"].read()).any()


def test_the_script_predicts_the_valid_part_as_the_originals_did(
    tmp_path: Path, folders: Path, call_script: Callable
) -> None:
    raw, out = volume(tmp_path, (39, 50, 37)), tmp_path / "p.zarr"
    arguments = ["--raw", raw.path, "--out", out, "--device", "cpu", "--tile", "original", "--valid"]
    assert call_script(PREDICT, folders, *arguments).code == 0
    assert open_volume(out / "affs").shape == (3, 23, 30, 17)
    made = autocontext(True)
    valid = valid_roi(made, raw, raw.roi, SCAN)
    expected = run(made, raw, tmp_path / "expected.zarr", RAW_TILE, valid, SCAN)["affs"].read()
    np.testing.assert_array_equal(open_volume(out / "affs").read(), expected)


def test_the_script_refuses_another_input_shape_for_original_tiles(
    tmp_path: Path, folders: Path, call_script: Callable
) -> None:
    raw, out = volume(tmp_path, (23, 30, 17)), tmp_path / "p.zarr"
    arguments = [folders, "--raw", raw.path, "--out", out, "--tile", "original"]
    ended = call_script(PREDICT, *arguments, "--input-shape", "42,49,49")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert ended.err.startswith("error: --input-shape: original tiles are the network's own")
    assert not out.exists()


# ---- blended tiles

BLENDED = (30, 32, 32)  # 14x12x12 come out of it
PART = Roi((130, 40, 70), (230, 300, 250))  # of the volume below; it begins within strides


def uneven() -> Network:
    """A network whose output depends on the tile: on the brightest voxel that it reads."""
    made = network(SHALLOW, "float32")
    made.unet.register_forward_hook(lambda _, inputs, features: features * (3 + 8 * inputs[0].amax()))
    return made


def uneven_volume(path: Path) -> Volume:
    """Raw that gets brighter along all axes."""
    noise = volume(path, (27, 34, 30), (100, 0, 50))
    brightness = sum(np.indices(noise.shape)) / sum(noise.shape)
    noise = open_volume(noise.path, "r+")
    noise.array[...] = (noise.read() * brightness).astype(np.uint8)
    return noise


def blended_by_hand(
    tile_predictor: predictor.Predictor, raw: Volume, roi: Roi, window: Callable
) -> dict[str, np.ndarray]:
    """The weighted mean of all outputs, over the whole volume at once."""
    roi_vx, step = in_voxels(raw, roi), tile_predictor.step
    index = (slice(None), *(roi_vx + Coordinate(50, 50, 50)).to_slices())
    weight = np.einsum("i,j,k->ijk", *(window(n) for n in step))
    sums, weights = {}, np.zeros([n + 100 for n in raw.shape])
    for tile in tile_predictor.grid(raw, roi_vx):
        output = tuple(slice(b + 50, b + 50 + n) for b, n in zip(tile.begin, step, strict=True))
        weights[output] += weight
        for name, values in tile_predictor(*tile_predictor.read([raw], tile)).arrays().items():
            assert values.dtype == np.float32
            total = sums.setdefault(name, np.zeros((len(values), *weights.shape)))
            total[:, *output] += values[:, : step[0], : step[1], : step[2]].astype(np.float64) * weight
    means = {name: (total[index] / weights[index[1:]]).astype(np.float32) for name, total in sums.items()}
    return {name: (mean * np.float32(255)).round().astype(np.uint8) for name, mean in means.items()}


@pytest.mark.parametrize("name", BLENDINGS)
@pytest.mark.parametrize("roi", [None, PART], ids=["whole", "part"])
def test_blended_tiles_equal_the_weighted_mean_by_hand(tmp_path: Path, name: str, roi: Roi | None) -> None:
    made, raw = uneven(), uneven_volume(tmp_path)
    roi = roi or raw.roi
    predicted = run(made, raw, tmp_path / "p.zarr", BLENDED, roi, Blended(name))
    tile_predictor = make_predictor(made, BLENDED, raw, roi, Blended(name))
    for head, expected in blended_by_hand(tile_predictor, raw, roi, BLENDINGS[name]).items():
        np.testing.assert_array_equal(predicted[head].read(), expected)
        assert predicted[head].roi == roi
    cropped = run(made, raw, tmp_path / "cropped.zarr", BLENDED, roi)["affs"].read()
    assert np.abs(cropped.astype(int) - predicted["affs"].read()).max() > 5


@pytest.mark.parametrize("roi", [None, PART], ids=["whole", "part"])
def test_two_workers_blend_to_the_same_bytes_as_one(tmp_path: Path, roi: Roi | None) -> None:
    made, raw = uneven(), uneven_volume(tmp_path)
    run(made, raw, tmp_path / "one.zarr", BLENDED, roi, Blended("linear"))
    workers(made, raw, tmp_path / "two.zarr", BLENDED, 2, roi, Blended("linear"))
    assert content(tmp_path / "two.zarr") == content(tmp_path / "one.zarr")


@pytest.mark.parametrize(("stage", "stop", "rows"), [("read", 50, 1), ("compute", 50, 1), ("store", 12, 1),
                                                     ("note", 2, 1), ("store", 5, 0)])  # fmt: skip
def test_a_stopped_blended_run_continues_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, stop: int, rows: int
) -> None:
    made, raw, tiling = uneven(), uneven_volume(tmp_path), Blended("gaussian")
    run(made, raw, tmp_path / "whole.zarr", BLENDED, tiling=tiling)
    with monkeypatch.context() as patch:
        count(patch, stage, stop)
        with pytest.raises(KeyboardInterrupt):
            run(made, raw, tmp_path / "stopped.zarr", BLENDED, tiling=tiling)
    assert TileRecord(tmp_path / "stopped.zarr", "done_tiles").read() == set(range(rows))
    again = tmp_path / "again.zarr"
    shutil.copytree(tmp_path / "stopped.zarr", again)
    for path in (unfinished_path(again), again.with_name(f".{again.name}.emsuite")):
        shutil.copy(str(path).replace("again", "stopped"), path)
    predicted = count(monkeypatch, "compute")
    run(made, raw, tmp_path / "stopped.zarr", BLENDED, tiling=tiling)
    tiles = sum(map(len, rows_of(made, raw, tiling)[rows:]))
    assert len(predicted) == tiles
    workers(made, raw, again, BLENDED, 2, tiling=tiling)
    expected = content(tmp_path / "whole.zarr")
    assert content(tmp_path / "stopped.zarr") == expected
    assert content(again) == expected


def rows_of(made: Network, raw: Volume, tiling: Blended) -> tuple[tuple[int, ...], ...]:
    """The numbers of the tiles of each row of the whole volume."""
    tile_predictor, roi = make_predictor(made, BLENDED, raw, raw.roi, tiling), Roi((0, 0, 0), raw.shape)
    advance = [tiling.advance(*pair) for pair in zip(tile_predictor.step, made.receptive_field.stride, strict=True)]
    return tuple(share_rows(tile_predictor.grid(raw, roi), make_blended_layout(advance, roi), roi, raw).tiles)


def test_where_outputs_do_not_depend_on_the_tile_blending_changes_no_byte(tmp_path: Path) -> None:
    made, raw = network(SHALLOW), volume(tmp_path, (23, 30, 37))
    cropped = run(made, raw, tmp_path / "crop.zarr", BLENDED)
    blended = run(made, raw, tmp_path / "blended.zarr", BLENDED, tiling=Blended("linear"))
    for head, array in cropped.items():
        np.testing.assert_array_equal(blended[head].read(), array.read())


@pytest.mark.parametrize("name", BLENDINGS)
def test_constant_outputs_stay_constant(tmp_path: Path, name: str) -> None:
    """Also 0.5, which lies just where uint8 rounds: 127.5 is rounded to even."""
    made, raw = network(SHALLOW, "float32"), volume(tmp_path, (23, 30, 37))
    for head in made.heads.values():
        head.weight.data.zero_()
        head.bias.data.copy_(torch.linspace(-1, 1, len(head.bias)))
    made.heads["affs"].bias.data[1] = 0
    for head, array in run(made, raw, tmp_path / "p.zarr", BLENDED, tiling=Blended(name)).items():
        levels = (torch.sigmoid(made.heads[head].bias.data) * 255).round().numpy()
        assert (array.read() == levels[:, None, None, None]).all()
        assert head != "affs" or levels[1] == 128


def test_a_blended_tile_writes_whole_files_that_no_other_row_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, raw, written = uneven(), uneven_volume(tmp_path), []
    original = Volume.write

    def watch(self: Volume, roi: Roi, voxels: np.ndarray) -> None:
        before = {path: path.stat().st_mtime_ns for path in self.path.glob("c/**/*") if path.is_file()}
        original(self, roi, voxels)
        changed = [p for p in self.path.glob("c/**/*") if p.is_file() and before.get(p) != p.stat().st_mtime_ns]
        assert not before.keys() & set(changed)
        written.extend(changed)

    monkeypatch.setattr(Volume, "write", watch)
    run(made, raw, tmp_path / "p.zarr", BLENDED, PART, Blended("linear"))
    assert len(written) == len(set(written)) > 80


def test_the_script_blends(tmp_path: Path, folders: Path, call_script: Callable) -> None:
    raw, out = volume(tmp_path, (12, 16, 17)), tmp_path / "p.zarr"
    arguments = [folders.with_name("lsd"), "--raw", raw.path, "--out", out, "--device", "cpu", "--blend", "gaussian"]
    assert call_script(PREDICT, *arguments, "--input-shape", "26,28,28").code == 0
    settings = json.loads((tmp_path / "p.zarr.manifest.json").read_text())["settings"]
    assert (settings["tiles"], settings["input_shape"]) == ("stride, gaussian", [22, 28, 28])
    assert call_script(PREDICT, *arguments).out == f"{out}: already there, made with the same settings\n"
    assert call_script(PREDICT, *arguments[:-2]).code == 0  # cropped: other settings
    settings = json.loads((tmp_path / "p.zarr.manifest.json").read_text())["settings"]
    assert settings["tiles"] == "stride"
    ended = call_script(PREDICT, *arguments, "--tile", "original")
    assert (ended.code, ended.err) == (
        2, "error: --blend gaussian: original tiles do not overlap; leave out one of the two\n")  # fmt: skip


# ---- predictions of earlier versions


def test_a_prediction_of_an_earlier_version_counts(tmp_path: Path, folders: Path, call_script: Callable) -> None:
    """One whose manifest knows less keys of the network's configuration; not one of other weights."""
    raw, out = volume(tmp_path, (8, 12, 12)), tmp_path / "p.zarr"
    arguments = [folders.with_name("lsd"), "--raw", raw.path, "--out", out, "--device", "cpu"]
    assert call_script(PREDICT, *arguments).code == 0
    manifest = json.loads(manifest_path(out).read_text())
    earlier = manifest["settings"]["network"]
    del earlier["training"]["accumulate"]
    earlier["heads"]["affs"].pop("switch_to", None)
    earlier["heads"]["affs"]["then"] = None
    manifest_path(out).write_text(json.dumps(manifest))
    there = f"{out}: already there, made with the same settings\n"
    assert call_script(PREDICT, *arguments).out == there
    manifest["settings"]["weights"] = "0" * 64
    manifest_path(out).write_text(json.dumps(manifest))
    assert call_script(PREDICT, *arguments).out != there
    assert call_script(PREDICT, *arguments).out == there


# ---- the tiles' size


def test_tiles_are_as_large_as_is_configured_where_memory_allows(tmp_path: Path) -> None:
    made, raw = network(DEEP), volume(tmp_path, (70, 80, 90))
    largest = tile_size.input_shape_for(made, made.config, BY_STRIDE, 10**9, raw, raw.roi)
    assert largest == made.receptive_field.smallest  # which is more than the 48 that are configured
    assert tile_size.input_shape_for(made, made.config, ORIGINAL, 1, raw, raw.roi) == (48, 48, 48)
    wide = made.config.model_copy(
        update={"prediction": made.config.prediction.model_copy(update={"input_shape": (500,) * 3})}
    )
    made.config = wide
    whole = tile_size.input_shape_for(made, made.config, BY_STRIDE, 10**9, raw, raw.roi)
    assert all(n >= m for n, m in zip(made.receptive_field.step(whole), raw.shape, strict=True))
    half = int(np.prod(whole) * tile_size.bytes_per_voxel(made, made.config)) // 2
    smaller = tile_size.input_shape_for(made, made.config, BY_STRIDE, half, raw, raw.roi)
    assert np.prod(smaller) * tile_size.bytes_per_voxel(made, made.config) <= half
    small = run(made, raw, tmp_path / "small.zarr", smaller)["affs"].read()
    np.testing.assert_array_equal(run(made, raw, tmp_path / "whole.zarr", whole)["affs"].read(), small)


def test_another_amount_of_free_memory_repeats_no_work(
    tmp_path: Path, folders: Path, call_script: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, out = volume(tmp_path, (8, 12, 12)), tmp_path / "p.zarr"
    arguments = [folders.with_name("lsd"), "--raw", raw.path, "--out", out, "--device", "cpu"]
    monkeypatch.setattr("emsuite.common.device.free_memory", lambda: 1)
    assert call_script(PREDICT, *arguments).code == 0
    settings = json.loads((tmp_path / "p.zarr.manifest.json").read_text())["settings"]
    assert settings["input_shape"] == [18, 25, 25]  # the smallest there is
    monkeypatch.undo()
    assert call_script(PREDICT, *arguments, cwd=tmp_path).out == f"{out}: already there, made with the same settings\n"
    assert call_script(PREDICT, *arguments, "--set", "prediction.heads=[lsds]", cwd=tmp_path).code == 0
    settings = json.loads((tmp_path / "p.zarr.manifest.json").read_text())["settings"]
    assert settings["input_shape"] > [18, 25, 25]


# ---- bad input


def test_raw_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="voxel size"):
        check_raw(volume(tmp_path, (8, 8, 8)), (40, 4, 4))
    four = create_volume(tmp_path / "v.zarr/four", (3, 8, 8, 8), np.uint8, (10, 10, 10), (0, 0, 0))
    with pytest.raises(BadInput, match="4 axes"):
        check_raw(four, (10, 10, 10))
    labels = create_volume(tmp_path / "v.zarr/labels", (8, 8, 8), np.uint64, (10, 10, 10), (0, 0, 0))
    with pytest.raises(BadInput, match="uint64"):
        check_raw(labels, (10, 10, 10))


@pytest.mark.parametrize(("value", "message"), [(np.nan, "holds NaN"), (np.inf, "to inf"), (-0.1, "from -0.1 to")])
def test_floats_that_are_no_grey_values_are_refused(tmp_path: Path, value: float, message: str) -> None:
    raw = create_volume(tmp_path / "raw.zarr/raw", (20, 20, 20), np.float32, (10, 10, 10), (0, 0, 0))
    raw.array[...] = 0.5
    made = run(network(ANISOTROPIC), raw, tmp_path / "good.zarr", (48, 48, 48))
    raw.array[19, 18, 17] = value
    with pytest.raises(BadInput, match=f"raw.zarr/raw: holds .*{message.removeprefix('holds ')}"):
        run(network(ANISOTROPIC), raw, tmp_path / "p.zarr", (48, 48, 48))
    assert made["affs"].read().any()
    assert not (tmp_path / "p.zarr.manifest.json").exists()


def test_floats_that_rounding_moved_out_count_as_1(tmp_path: Path) -> None:
    volumes = []
    for name, value in (("one", 1.0), ("rounded", np.nextafter(np.float32(1), np.float32(2)))):
        raw = create_volume(tmp_path / f"{name}.zarr/raw", (20, 20, 20), np.float32, (10, 10, 10), (0, 0, 0))
        raw.array[...] = value
        volumes.append(run(network(ANISOTROPIC), raw, tmp_path / f"p_{name}.zarr", (48, 48, 48))["affs"].read())
    np.testing.assert_array_equal(*volumes)


def test_a_tile_of_floats_above_1_is_refused_in_python_too() -> None:
    made, cpu = network(SHALLOW), torch.device("cpu")
    predict_tile = predictor.Predictor(made, made.config, cpu, torch.float32, BY_STRIDE, TILE, ("affs",))
    with pytest.raises(BadInput, match="raw: floats from 0 to 255, expected floats in"):
        predict_tile(torch.arange(26 * 28**2).reshape(TILE).remainder(256).float())
    assert predict_tile(torch.full(TILE, 0.5)).arrays()["affs"].any()


def test_raw_without_voxels_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"shape \(0, 8, 8\) holds no voxel"):
        check_raw(create_volume(tmp_path / "v.zarr/none", (0, 8, 8), np.uint8, (10, 10, 10), (0, 0, 0)), (10, 10, 10))


def test_a_network_that_yields_nan_fails_and_leaves_nothing_whole(tmp_path: Path) -> None:
    made = network(ANISOTROPIC)
    made.heads["affs"].bias.data.fill_(torch.nan)
    raw = volume(tmp_path, (20, 20, 20))
    with pytest.raises(RunFailed, match="NaN"):
        run(made, raw, tmp_path / "p.zarr", (48, 48, 48))
    assert not (tmp_path / "p.zarr.manifest.json").exists()


def test_predictions_clip_and_never_wrap() -> None:
    values = torch.tensor([-0.1, 0.0, 0.5, 0.9999, 1.0, 1.1])
    for tiling, expected in ((BY_STRIDE, [0, 0, 128, 255, 255, 255]), (Original(), [0, 0, 127, 254, 255, 255])):
        made, cpu = network(ANISOTROPIC), torch.device("cpu")
        tile_predictor = predictor.Predictor(made, made.config, cpu, torch.float32, tiling, (48,) * 3, ())
        assert tile_predictor.to_stored("affs", values).tolist() == expected


def test_arrays_carry_their_place(tmp_path: Path) -> None:
    raw = volume(tmp_path, (12, 13, 14), (70, 80, 90))
    tile_predictor = make_predictor(network(ANISOTROPIC), (48, 48, 48), raw, raw.roi)
    (tmp_path / "p.zarr").mkdir()
    predict.predict_volume(tile_predictor, raw, raw.roi, Output(tmp_path / "p.zarr", False))
    affs = open_volume(tmp_path / "p.zarr/affs")
    assert dict(affs.array.attrs) == {
        "voxel_size": [10, 10, 10],
        "resolution": [10, 10, 10],
        "offset": [70, 80, 90],
        "neighborhood": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]],
    }
