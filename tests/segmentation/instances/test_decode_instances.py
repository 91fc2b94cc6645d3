"""The stage: any blocks and any workers give what the whole volume at once gives; kills and resume; bad input."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

from builders import ROOT
from emsuite.common.errors import BadInput
from emsuite.common.outputs import read_manifest, unfinished_path
from emsuite.io.volume import create_volume, open_volume
from emsuite.segmentation.instances import flood_blocks
from emsuite.segmentation.instances.decode import decode
from emsuite.segmentation.instances.decode_instances import decode_instances
from emsuite.segmentation.instances.settings import InstanceSettings
from file_server import serve_files
from killed import MOMENTS, Killed, check_removals, killed

SHAPE = (30, 44, 50)
BCD = InstanceSettings(smallest_seed=5, smallest_instance=20)
FAR = InstanceSettings(decoding="bcd_2026", smallest_seed=5)


def predictions(seed: int = 0) -> dict[str, np.ndarray]:
    """Blobs of all sizes, so that seeds and floods cross any border; few levels, so that floods tie."""
    cells = gaussian_filter(np.random.default_rng(seed).random(SHAPE), 1.5)
    share = np.clip((cells - cells.mean()) / cells.std() / 10 + 0.79, 0, 1)
    contour = gaussian_filter(np.random.default_rng(seed + 1).random(SHAPE), 1) * 1.55
    values = {"foreground": np.round(share, 2), "contour": contour, "distance": np.round(share, 1)}
    return {name: np.rint(np.clip(value, 0, 1) * 255).astype(np.uint8) for name, value in values.items()}


def write(folder: Path, arrays: dict[str, np.ndarray]) -> dict[str, Path]:
    paths = {name: folder / "prediction.zarr" / name for name in arrays}
    for name, path in paths.items():
        values = arrays[name][None] if name == "contour" else arrays[name]  # with an axis of channels, and without
        create_volume(path, values.shape, values.dtype, (8, 4, 4), (80, 40, 0)).array[:] = values
    return paths


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write(tmp_path_factory.mktemp("predictions"), predictions())


def decoded(out: Path) -> np.ndarray:
    return open_volume(out / "segmentation").read()


@pytest.mark.parametrize("options", [BCD, FAR], ids=["bcd", "bcd_2026"])
def test_the_test_is_hard(options: InstanceSettings) -> None:
    """Seeds and instances cross the borders of blocks, and some are too small."""
    whole = decode(predictions(), options.resolve(True))
    assert whole.max() > 15
    for border in (whole[13:15], whole[:, 14:16], whole[:, :, 20:22]):
        assert np.unique(border).size > 4
    assert label(whole != 0)[1] < whole.max()


@pytest.mark.parametrize("block", [None, (112, 64, 80), (56, 176, 48), (64, 60, 72)])
@pytest.mark.parametrize("options", [BCD, FAR], ids=["bcd", "bcd_2026"])
def test_blocks_give_what_the_whole_gives(
    paths: dict[str, Path], tmp_path: Path, options: InstanceSettings, block: tuple[int, ...] | None
) -> None:
    number = decode_instances(paths, tmp_path / "a.zarr", options, block_size=block)
    whole = decode(predictions(), options.resolve(True))
    assert np.array_equal(decoded(tmp_path / "a.zarr"), whole)
    assert number == whole.max()
    written = open_volume(tmp_path / "a.zarr/segmentation")
    assert (written.dtype, written.offset, written.voxel_size) == (np.uint64, (80, 40, 0), (8, 4, 4))
    manifest = read_manifest(tmp_path / "a.zarr")
    assert (manifest["instances"], manifest["rounds"] > 1) == (number, True)
    assert {path.name for path in (tmp_path / "a.zarr").iterdir()} == {"segmentation", "zarr.json"}


@pytest.mark.parametrize("block", [(40, 20, 20), (48, 12, 28)])
def test_seeds_that_touch_at_edges_and_corners_of_blocks_are_one(tmp_path: Path, block: tuple[int, ...]) -> None:
    """Of thin seeds: diagonals in all directions, and single voxels at random."""
    is_seed = np.random.default_rng(0).random((14, 15, 16)) < 0.05
    along = np.arange(14)
    for y, x in ((along, along), (along, 13 - along), (13 - along, along), (13 - along, 13 - along)):
        is_seed[along, y, x] = True
    predicted = {"foreground": is_seed.astype(np.uint8) * 255, "contour": np.zeros(is_seed.shape, np.uint8)}
    every = InstanceSettings(smallest_seed=1, smallest_instance=1)
    decode_instances(write(tmp_path, predicted), tmp_path / "a.zarr", every, block_size=block)
    assert np.array_equal(decoded(tmp_path / "a.zarr"), label(is_seed, np.ones((3, 3, 3)))[0])


def test_workers_give_the_same(paths: dict[str, Path], tmp_path: Path) -> None:
    decode_instances(paths, tmp_path / "a.zarr", BCD, block_size=(80, 80, 80), workers=2)
    assert np.array_equal(decoded(tmp_path / "a.zarr"), decode(predictions(), BCD.resolve(True)))


def test_a_decoding_without_distance_reads_none(paths: dict[str, Path], tmp_path: Path) -> None:
    without = {name: path for name, path in paths.items() if name != "distance"}
    options = InstanceSettings(smallest_seed=5)
    decode_instances(without, tmp_path / "a.zarr", options, block_size=(80, 80, 80))
    assert np.array_equal(decoded(tmp_path / "a.zarr"), decode(predictions(), options.resolve(False)))
    assert read_manifest(tmp_path / "a.zarr")["settings"]["seed_distance"] is None
    decode_instances(paths, tmp_path / "b.zarr", options.model_copy(update={"decoding": "bc"}))
    assert np.array_equal(decoded(tmp_path / "a.zarr"), decoded(tmp_path / "b.zarr"))


@pytest.mark.parametrize("step", ["write_faces", "write_lookup"])
def test_a_stopped_run_goes_on(
    paths: dict[str, Path], tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls, real = tmp_path / "a.zarr", [0], getattr(flood_blocks, step)

    def stop_at_the_tenth(*args: object) -> None:
        calls[0] += 1
        if calls[0] == 10:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(flood_blocks, step, stop_at_the_tenth)
    with pytest.raises(KeyboardInterrupt):
        decode_instances(paths, out, BCD, block_size=(80, 80, 80))
    monkeypatch.setattr(flood_blocks, step, real)
    assert unfinished_path(out).exists()
    made = (out / ".decoding/components/0.npz").stat().st_mtime_ns
    monkeypatch.setattr("emsuite.segmentation.instances.decode_instances.remove", lambda path: None)
    decode_instances(paths, out, BCD, block_size=(80, 80, 80))
    assert (out / ".decoding/components/0.npz").stat().st_mtime_ns == made, "finished blocks are kept"
    assert np.array_equal(decoded(out), decode(predictions(), BCD.resolve(True)))


def test_a_stopped_run_that_has_lost_labels_floods_again(
    paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, size, real = tmp_path / "a.zarr", (40, 40, 40), flood_blocks.write_lookup

    def stop_in_the_third_round(*args: object) -> None:
        if (out / ".decoding/done/flood 3").exists():
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(flood_blocks, "write_lookup", stop_in_the_third_round)
    with pytest.raises(KeyboardInterrupt):
        decode_instances(paths, out, BCD, block_size=size)
    monkeypatch.setattr(flood_blocks, "write_lookup", real)
    labels = [file for file in (out / "flooded").rglob("*") if file.is_file() and file.name[0].isdigit()]
    for file in labels:
        file.unlink()
    decode_instances(paths, out, BCD, block_size=size)
    assert np.array_equal(decoded(out), decode(predictions(), BCD.resolve(True)))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_in_any_removal_changes_no_byte(paths: dict[str, Path], tmp_path: Path, moment: str) -> None:
    def run(folder: Path) -> None:
        decode_instances(paths, folder / "a.zarr", BCD, block_size=(80, 80, 80))

    check_removals(run, tmp_path, 2, moment)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", range(6))
def test_a_kill_while_rounds_are_forgotten_changes_no_byte(
    paths: dict[str, Path], tmp_path: Path, number: int, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped run has lost the labels of a block; the next one is killed as it removes what builds on them."""
    out, size, real = tmp_path / "a.zarr", (80, 80, 80), flood_blocks.write_lookup

    def stop_in_the_third_round(*args: object) -> None:
        if (out / ".decoding/done/flood 3").exists():
            raise KeyboardInterrupt
        real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(flood_blocks, "write_lookup", stop_in_the_third_round)
        with pytest.raises(KeyboardInterrupt):
            decode_instances(paths, out, BCD, block_size=size)
    min(file for file in (out / "flooded").rglob("*") if file.is_file() and file.name[0].isdigit()).unlink()
    with contextlib.suppress(Killed), killed(number, moment) as begun:
        decode_instances(paths, out, BCD, block_size=size)
    assert len(begun) > number
    decode_instances(paths, out, BCD, block_size=size)
    assert np.array_equal(decoded(out), decode(predictions(), BCD.resolve(True)))


