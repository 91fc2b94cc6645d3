"""Training and prediction on bad input: one line that says what is wrong and where, a code, nothing that looks whole.

The scripts run inside this process, where that is enough, and as processes of their own where it is not.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
import zarr

from builders import ROOT, write_array, write_network
from emsuite.common.errors import BadInput
from emsuite.data.grey_values import TYPES
from emsuite.data.raw import SAYS_RANGE
from emsuite.io.volume import create_volume, open_volume
from emsuite.prediction.finished_tiles import TileRecord

TRAIN, DESCRIBE, PREDICT = "02_train/train.py", "02_train/describe.py", "03_predict/predict.py"
SIZE, SHAPE = (10, 10, 10), (28, 28, 28)
RAW = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
LABELS = np.ones(SHAPE, np.uint64)
LABELS[:, :, 14:] = 2
WIDE = RAW.astype(np.float32)
NO_NUMBER = np.where(RAW == 7, np.nan, RAW / 255).astype(np.float32)
AFFS = {"target": "affinities", "neighborhood": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]}


def write_volume(path: Path, **arrays: tuple[np.ndarray, tuple[int, ...], tuple[int, ...]]) -> Path:
    """A volume, good but for the `arrays` given as (values, voxel size, offset)."""
    good = {"raw": (RAW, SIZE, (0, 0, 0)), "labels": (LABELS, SIZE, (0, 0, 0))}
    places = {"raw": "raw", "labels": "labels/neuron_ids", "mask": "labels/labels_mask"}
    for name, (values, size, offset) in (good | arrays).items():
        write_array(path / "volumes" / places[name], values, size, offset)
    return path


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_network(tmp_path / "d/n")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return write_volume(tmp_path / "v.zarr")


@pytest.fixture
def trained(call_script: Callable, network: Path, volume: Path) -> Path:
    assert call_script(TRAIN, network, "--data", volume, "--iterations", 1).code == 0
    return network


def refused(ended: Any, line: str, code: int = 2) -> None:
    """The script ended with `code`, and its last words are one line that begins with `line`."""
    last = ended.err.rstrip("\n").splitlines()[-1]
    assert last.startswith(f"error: {line}"), ended.err
    assert ended.code == code
    assert [row for row in ended.err.splitlines() if row.startswith("error:")] == [last]
    assert "Traceback" not in ended.err
    assert ended.out == ""


def nothing_trained(network: Path, *snapshots: str) -> None:
    assert not list(network.glob("checkpoints/*"))
    assert sorted(path.name for path in network.glob("snapshots/*")) == list(snapshots)


def nothing_predicted(out: Path) -> None:
    assert not out.with_name(out.name + ".manifest.json").exists()
    if out.exists():
        with pytest.raises(BadInput, match="unfinished"):
            open_volume(out / "affs")


# ---- training


GROUND = "volumes/labels/neuron_ids"


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"raw": (RAW.astype(np.uint64), SIZE, (0,) * 3)}, "volumes/raw: holds uint64, expected uint8, uint16"),
        ({"labels": (LABELS.astype(np.float32), SIZE, (0,) * 3)}, f"{GROUND}: holds float32, expected integers"),
        ({"raw": (RAW[0], SIZE[1:], (0, 0))}, "volumes/raw: has 2 axes (28, 28), expected 3: z, y, x"),
        ({"raw": (RAW[None], SIZE, (0,) * 3)}, "volumes/raw: has 4 axes (1, 28, 28, 28), expected 3: z, y, x"),
        ({"raw": (RAW, (8, 8, 8), (0,) * 3)}, f"{GROUND}: voxels of (10, 10, 10) nm, expected raw's, (8, 8, 8) nm"),
        (
            {"raw": (RAW, (8, 8, 8), (0,) * 3), "labels": (LABELS, (8, 8, 8), (0,) * 3)},
            f"{GROUND}: voxel size (8, 8, 8) nm, expected the network's (10, 10, 10)",
        ),
        ({"labels": (LABELS, SIZE, (280, 0, 0))}, " labels cover [280:560, 0:280, 0:280]"),
        ({"labels": (LABELS, SIZE, (5, 0, 0))}, f"{GROUND}: begins at (5, 0, 0) nm, which is not whole voxels"),
        ({"raw": (NO_NUMBER, SIZE, (0,) * 3)}, "volumes/raw: holds NaN, in "),
        ({"raw": (RAW.astype(np.float32), SIZE, (0,) * 3)}, "volumes/raw: floats from 0 to 255, expected 0 to 1"),
        ({"labels": (LABELS[:3, :3, :3], SIZE, (0,) * 3)}, " labels of (3, 3, 3) voxels"),
        (
            {"mask": (np.zeros(SHAPE, np.uint8), SIZE, (0,) * 3)},
            " all labels are 0 or masked out, expected neurons",
        ),
        ({"mask": (np.ones((2, 2, 2), np.uint8), SIZE, (0,) * 3)}, "volumes/labels/labels_mask: covers "),
    ],
)
def test_volumes_that_cannot_be_trained_on(
    call_script: Callable, network: Path, tmp_path: Path, arrays: dict, line: str
) -> None:
    path = write_volume(tmp_path / "odd.zarr", **arrays)
    separator = ":" if line.startswith(" ") else "/"
    refused(call_script(TRAIN, network, "--data", path), f"{path}{separator}{line}")
    nothing_trained(network)


def test_volumes_that_are_not_there(call_script: Callable, network: Path, tmp_path: Path) -> None:
    refused(call_script(TRAIN, network, "--data", tmp_path / "no.zarr"), f"{tmp_path / 'no.zarr'}: no such volume")
    empty = create_volume(tmp_path / "empty.zarr/other", (2, 2, 2), np.uint8, SIZE, (0, 0, 0)).path.parent
    refused(call_script(TRAIN, network, "--data", empty), f"{empty}: has no array '{GROUND}'; it holds other")
    refused(
        call_script(TRAIN, network, "--data", tmp_path),
        f"{tmp_path / GROUND}: not in a .zarr, .n5, .precomputed, .h5, .hdf, .hdf5, .tif or .tiff container",
    )
    refused(call_script(TRAIN, network), "no data set 'd'; there are ")
    nothing_trained(network)


@pytest.mark.parametrize("script", [TRAIN, DESCRIBE])
def test_networks_that_are_not_there(call_script: Callable, volume: Path, tmp_path: Path, script: str) -> None:
    data = ["--data", volume] if script == TRAIN else []
    refused(call_script(script, tmp_path / "d/no", *data), f"{tmp_path / 'd/no'}: no such folder; expected a network's")
    refused(call_script(script, tmp_path, *data), f"{tmp_path}: has no network.yaml; expected a network's folder")
    refused(call_script(script, *data, cwd=tmp_path), "no NETWORK_DIR given, and this folder has no network.yaml")


@pytest.mark.parametrize(
    ("roi", "line"),
    [
        ("0:100", "--data {volume}@0:100: '0:100' behind the last @ is no region, expected three ranges in nm"),
        ("", "--data {volume}@: '' behind the last @ is no region"),
        ("a:b,:,:", "--data {volume}@a:b,:,:: 'a:b,:,:' behind the last @ is no region"),
        ("90:10,:,:", "ROI '90:10,:,:': '90:10' is empty or no range"),
        ("0:1000,:,:", "{labels}: covers [0:280, 0:280, 0:280] (280, 280, 280) nm, but [0:1000,"),
        ("5:105,:,:", "{labels}: [5:105, 0:280, 0:280] (100, 280, 280) nm does not lie on the voxels"),
    ],
)
def test_regions_to_train_in(call_script: Callable, network: Path, volume: Path, roi: str, line: str) -> None:
    ended = call_script(TRAIN, network, "--data", f"{volume}@{roi}")
    refused(ended, line.format(volume=volume, labels=volume / "volumes/labels/neuron_ids"))
    nothing_trained(network)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("training.iteration=5", "training.iteration: unknown key; it holds 5"),
        ("unet.num_fmaps=many", "unet.num_fmaps: Input should be a valid integer"),
        ("unet.downsample_factors=[[2, 2, 0]]", "unet.downsample_factors.0.2: Input should be greater than 0"),
        ("heads.affs.loss=l2", "heads.affs.loss: no loss 'l2'; there are weighted_mse, bce, malis"),
        ("training.optimizer.learning_rate=.nan", "training.optimizer.learning_rate: Input should be a finite number"),
        ("training.augment=[{name: swirl}]", "training.augment.0.name: expected one of "),
        ("voxel_size=[0, 1, 1]", "voxel_size.0: Input should be greater than 0"),
    ],
)
def test_settings_of_a_network(call_script: Callable, network: Path, volume: Path, override: str, line: str) -> None:
    """On the command line, and in the yaml file, where file and line are named."""
    refused(call_script(TRAIN, network, "--data", volume, "--set", override), f"--set {override}: {line}")
    key, _, value = override.partition("=")
    path = network / "network.yaml"
    content = yaml.safe_load(path.read_text())
    *above, last = key.split(".")
    section = content
    for part in above:
        section = section.setdefault(part, {})
    section[last] = yaml.safe_load(value)
    path.write_text(yaml.safe_dump(content))
    ended = call_script(TRAIN, network, "--data", volume)
    refused(ended, f"{path}:")
    assert line in ended.err
    nothing_trained(network)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--set", "nonsense"], "--set nonsense: expected key=value"),
        (["--set", "training.input_shape=[21, 20, 20]"], "input shape (21, 20, 20): 21 along axis 0 does not fit the"),
        (["--set", "training.sampling.probabilities=[1, 2]"], "sampling.probabilities: 2 for 1 volumes"),
        (["--set", "training.sampling.label_padding=[5, 0, 0]"], "sampling.label_padding: (5, 0, 0) nm, expected mult"),
        (["--set", "autocontext={network: lsd, with_raw: true}"], "{above}/lsd: no such folder; expected a network's"),
        (["--iterations", "0"], "Invalid value for '--iterations': 0 is not in the range x>=1"),
        (["--iterations", "1e5"], "Invalid value for '--iterations': '1e5' is not a valid integer"),
        (["--seed", "-1"], "Invalid value for '--seed': -1 is not in the range x>=0"),
        (["--device", "tpu"], "Invalid value for '--device': 'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["--device", "cuda"], "--device cuda: torch sees no GPU here; use --device cpu or auto"),
    ],
)
def test_arguments_of_training(
    call_script: Callable, network: Path, volume: Path, monkeypatch: pytest.MonkeyPatch, arguments: list, line: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(call_script(TRAIN, network, "--data", volume, *arguments), line.format(above=network.parent))
    nothing_trained(network)


def test_yaml_that_is_none(call_script: Callable, network: Path, volume: Path) -> None:
    path = network / "network.yaml"
    path.write_text("unet: {num_fmaps: 4\nheads: ]")
    refused(call_script(TRAIN, network, "--data", volume), f"{path}:2: not valid yaml")
    path.write_text("unet: {}\nunet: {}")
    refused(call_script(TRAIN, network, "--data", volume), f"{path}:2: not valid yaml: the key 'unet' is there twice")


def test_a_loss_that_is_no_number(call_script: Callable, network: Path, volume: Path) -> None:
    ended = call_script(TRAIN, network, "--data", volume, "--iterations", 4, "--set",
                        "training.optimizer.learning_rate=1e30")  # fmt: skip
    refused(ended, f"{network}: the loss is nan at iteration 2; nothing was saved since", code=1)
    nothing_trained(network, "batch_1.zarr")  # the first batch was a good one


# ---- checkpoints


BROKEN = "not a whole checkpoint of this suite"


def with_weight(path: Path, change: Callable[[torch.Tensor], Any]) -> None:
    content = torch.load(path, weights_only=True)
    weights = content["networks"]["network"]
    weights["heads.affs.bias"] = change(weights["heads.affs.bias"])
    torch.save(content, path)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda path, whole: with_weight(path, lambda bias: bias.double()), "its weights do not fit the network: "),
        (lambda path, whole: with_weight(path, lambda bias: bias[:2]), "its weights do not fit the network: "),
        (lambda path, whole: with_weight(path, lambda bias: bias * torch.inf), "its weights do not fit the network: "),
        (lambda path, whole: path.write_bytes(whole[:-600]), BROKEN),
        (lambda path, whole: path.write_bytes(whole[: len(whole) // 2]), BROKEN),
        (lambda path, whole: path.write_bytes(b""), BROKEN),
        (lambda path, whole: path.write_text("a web page: not found"), BROKEN),
        (lambda path, whole: torch.save({"model": {"conv.weight": torch.zeros(1)}}, path), BROKEN),
        (lambda path, whole: torch.save([1, 2], path), BROKEN),
        (lambda path, whole: torch.save(torch.load(path, weights_only=True) | {"architecture": "unet"}, path), BROKEN),
        (lambda path, whole: torch.save(torch.load(path, weights_only=True) | {"networks": {"network": {}}}, path),
         "its weights do not fit the network: "),
    ],
    ids=["double", "short", "infinite", "cut off", "half", "empty",
         "a page", "of another program", "a list", "of other types", "without weights"],
)  # fmt: skip
def test_checkpoints_that_are_broken(
    call_script: Callable, trained: Path, volume: Path, tmp_path: Path, spoil: Callable, line: str
) -> None:
    path = trained / "checkpoints/checkpoint_1.pt"
    spoil(path, path.read_bytes())
    before = path.read_bytes()
    refused_line = f"{path}: {line}"
    for ended in (
        call_script(TRAIN, trained, "--data", volume, "--iterations", 2),
        call_script(PREDICT, trained, "--raw", volume / "volumes/raw", "--out", tmp_path / "p.zarr"),
    ):
        refused(ended._replace(err="".join(ended.err.splitlines(keepends=True)[-1:])), refused_line)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.glob("*.pt")] == [path.name]
    nothing_predicted(tmp_path / "p.zarr")
    assert not (tmp_path / "p.zarr").exists()


def test_a_checkpoint_of_another_network(call_script: Callable, trained: Path, volume: Path, tmp_path: Path) -> None:
    line = (
        f"{trained}/checkpoints/checkpoint_1.pt: a checkpoint of another network: its unet.num_fmaps is 4, expected 5"
    )
    wider = ["--set", "unet.num_fmaps=5"]
    refused(call_script(TRAIN, trained, "--data", volume, *wider), line)
    raw = volume / "volumes/raw"
    refused(call_script(PREDICT, trained, "--raw", raw, "--out", tmp_path / "p.zarr", *wider), line)
    nothing_predicted(tmp_path / "p.zarr")


def test_a_checkpoint_that_is_not_there(call_script: Callable, network: Path, volume: Path, tmp_path: Path) -> None:
    arguments = ["--raw", volume / "volumes/raw", "--out", tmp_path / "p.zarr"]
    refused(call_script(PREDICT, network, *arguments), f"{network}: no checkpoint; train it, or fetch its published")
    assert call_script(TRAIN, network, "--data", volume, "--iterations", 1).code == 0
    ended = call_script(PREDICT, network, *arguments, "--iteration", 7)
    refused(ended, f"{network}: no checkpoint of iteration 7; it has 1")
    nothing_predicted(tmp_path / "p.zarr")
    second = write_network(network.parent / "second", autocontext={"network": "first", "with_raw": False})
    first = write_network(network.parent / "first", heads={"lsds": {"target": "lsds", "sigma": 30}})
    refused(call_script(TRAIN, second, "--data", volume), f"{first}: no checkpoint of iteration 2; train it")
    nothing_trained(second)


def test_weights_that_are_no_numbers(call_script: Callable, trained: Path, volume: Path, tmp_path: Path) -> None:
    path = trained / "checkpoints/checkpoint_1.pt"
    content = torch.load(path, weights_only=True)
    content["networks"]["network"]["heads.affs.bias"].fill_(torch.nan)
    torch.save(content, path)
    ended = call_script(PREDICT, trained, "--raw", volume / "volumes/raw", "--out", tmp_path / "p.zarr")
    refused(
        ended, f"{path}: its weights do not fit the network: heads.affs.bias holds NaN or infinity, expected numbers"
    )
    nothing_predicted(tmp_path / "p.zarr")


# ---- prediction


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ((RAW.astype(np.uint64), SIZE, (0,) * 3), f"uint64, expected {TYPES}"),
        ((RAW[0], SIZE[1:], (0, 0)), "2 axes (28, 28), expected raw with 3 (z, y, x)"),
        ((RAW[None], SIZE, (0,) * 3), "4 axes (1, 28, 28, 28), expected raw with 3 (z, y, x)"),
        ((RAW, (40, 4, 4), (0,) * 3), "voxel size (40, 4, 4) nm, expected the network's (10, 10, 10)"),
        ((NO_NUMBER, SIZE, (0,) * 3), "holds NaN, expected floats in [0, 1], or uint8"),
        (
            (RAW.astype(np.float32), SIZE, (0,) * 3),
            f"holds floats from 0 to 255, expected floats in [0, 1]{SAYS_RANGE}, or uint8",
        ),
    ],
)
def test_raw_that_cannot_be_predicted(
    call_script: Callable, trained: Path, tmp_path: Path, raw: tuple, line: str
) -> None:
    path = write_volume(tmp_path / "odd.zarr", raw=raw) / "volumes/raw"
    refused(call_script(PREDICT, trained, "--raw", path, "--out", tmp_path / "p.zarr"), f"{path}: {line}")
    nothing_predicted(tmp_path / "p.zarr")


def test_raw_that_is_not_there(call_script: Callable, trained: Path, volume: Path, tmp_path: Path) -> None:
    def predict(raw: Path) -> Any:
        return call_script(PREDICT, trained, "--raw", raw, "--out", tmp_path / "p.zarr")

    refused(predict(tmp_path / "no.zarr/raw"), f"{tmp_path / 'no.zarr'}: no such volume")
    refused(predict(volume / "raw"), f"{volume}: has no array 'raw'; it holds volumes/labels/neuron_ids, volumes/raw")
    zarr.open_group(volume / "parts", mode="w")
    refused(predict(volume / "parts"), f"{volume}/parts: is a group, expected an array")
    assert not list(tmp_path.glob("*p.zarr*"))


@pytest.mark.parametrize("script", [TRAIN, PREDICT])
@pytest.mark.parametrize("left", [0.5, 0])
def test_a_volume_that_was_cut_off(
    call_script: Callable, trained: Path, volume: Path, tmp_path: Path, script: str, left: float
) -> None:
    raw = volume / "volumes/raw"
    chunk = next(path for path in raw.rglob("*") if path.is_file() and path.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes()[: int(chunk.stat().st_size * left)])
    arguments = {TRAIN: ["--data", volume], PREDICT: ["--raw", raw, "--out", tmp_path / "p.zarr"]}[script]
    told = "the chunk is damaged" if left else "is damaged: it is empty"
    refused(call_script(script, trained, *arguments), f"{chunk}: {told}")
    nothing_predicted(tmp_path / "p.zarr")
    (raw / "zarr.json").write_text('{"shape": [28')
    refused(call_script(script, trained, *arguments), f"{raw}: its metadata cannot be read")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--roi", "0:100"], "ROI '0:100': 1 ranges, expected 3 as z0:z1,y0:y1,x0:x1 in nm"),
        (["--roi", ""], "an empty word in the command line, expected a value"),
        (["--roi", "a:b,:,:"], "ROI 'a:b,:,:': 'a:b' is no range of nm"),
        (["--roi", "90:10,:,:"], "ROI '90:10,:,:': '90:10' is empty or no range"),
        (["--roi", "0:1000,:,:"], "{raw}: covers [0:280, 0:280, 0:280] (280, 280, 280) nm, but [0:1000,"),
        (["--roi", "5:105,:,:"], "{raw}: [5:105, 0:280, 0:280] (100, 280, 280) nm does not lie on the voxels"),
        (["--roi", "0:50,:,:", "--valid"], "{raw}: nothing of [0:50, 0:280, 0:280] (50, 280, 280) nm has real context"),
        (["--input-shape", "0,20,20"], "Invalid value for '--input-shape': '0,20,20': expected three whole numbers"),
        (["--iteration", "0"], "Invalid value for '--iteration': 0 is not in the range x>=1"),
        (["--set", "prediction.heads=[lsds]"], "{network}: (top level): prediction.heads names 'lsds'; the heads are"),
        (["--device", "cuda"], "--device cuda: torch sees no GPU here"),
    ],
)
def test_arguments_of_prediction(
    call_script: Callable,
    trained: Path,
    volume: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list,
    line: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    raw = volume / "volumes/raw"
    ended = call_script(PREDICT, trained, "--raw", raw, "--out", tmp_path / "p.zarr", *arguments)
    refused(ended, line.format(raw=raw, network=trained / "network.yaml"))
    assert not list(tmp_path.glob("*p.zarr*"))


def test_a_volume_no_larger_than_the_context(call_script: Callable, trained: Path, tmp_path: Path) -> None:
    raw = write_volume(tmp_path / "thin.zarr", raw=(RAW[:16], SIZE, (0,) * 3)) / "volumes/raw"
    out = tmp_path / "p.zarr"
    ended = call_script(PREDICT, trained, "--raw", raw, "--out", out, "--valid")
    refused(ended, f"{raw}: (16, 28, 28) voxels are no more than the network's context (16, 16, 16); leave out --valid")
    assert not out.exists()
    assert call_script(PREDICT, trained, "--raw", raw, "--out", out).code == 0
    assert open_volume(out / "affs").shape == (3, 16, 28, 28)


def test_places_where_something_else_lies(call_script: Callable, trained: Path, volume: Path, tmp_path: Path) -> None:
    raw = volume / "volumes/raw"

    def predict(out: Path) -> Any:
        return call_script(PREDICT, trained, "--raw", raw, "--out", out)

    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr/notes.txt").write_text("years of work")
    (tmp_path / "file.zarr").write_text("years of work")
    for name in ("mine.zarr", "file.zarr"):
        refused(predict(tmp_path / name), f"{tmp_path / name}: exists but was not made by this suite")
    assert (tmp_path / "mine.zarr/notes.txt").read_text() == (tmp_path / "file.zarr").read_text() == "years of work"
    volume.with_name("v.zarr.manifest.json").write_text("{}")  # as that of a phantom, which this suite may replace
    refused(predict(volume), f"{volume}: holds {raw}, the raw it would be made from")
    np.testing.assert_array_equal(open_volume(raw).read(), RAW)
    refused(predict(tmp_path / "p"), f"{tmp_path / 'p'}: predictions are written as zarr, expected a name that ends in")
    assert not list(tmp_path.glob("p*"))


# ---- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("missing: the right to mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_in_training(call_script: Callable, small_disk: Path, volume: Path) -> None:
    wide = {"num_fmaps": 24, "fmap_inc_factor": 2, "downsample_factors": [[2, 2, 2]]}
    network = write_network(small_disk / "d/n", unet=wide)
    ended = call_script(TRAIN, network, "--data", volume, "--iterations", 1)
    refused(ended, f"{network}/checkpoints/checkpoint_1.pt: No space left on device", code=1)
    nothing_trained(network, "batch_1.zarr")
    (small_disk / "rest").write_bytes(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize))
    refused(call_script(TRAIN, network, "--data", volume), f"{network}: No space left on device", code=1)
    nothing_trained(network, "batch_1.zarr")


def test_a_full_disk_in_prediction(call_script: Callable, small_disk: Path, trained: Path, tmp_path: Path) -> None:
    """With room again the same command goes on, to the same bytes."""
    raw = np.random.default_rng(1).integers(0, 256, (110, 110, 110)).astype(np.uint8)
    path = write_volume(tmp_path / "large.zarr", raw=(raw, SIZE, (0,) * 3)) / "volumes/raw"
    arguments = ["--raw", path, "--input-shape", "48,48,48"]
    out = small_disk / "p.zarr"
    refused(call_script(PREDICT, trained, *arguments, "--out", out), f"{out}/affs: No space left on device", code=1)
    nothing_predicted(out)
    assert 0 < len(TileRecord(out, "done_tiles").read()) < 64
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert call_script(PREDICT, trained, *arguments, "--out", out).code == 0
    assert call_script(PREDICT, trained, *arguments, "--out", tmp_path / "whole.zarr").code == 0
    np.testing.assert_array_equal(open_volume(out / "affs").read(), open_volume(tmp_path / "whole.zarr/affs").read())


# ---- as processes of their own


@pytest.mark.slow
def test_the_shell_sees_the_same(run_script: Callable, network: Path, volume: Path, tmp_path: Path) -> None:
    ended = run_script(TRAIN, network, "--data", tmp_path / "no.zarr")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: {tmp_path / 'no.zarr'}: no such volume; expected a zarr folder\n"
    ended = run_script(PREDICT, network, "--raw", volume / "volumes/raw", "--out", tmp_path / "p.zarr")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: {network}: no checkpoint; train it, or fetch its published weights\n"


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_killed_prediction_goes_on_to_the_same_bytes(
    call_script: Callable, trained: Path, tmp_path: Path, precision: str
) -> None:
    raw = np.random.default_rng(1).integers(0, 256, (60, 70, 80)).astype(np.uint8)
    path = write_volume(tmp_path / "large.zarr", raw=(raw, SIZE, (0,) * 3)) / "volumes/raw"
    arguments = [trained, "--raw", path, "--input-shape", "24,24,24", "--set", f"prediction.precision={precision}"]
    assert call_script(PREDICT, *arguments, "--out", tmp_path / "whole.zarr").code == 0
    out = tmp_path / "killed.zarr"
    command = [sys.executable, ROOT / PREDICT, *arguments, "--out", out]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL, cwd=tmp_path) as process:
        record, deadline = TileRecord(out, "done_tiles"), time.monotonic() + 120
        while len(record.read()) < 5:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline, "it did not begin"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    nothing_predicted(out)
    assert len(record.read()) < 8 * 9 * 10
    ended = call_script(PREDICT, *arguments, "--out", out)
    assert ended.code == 0
    assert files(out) == files(tmp_path / "whole.zarr")
    again = call_script(PREDICT, *arguments, "--out", out)
    assert (again.code, again.out) == (0, f"{out}: already there, made with the same settings\n")


# ---- types that other programs write


@pytest.mark.parametrize("name", ["v.h5", "v.zarr"])
def test_byte_order_and_type_change_no_loss(call_script: Callable, tmp_path: Path, name: str) -> None:
    losses = []
    for case, (raw, labels) in enumerate([("u1", "<u8"), ("u1", ">u8"), ("u1", ">i4"), ("u1", "u1")]):
        arrays = {"volumes/raw": RAW.astype(raw), GROUND: LABELS.astype(labels)}
        path = tmp_path / f"{case}/{name}"
        path.parent.mkdir()
        for array, voxels in arrays.items():
            if path.suffix == ".h5":
                with h5py.File(path, "a") as file:
                    file.create_dataset(array, data=voxels).attrs["resolution"] = SIZE
            else:
                group = zarr.open_group(path, mode="a", zarr_format=2)
                group.create_array(array, data=voxels, chunks=SHAPE).attrs["resolution"] = list(SIZE)
        network = write_network(tmp_path / f"{case}/d/n")
        assert call_script(TRAIN, network, "--data", path).code == 0
        losses.append([row.split(",")[:3] for row in (network / "log/losses.csv").read_text().splitlines()])
    assert losses == losses[:1] * len(losses)


def test_labels_are_added_to_a_volume_with_a_listing(call_script: Callable, network: Path, tmp_path: Path) -> None:
    path = tmp_path / "v.zarr"
    write_array(path / "volumes/raw", RAW, SIZE)
    zarr.consolidate_metadata(path)
    group = zarr.open_group(path, mode="a", use_consolidated=False)
    group.create_array(GROUND, data=LABELS).attrs["resolution"] = list(SIZE)  # a program that renews no listing
    assert call_script(TRAIN, network, "--data", path).code == 0
