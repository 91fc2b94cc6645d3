import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import RECORDED, ROOT, files_in
from emsuite.common.outputs import manifest_path
from emsuite.config.network import load_network
from emsuite.io.volume import create_volume, open_volume
from emsuite.training import checkpoint as checkpoints
from emsuite.training.trained_network import load_trained

SCRIPT = "01_data/fetch_checkpoint.py"
PLACE = "funke/zebrafinch/training/checkpoints"
Run = Callable[..., Any]


def files_of(network: str) -> dict[str, bytes]:
    folder = RECORDED / "zebrafinch" / network
    return {f"{PLACE}/{network}/{f.name}": f.read_bytes() for f in folder.iterdir() if f.suffix != ".npz"}


def bucket(s3: Any, name: str, *networks: str) -> list[str]:
    """A public bucket with recorded checkpoints; the options that name it."""
    objects = {f"{PLACE}/checkpoint": b'model_checkpoint_path: "train_net_checkpoint_500000"'}
    for network in networks:
        objects |= files_of(network)
    s3.public_bucket(name, objects)
    return ["--bucket", name, "--endpoint-url", s3.url]


def test_from_the_bucket_to_predictions(s3: Any, call_script: Run, thin_networks: Path, tmp_path: Path) -> None:
    where = [*bucket(s3, "weights-mtlsd", "mtlsd"), "--networks-dir", thin_networks, "--out", tmp_path / "data"]
    s3.faults(slowdown=0.2, error=0.1, truncate=0.2)
    first = call_script(SCRIPT, "--dataset", "zebrafinch", "--network", "mtlsd", *where)
    assert first.code == 0, first.err
    folder = thin_networks / "zebrafinch/mtlsd"
    path = folder / "checkpoints/checkpoint_400000.pt"
    assert first.out == f"{path}: converted\n"
    source = json.loads(manifest_path(path).read_text())["settings"]["converted"]
    assert source["source"] == f"s3://weights-mtlsd/{PLACE}/mtlsd"
    assert {item["key"]: item["size"] for item in source["objects"]} == {
        key: len(body) for key, body in files_of("mtlsd").items()
    }
    written = path.stat().st_mtime_ns
    s3.faults()
    assert call_script(SCRIPT, "-d", "zebrafinch", "--network", "mtlsd", *where).code == 0
    assert (s3.counts(), path.stat().st_mtime_ns) == ({"GET": 1}, written)

    raw = create_volume(tmp_path / "v.zarr/raw", (10, 40, 50), "uint8", (20, 9, 9), (0, 0, 0))
    raw.write(raw.roi, np.random.default_rng(0).integers(0, 256, (10, 40, 50), "uint8"))
    done = call_script("03_predict/predict.py", folder, "--raw", tmp_path / "v.zarr/raw", "--out", tmp_path / "p.zarr",
                       "--input-shape", "42,241,241")  # fmt: skip
    assert done.code == 0, done.err
    assert open_volume(tmp_path / "p.zarr/affs").shape == (3, 10, 40, 50)
    assert open_volume(tmp_path / "p.zarr/lsds").shape == (10, 10, 40, 50)


def test_the_frozen_network_comes_along(s3: Any, call_script: Run, thin_networks: Path, tmp_path: Path) -> None:
    where = [*bucket(s3, "weights-ac", "lsd", "acrlsd"), "--networks-dir", thin_networks, "--out", tmp_path / "data"]
    done = call_script(SCRIPT, "--dataset", "zebrafinch", "--network", "acrlsd", *where)
    assert done.code == 0, done.err
    made = [path.relative_to(thin_networks).as_posix() for path in thin_networks.rglob("*.pt")]
    assert sorted(made) == ["zebrafinch/acrlsd/checkpoints/checkpoint_190000.pt",
                            "zebrafinch/lsd/checkpoints/checkpoint_400000.pt"]  # fmt: skip
    folder = thin_networks / "zebrafinch/acrlsd"
    load_trained(folder, load_network(folder))


def test_the_network_of_the_folder_is_the_default(
    s3: Any, call_script: Run, thin_networks: Path, tmp_path: Path
) -> None:
    folder = thin_networks / "zebrafinch/mtlsd"
    done = call_script(SCRIPT, *bucket(s3, "weights-here", "mtlsd"), "--out", tmp_path / "data", cwd=folder)
    assert done.code == 0, done.err
    assert done.out.startswith("by default: --dataset zebrafinch --network mtlsd\n")
    assert checkpoints.iterations(folder) == [400_000]