@pytest.mark.slow
def test_a_killed_command_goes_on(paths: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    words = [sys.executable, ROOT / "04_segment/decode_instances.py", "--out", out, "--workers", "1"]
    words += ["--block-size", "40,40,40", "--smallest-seed", "5", "--smallest-instance", "20"]
    words += [word for name, path in paths.items() for word in (f"--{name}", path)]
    run = subprocess.Popen([str(word) for word in words])
    deadline = time.monotonic() + 60
    while not list(out.glob(".decoding/faces/1/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    run.kill()
    run.wait()
    assert unfinished_path(out).exists()
    assert subprocess.run([str(word) for word in words], check=False).returncode == 0
    assert np.array_equal(decoded(out), decode(predictions(), BCD.resolve(True)))


def test_nothing_predicted_is_a_segmentation_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nothing = write(tmp_path, dict.fromkeys(("foreground", "contour"), np.zeros((6, 7, 8), np.uint8)))
    assert decode_instances(nothing, tmp_path / "a.zarr", InstanceSettings(), block_size=(24, 16, 16)) == 0
    assert not decoded(tmp_path / "a.zarr").any()
    assert "holds no instance" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contour": np.zeros(SHAPE, np.float32)}, "contour: float32, expected the contour as uint8"),
        ({"foreground": np.zeros((2, *SHAPE), np.uint8)}, "shape .* expected the foreground of one head"),
        ({"distance": np.zeros((30, 44, 49), np.uint8)}, "distance: covers .* nm, expected"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, np.ndarray], message: str) -> None:
    arrays = write(tmp_path, predictions() | change)
    with pytest.raises(BadInput, match=message):
        decode_instances(arrays, tmp_path / "a.zarr", BCD)
    assert not (tmp_path / "a.zarr").exists()


def test_heads_that_are_missing_are_named(paths: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no distance given, which these thresholds need"):
        decode_instances({name: paths[name] for name in ("foreground", "contour")}, tmp_path / "a.zarr",
                         InstanceSettings(decoding="cysgan"))  # fmt: skip
    with pytest.raises(BadInput, match=r"prediction\.zarr: has no array .skin."):
        decode_instances(paths | {"contour": paths["contour"].with_name("skin")}, tmp_path / "a.zarr", BCD)


def test_a_name_that_is_no_zarr_is_refused_before_anything_is_written(paths: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"out: is written in blocks, as zarr; expected a name that ends in \.zarr"):
        decode_instances(paths, tmp_path / "out", BCD)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_predictions_that_change_on_their_server_are_decoded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server tells of no change: the voxels count, or blocks of both versions would be mixed."""
    served, real = write(tmp_path / "served", predictions()), flood_blocks.write_faces
    out, calls = tmp_path / "a.zarr", [0]

    def stop_at_the_tenth(*args: object) -> None:
        calls[0] += 1
        if calls[0] == 10:
            raise KeyboardInterrupt
        real(*args)

    with serve_files(tmp_path / "served") as url:
        paths = {name: Path(f"{url}/prediction.zarr/{name}") for name in served}
        monkeypatch.setattr(flood_blocks, "write_faces", stop_at_the_tenth)
        with pytest.raises(KeyboardInterrupt):
            decode_instances(paths, out, BCD, block_size=(80, 80, 80))
        monkeypatch.setattr(flood_blocks, "write_faces", real)
        write(tmp_path / "served", predictions(5))
        decode_instances(paths, out, BCD, block_size=(80, 80, 80))
    assert np.array_equal(decoded(out), decode(predictions(5), BCD.resolve(True)))