def test_all_networks(s3: Any, call_script: Run, thin_networks: Path, tmp_path: Path) -> None:
    where = [*bucket(s3, "weights-all", "baseline", "malis", "lsd", "aclsd"), "--networks-dir", thin_networks]
    done = call_script(SCRIPT, "-d", "zebrafinch", "--all", *where, "--out", tmp_path / "data")
    assert done.code == 0, done.err
    for network in ("baseline", "malis", "lsd", "aclsd"):
        folder = thin_networks / "zebrafinch" / network
        assert checkpoints.load(folder, load_network(folder)).optimizer is not None
    assert len(list(thin_networks.rglob("*.pt"))) == 4


def test_one_iteration_more(call_script: Run, thin_networks: Path, tmp_path: Path) -> None:
    folder, data = thin_networks / "zebrafinch/mtlsd", tmp_path / "v.zarr"
    for name, dtype in {"raw": "uint8", "labels/neuron_ids": "uint64", "labels/labels_mask": "uint8"}.items():
        volume = create_volume(data / "volumes" / name, (48, 60, 60), dtype, (20, 9, 9), (0, 0, 0))
        volume.write(volume.roi, np.ones((48, 60, 60), dtype))
    train = ["02_train/train.py", folder, "--data", data, "--iterations", 400_001,
             "--set", "training.input_shape=[42,214,241]"]  # fmt: skip
    steps = []
    for option in (["--without-optimizer"], []):
        done = call_script(
            SCRIPT, "--local", RECORDED / "zebrafinch/mtlsd/train_net_checkpoint_400000", folder, *option
        )
        assert done.code == 0, done.err
        done = call_script(*train)
        assert done.code == 0, done.err
        assert ("which begins afresh" in done.err) == bool(option)
        saved = checkpoints.load(folder, load_network(folder))
        assert saved.iteration == 400_001
        assert saved.optimizer is not None
        steps.append(int(saved.optimizer["state"][0]["step"]))
        for path in (folder / "checkpoints").glob("checkpoint_400001*"):
            path.unlink()
    assert steps == [1, 400_001]


def test_killed_and_restarted(s3: Any, thin_networks: Path, tmp_path: Path) -> None:
    where = [*bucket(s3, "weights-kill", "mtlsd"), "--networks-dir", str(thin_networks), "--out", str(tmp_path / "d")]
    command = [sys.executable, str(ROOT / SCRIPT), "-d", "zebrafinch", "--network", "mtlsd", *where]
    s3.faults(bytes_per_s=20_000)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 90
    while not list((tmp_path / "d" / PLACE).glob("mtlsd/*.index")):
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(thin_networks.rglob("checkpoints"))
    s3.faults()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert s3.counts() == {"GET": 2}  # the listing, and the data
    assert len(list(thin_networks.rglob("*.pt"))) == 1


LOCAL = ["--local", RECORDED / "zebrafinch/mtlsd/train_net_checkpoint_400000"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "zebrafinch"], "expected --dataset with --network or --all, or --local PREFIX NETWORK_DIR"),
        (["--network", "mtlsd"], "expected --dataset with --network or --all"),
        (["-d", "zebrafinch", "--network", "mtlsd", "--all"], "expected --dataset with --network or --all"),
        (["-d", "mouse", "--network", "mtlsd"], "02_train/mouse/mtlsd: no such folder"),
        (["-d", "zebrafinch", "--network", "none"], "02_train/zebrafinch/none: no such folder"),
        (["-d", "zebrafinch", *LOCAL, "{networks}/zebrafinch/mtlsd"], "expected no --dataset, --network"),
        ([*LOCAL, "{networks}/zebrafinch/lsd"], "holds 'setup02/affs_0/bias', which is no part of the network"),
        ([*LOCAL, "{networks}/zebrafinch"], "02_train/zebrafinch: has no network.yaml"),
        (["--local", "nowhere", "{networks}/zebrafinch/lsd"], "nowhere.index: no such file; expected the index"),
        (["-d", "zebrafinch", "--network", "mtlsd", "--endpoint-url", "nonsense"], "S3 endpoint nonsense"),
    ],
)
def test_bad_input_is_one_line(
    call_script: Run, thin_networks: Path, tmp_path: Path, arguments: list[Any], message: str
) -> None:
    before = files_in(thin_networks)
    words = [str(word).replace("{networks}", str(thin_networks)) for word in arguments]
    done = call_script(SCRIPT, *words, "--networks-dir", thin_networks, "--out", tmp_path / "d")
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert files_in(thin_networks) == before
    assert not (tmp_path / "d").exists()


def test_help_has_an_example(call_script: Run) -> None:
    assert "python 01_data/fetch_checkpoint.py --dataset zebrafinch --network mtlsd" in call_script(SCRIPT, "-h").out
