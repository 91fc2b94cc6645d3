"""Training on a tiny volume: losses fall, a resumed run gives the same weights, what goes wrong is said in one line."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch.backends import cuda, cudnn

import builders
from builders import ROOT
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.outputs import manifest_path
from emsuite.common.state.origins import identity
from emsuite.config.network import load_network
from emsuite.data.training_volume import memory_needed
from emsuite.io.volume import LABELS, RAW, create_volume, open_volume
from emsuite.losses.registry import LOSSES
from emsuite.losses.target import HeadOutput, Target
from emsuite.training import checkpoint as checkpoints
from emsuite.training import trainer
from emsuite.training.log import read_losses
from emsuite.training.registry import STEPS
from emsuite.training.step import StepResult, TrainingState
from emsuite.training.trained_network import load_trained
from emsuite.training.volumes import load_training_data
from file_server import serve_files
from small_training import two_neurons

CPU = torch.device("cpu")
TRAIN = ROOT / "02_train/train.py"
NEAREST = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
LSDS = {"target": "lsds", "sigma": 30, "downsample": 1}
AFFS = {"target": "affinities", "neighborhood": NEAREST}


def write_network(folder: Path, heads: dict, **more: Any) -> Path:
    """A network of two levels that trains in milliseconds, and saves and shows every third iteration."""
    training = {"iterations": 6, "checkpoint_every": 3, "snapshot_every": 3, "optimizer": {"learning_rate": 0.003},
                "augment": [{"name": "mirror_transpose", "mirror": [0, 1, 2]}]}  # fmt: skip
    training |= more.pop("training", {})
    return builders.write_network(
        folder, heads=heads, training=training, prediction={"input_shape": [20, 20, 20]}, **more
    )


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two neurons side by side and a dark wall between them."""
    return two_neurons(tmp_path_factory.mktemp("volume") / "v.zarr")


def train(folder: Path, volume: Path, until: int, *overrides: str) -> dict[str, torch.Tensor]:
    """Train and return the newest weights."""
    config = load_network(folder, overrides)
    trainer.train(folder, config, load_training_data(config, [str(volume)], folder), until, CPU)
    return checkpoints.load(folder, config).weights


def test_the_loss_falls_and_is_logged(tmp_path: Path, volume: Path) -> None:
    folder = write_network(tmp_path / "d/n", {"lsds": LSDS, "affs": AFFS})
    train(folder, volume, 40, "training.optimizer.learning_rate=0.01", "training.snapshot_every=40")
    rows = read_losses(folder / "log/losses.csv")
    assert [row["iteration"] for row in rows] == list(range(1, 41))
    assert rows[-1]["affs"] < 0.7 * rows[0]["affs"]
    assert rows[-1]["lsds"] < 0.7 * rows[0]["lsds"]
    assert rows[0]["loss"] == pytest.approx(rows[0]["affs"] + rows[0]["lsds"], rel=1e-5)
    assert list((folder / "log").glob("events.out.tfevents*"))
    snapshot = folder / "snapshots/batch_40.zarr"
    raw, affs = open_volume(snapshot / "raw"), open_volume(snapshot / "predictions/affs")
    assert raw.roi.contains(affs.roi)
    assert affs.offset == (80, 80, 80)


@pytest.mark.parametrize("more", [{}, {"average": 0.9, "optimizer": {"schedule": "cosine", "warm_up": 2}}])
def test_a_resumed_run_gives_the_same_weights(tmp_path: Path, volume: Path, more: dict) -> None:
    heads = {"affs": AFFS, "lsds": LSDS}
    straight = train(write_network(tmp_path / "a/d/n", heads, training=more), volume, 6)
    folder = write_network(tmp_path / "b/d/n", heads, training=more)
    train(folder, volume, 4)
    (folder / "checkpoints/checkpoint_4.pt").unlink()  # as if killed at iteration 4: goes on from 3
    resumed = train(folder, volume, 6)
    files = [(tmp_path / f"{name}/d/n/checkpoints/checkpoint_6.pt").read_bytes() for name in "ab"]
    assert straight.keys() == resumed.keys()
    for name, expected in straight.items():
        assert torch.equal(resumed[name], expected), name
    averages = [checkpoints.read(tmp_path / f"{name}/d/n/checkpoints/checkpoint_6.pt").averaged for name in "ab"]
    assert (averages[0] is None) == (not more)
    for name in averages[0] or {}:
        assert torch.equal(averages[0][name], averages[1][name])
        assert name.endswith("bias") or not torch.equal(averages[0][name], straight[name])
    assert [row["iteration"] for row in read_losses(folder / "log/losses.csv")] == [1, 2, 3, 4, 5, 6]
    assert files[0] == files[1], "the file as a whole: optimizer, provenance and archive too"


def test_what_drops_out_is_the_same_after_a_resume(tmp_path: Path, volume: Path) -> None:
    options = ["unet.dropout=0.3", "unet.residual=padded", "unet.upsample=bilinear", "unet.skip=add"]
    straight = train(write_network(tmp_path / "a/d/n", {"lsds": LSDS}), volume, 4, *options)
    folder = write_network(tmp_path / "b/d/n", {"lsds": LSDS})
    train(folder, volume, 2, *options)
    torch.manual_seed(7)  # as another process has it
    resumed = train(folder, volume, 4, *options)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


def test_a_profile_tells_of_every_part_on_its_cadence(
    tmp_path: Path, volume: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "emsuite.training.log")
    steps = [{"name": "elastic", "control_point_spacing": [4, 4, 4], "jitter_sigma": [1, 1, 1]}, {"name": "intensity"}]
    training = {"augment": steps, "grow_boundary": {"in_plane": True}, "profile_every": 4}
    folder = write_network(tmp_path / "d/n", {"affs": AFFS, "lsds": LSDS}, training=training)
    weights = train(folder, volume, 10, "training.batch_size=2")
    tables = [
        text.splitlines() for text in "\n".join(caplog.messages).split("what took how long, up to iteration ")[1:]
    ]
    assert [table[0] for table in tables] == ["4:", "8:", "10:"]
    counts = [{words[0]: int(words[1]) for words in map(str.split, table[2:]) if words[-1] != "ms"} for table in tables]
    for count, steps_done in zip(counts, (4, 4, 2), strict=True):
        assert count.keys() == {
            "sample", "reading", "warp", "intensity", "copy", "targets", "boundary", "lsds", "affinities", "balance",
            "forward", "loss", "backward", "update"}  # fmt: skip
        assert {count[part] for part in ("forward", "loss", "backward", "update")} == {steps_done}
    # batches are prepared ahead: each counts where it was made
    assert sum(count["targets"] for count in counts) == sum(count["sample"] for count in counts) == 10
    assert sum(count["intensity"] for count in counts) == 20
    assert sum(count["warp"] for count in counts) == 40, "labels and raw of two samples"
    plain = train(write_network(tmp_path / "e/n", {"affs": AFFS, "lsds": LSDS}, training=training), volume, 10,
                  "training.batch_size=2", "training.profile_every=0")  # fmt: skip
    assert same(plain, weights)


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 0) -> bool:
    return found.keys() == expected.keys() and all(
        torch.allclose(found[name], expected[name], rtol=tolerance, atol=tolerance) for name in expected
    )


def test_a_batch_in_parts_gives_the_same_weights(tmp_path: Path, volume: Path) -> None:
    # where gradients are next to nothing, Adam's steps would depend on their last digit
    heads, gentle = {"affs": AFFS, "lsds": LSDS}, {"optimizer": {"learning_rate": 0.003, "eps": 1e-3}}
    weights = []
    for parts in (1, 2, 4):
        training = gentle | {"batch_size": 4, "accumulate": parts}
        weights.append(train(write_network(tmp_path / str(parts) / "n", heads, training=training), volume, 3))
    alone = train(write_network(tmp_path / "one/n", heads, training=gentle), volume, 3)
    assert same(weights[1], weights[0], 1e-5)
    assert same(weights[2], weights[0], 1e-5)
    assert not same(alone, weights[0], 1e-4)


def test_interim_checkpoints_serve_going_on_alone(
    tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that saves behind every iteration and is killed in the fifth keeps its newest, and ends as one without."""
    training = {"checkpoint_every": 3, "checkpoint_every_minutes": 1e-9}
    straight = train(write_network(tmp_path / "a/n", {"affs": AFFS}, training={"checkpoint_every": 3}), volume, 6)
    folder = write_network(tmp_path / "b/n", {"affs": AFFS}, training=training)
    supervised = STEPS["supervised"]
    run = supervised.run

    def killed(state: trainer.TrainingState, *arguments: Any) -> StepResult:
        if state.iteration == 4:
            raise KeyboardInterrupt
        return run(state, *arguments)

    monkeypatch.setattr(supervised, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        train(folder, volume, 6)
    monkeypatch.undo()
    files = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert files == [".checkpoint_3.pt.emsuite", "checkpoint_3.pt", "checkpoint_3.pt.manifest.json", "interim.pt"]
    assert checkpoints.iterations(folder) == [3], "prediction sees the published cadence"
    assert checkpoints.read(checkpoints.interim_path(folder)).iteration == 4
    weights = train(folder, volume, 6)
    assert same(weights, straight)
    assert checkpoints.iterations(folder) == [3, 6]
    assert not checkpoints.interim_path(folder).exists()
    assert [row["iteration"] for row in read_losses(folder / "log/losses.csv")] == list(range(1, 7))


def test_fewer_iterations_than_the_interim_checkpoint_has(tmp_path: Path, volume: Path) -> None:
    folder = write_network(tmp_path / "n", {"affs": AFFS})
    train(folder, volume, 2)
    interim = checkpoints.interim_path(folder)
    checkpoints.checkpoint_path(folder, 2).replace(interim)
    with pytest.raises(BadInput, match=r"/interim.pt: is at iteration 2 already, and there is no checkpoint of 1;"):
        train(folder, volume, 1)
    path = folder / "network.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.003", "learning_rate: 0.5"))
    with pytest.raises(BadInput, match=r"/interim.pt: was trained with other settings"):
        train(folder, volume, 3)


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path, volume: Path) -> None:
    folder = write_network(tmp_path / "d/n", {"affs": AFFS}, training={"batch_size": 3, "accumulate": 2})
    with pytest.raises(BadInput, match=r"batch_size: 3 samples for 1 processes with training\.accumulate 2"):
        train(folder, volume, 1)


@pytest.mark.parametrize("during", ["run", "_report", "_validate", "_save"])
@pytest.mark.parametrize("iteration", [2, 3, 6])
def test_a_signal_at_any_time_loses_no_iteration(
    tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch, during: str, iteration: int
) -> None:
    """Processes end together, so that one heard late ends the run an iteration later, which is saved."""
    folder = write_network(tmp_path / "n", {"affs": AFFS}, training={"checkpoint_every": 1 if during == "_save" else 9})
    config = load_network(folder)
    owner = STEPS[config.step] if during == "run" else trainer
    real = getattr(owner, during)

    def signalled(*arguments: Any, **more: Any) -> Any:
        done = real(*arguments, **more)
        state = next(argument for argument in arguments if isinstance(argument, TrainingState))
        if state.iteration == iteration:
            os.kill(os.getpid(), signal.SIGTERM)
        return done

    monkeypatch.setattr(owner, during, signalled)
    code = trainer.train(folder, config, load_training_data(config, [str(volume)], folder), 6, CPU)
    is_over = iteration == 6 and during != "run"
    assert code == (0 if is_over else 128 + signal.SIGTERM)
    ended = min(6, iteration + (during != "run"))
    assert checkpoints.iterations(folder)[-1] == ended == checkpoints.load(folder, config).iteration


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_and_ends_and_the_same_call_goes_on(
    tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    training = {"average": 0.9, "checkpoint_every": 100}
    straight = train(write_network(tmp_path / "a/n", {"affs": AFFS}, training=training), volume, 6)
    folder = write_network(tmp_path / "b/n", {"affs": AFFS}, training=training)
    config = load_network(folder)
    data = load_training_data(config, [str(volume)], folder)
    supervised = STEPS["supervised"]
    run = supervised.run

    def step_with_signal(state: trainer.TrainingState, *arguments: Any) -> StepResult:
        if state.iteration == 3:
            os.kill(os.getpid(), number)  # in the midst of the fourth iteration, which is finished
        return run(state, *arguments)

    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)]
    monkeypatch.setattr(supervised, "run", step_with_signal)
    assert trainer.train(folder, config, data, 6, CPU) == 128 + number
    assert checkpoints.iterations(folder) == [4]
    assert read_losses(folder / "log/losses.csv")[-1]["iteration"] == 4
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)] == handlers
    monkeypatch.undo()
    assert trainer.train(folder, config, data, 6, CPU) == 0
    both = [checkpoints.read(tmp_path / f"{name}/n/checkpoints/checkpoint_6.pt") for name in "ab"]
    assert same(both[1].weights, straight)
    assert same(both[1].averaged or {}, both[0].averaged or {})
    states = [checkpoint.optimizer["state"] for checkpoint in both if checkpoint.optimizer]
    assert all(same(states[1][number], states[0][number]) for number in states[0])


def addresses_of(pid: int) -> set[str]:
    """The addresses on which a process and its children listen."""
    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return found


@pytest.mark.slow
def test_processes_share_a_batch_as_one_process_has_it(tmp_path: Path, volume: Path) -> None:
    """torchrun on the CPU goes on: two processes with two samples each, one after the other, against one with all."""
    heads, training = {"affs": AFFS, "lsds": LSDS}, {"optimizer": {"learning_rate": 0.003, "eps": 1e-3}}
    training |= {"batch_size": 4, "average": 0.9}
    alone = train(write_network(tmp_path / "a/n", heads, training=training), volume, 6)
    folder = write_network(tmp_path / "b/n", heads, training=training | {"accumulate": 2})
    train(folder, volume, 3)
    form = ["--nnodes", "1", "--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file"]  # that of docs/training.md
    command = [sys.executable, "-m", "torch.distributed.run", *form, "--nproc-per-node", "2", TRAIN, folder,
               "--data", volume, "--iterations", 6, "--device", "cpu"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    done = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment)
    listening = set()
    while done.poll() is None:
        listening |= addresses_of(done.pid)
        time.sleep(0.05)
    assert done.stderr is not None
    said = done.stderr.read()
    assert done.returncode == 0, said
    assert listening == {"127.0.0.1"}, "they talk to each other, and nobody else can"
    assert said.count("going on from iteration 3") == 1  # one speaks for all
    assert same(checkpoints.load(folder, load_network(folder)).weights, alone, 1e-5)
    losses = [read_losses(tmp_path / f"{name}/n/log/losses.csv") for name in "ab"]
    assert [row["iteration"] for row in losses[1]] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in losses[1]] == pytest.approx([row["loss"] for row in losses[0]], rel=1e-4)


def test_a_compiled_network_computes_the_same_and_resumes_uncompiled(
    tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []

    def compile_quickly(network: torch.nn.Module) -> Any:
        compiled.append(network)
        return torch_compile(network, backend="eager")  # traced, and then run as it is

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", compile_quickly)
    monkeypatch.setenv("CXX", "true")  # a compiler is looked for, here for nothing
    folders = [write_network(tmp_path / name / "n", {"affs": AFFS}) for name in "ab"]
    expected = train(folders[0], volume, 3)
    assert not compiled
    assert same(train(folders[1], volume, 3, "training.compile=true", "training.deterministic=true"), expected, 1e-4)
    assert len(compiled) == 1
    assert not torch.are_deterministic_algorithms_enabled()
    assert same(train(folders[1], volume, 4), train(folders[0], volume, 4), 1e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_volumes_may_stay_on_disk(tmp_path: Path, volume: Path, masked: bool) -> None:
    path = tmp_path / "v.zarr"
    shutil.copytree(volume, path)
    if masked:
        mask = np.zeros((28, 28, 28), np.uint8)
        mask[4:, :20] = 1
        create_volume(path / "volumes/labels/labels_mask", mask.shape, np.uint8, (10,) * 3, (0,) * 3).array[...] = mask
    jitter = {"name": "elastic", "control_point_spacing": [5, 5, 5], "jitter_sigma": [1, 1, 1], "rotation": [0, 1.5]}
    training = {"sampling": {"label_padding": [40, 40, 40]}, "augment": [jitter]}
    folders = [write_network(tmp_path / name / "n", {"affs": AFFS}, training=training) for name in "ab"]
    expected = train(folders[0], path, 4, "training.stream=false")
    assert same(train(folders[1], path, 4, "training.stream=true"), expected)


def test_volumes_larger_than_memory_stay_on_disk(tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_network(write_network(tmp_path / "d/n", {"affs": AFFS}))
    needed = memory_needed(volume)
    for free, there in ((2 * needed, 2), (2 * needed - 2, 0)):
        monkeypatch.setattr("emsuite.training.volumes.free_memory", lambda free=free: free)
        (loaded,) = load_training_data(config, [str(volume)], tmp_path)
        assert len(loaded.tensors) == there


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_forward_and_backward_passes_use_tensor_float_32_only_where_it_is_asked_for(
    tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    seen, weighted_mse = set(), LOSSES["weighted_mse"]

    def note(*_: object) -> None:
        seen.add((cuda.matmul.allow_tf32, cudnn.allow_tf32))

    def loss(output: HeadOutput, target: Target) -> torch.Tensor:
        note()
        output.logits.register_hook(note)  # in the backward pass
        seen.add("forward")
        return weighted_mse(output, target)

    monkeypatch.setitem(LOSSES, "weighted_mse", loss)
    folder = write_network(tmp_path / "d/n", {"affs": AFFS})
    train(folder, volume, 1, f"training.precision={precision}")
    assert seen == {"forward", (precision == "tf32",) * 2}
    saved = checkpoints.read(folder / "checkpoints/checkpoint_1.pt")
    assert saved.provenance["settings"]["training"]["precision"] == precision


def test_another_seed_gives_other_weights(tmp_path: Path, volume: Path) -> None:
    weights = []
    for seed in (0, 1):
        folder = write_network(tmp_path / str(seed) / "n", {"affs": AFFS})
        weights.append(train(folder, volume, 2, f"training.sampling.seed={seed}"))
    assert not torch.equal(weights[0]["heads.affs.weight"], weights[1]["heads.affs.weight"])


def test_a_network_already_there_ends_well_and_trains_no_further(tmp_path: Path, volume: Path) -> None:
    folder = write_network(tmp_path / "d/n", {"affs": AFFS})
    train(folder, volume, 3)
    manifest = folder / "checkpoints/checkpoint_3.pt.manifest.json"
    manifest.unlink()
    before = (folder / "checkpoints/checkpoint_3.pt").read_bytes()
    train(folder, volume, 3)
    assert (folder / "checkpoints/checkpoint_3.pt").read_bytes() == before
    assert manifest.exists()  # a workflow that lost it gets it back


def test_malis_takes_over_with_a_fresh_optimizer(tmp_path: Path, volume: Path) -> None:
    switch = {"iteration": 3, "loss": "malis", "weights": "mask"}
    folder = write_network(
        tmp_path / "d/n", {"affs": AFFS | {"then": switch}}, training={"renumber_components_from": 3}
    )
    train(folder, volume, 5)
    saved = [checkpoints.read(folder / f"checkpoints/checkpoint_{i}.pt").optimizer for i in (3, 5)]
    assert [int(next(iter(o["state"].values()))["step"]) for o in saved if o] == [3, 2]
    resumed = write_network(
        tmp_path / "e/n", {"affs": AFFS | {"then": switch}}, training={"renumber_components_from": 3}
    )
    train(resumed, volume, 3)
    weights = train(resumed, volume, 5)
    expected = checkpoints.read(folder / "checkpoints/checkpoint_5.pt").weights
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("with_raw", [False, True])
def test_autocontext_trains_its_second_network_alone(tmp_path: Path, volume: Path, with_raw: bool) -> None:
    lsd = write_network(tmp_path / "d/lsd", {"lsds": LSDS})
    both = write_network(tmp_path / "d/ac", {"affs": AFFS}, autocontext={"network": "lsd", "with_raw": with_raw},
                         training={"input_shape": [36, 36, 36]})  # fmt: skip
    with pytest.raises(BadInput, match="lsd: no checkpoint"):
        train(both, volume, 1)
    frozen = train(lsd, volume, 6)
    with pytest.raises(BadInput, match="expected an input of at least"):
        train(both, volume, 1, "training.input_shape=[32, 32, 32]")
    weights = train(both, volume, 2)
    assert weights["unet.layer_0_left_0.weight"].shape[1] == (11 if with_raw else 10)
    network, _ = load_trained(both, load_network(both))
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in network.frozen.state_dict().items())


def test_autocontext_reads_the_checkpoint_of_the_frozen_networks_iterations(tmp_path: Path, volume: Path) -> None:
    """Never the newest one. Checkpoint and manifest record which; other weights are told with what to do."""
    lsd = write_network(tmp_path / "d/lsd", {"lsds": LSDS}, training={"iterations": 1, "checkpoint_every": 1})
    both = write_network(tmp_path / "d/ac", {"affs": AFFS}, autocontext={"network": "lsd", "with_raw": False},
                         training={"input_shape": [36, 36, 36]})  # fmt: skip
    train(lsd, volume, 2)
    train(both, volume, 1)
    frozen = checkpoints.load(lsd, load_network(lsd), 1)
    about = {"iteration": 1, "digest": checkpoints.digest(frozen.weights)}
    path = both / "checkpoints/checkpoint_1.pt"
    manifest, saved = json.loads(manifest_path(path).read_text()), checkpoints.read(path)
    assert manifest["frozen"] == saved.provenance["frozen"] == saved.trained_with[-1]["frozen"] == about
    assert manifest["settings"]["autocontext"]["iteration"] == 1
    load_trained(both, load_network(both))  # though a newer one lies there

    other = "autocontext.iteration=2"
    with pytest.raises(BadInput, match=r"other weights of 'lsd' .* iteration 2.*set autocontext.iteration to 1"):
        load_trained(both, load_network(both, [other]))
    for until in (1, 2):
        with pytest.raises(BadInput, match=r"other weights of 'lsd', the frozen network, iteration 1 -> 2; .*runs/"):
            train(both, volume, until, other)
    config = load_network(both, [other])
    volumes = load_training_data(config, [str(volume)], both)
    with pytest.raises(BadInput, match="keep is not possible with other weights of the frozen network"):
        trainer.train(both, config, volumes, 1, CPU, "keep")
    trainer.train(both, config, volumes, 2, CPU, "continue")
    assert [told["frozen"]["iteration"] for told in checkpoints.load(both, config).trained_with] == [1, 2]
    load_trained(both, config)


def test_the_manifest_of_an_autocontext_checkpoint_names_the_run_of_its_frozen_network(
    tmp_path: Path, volume: Path
) -> None:
    lsd = write_network(tmp_path / "d/lsd", {"lsds": LSDS}, training={"iterations": 1})
    both = write_network(tmp_path / "d/ac", {"affs": AFFS}, autocontext={"network": "lsd", "with_raw": False},
                         training={"input_shape": [36, 36, 36]})  # fmt: skip
    train(lsd, volume, 1)
    train(both, volume, 1)
    made_by, frozen = manifest_path(both / "checkpoints/checkpoint_1.pt"), lsd / "checkpoints/checkpoint_1.pt"
    assert json.loads(made_by.read_text())["made_from"] == {"frozen": identity(manifest_path(frozen))}
    saved = checkpoints.read(frozen)  # the same weights, as other code writes them
    saved.provenance["seed"] = 5
    checkpoints.save(lsd, saved)
    made_by.unlink()
    train(both, volume, 1)
    assert json.loads(made_by.read_text())["made_from"] == {"frozen": identity(manifest_path(frozen))}


def test_a_loss_that_is_no_number_ends_the_run_and_saves_nothing(tmp_path: Path, volume: Path) -> None:
    folder = write_network(tmp_path / "d/n", {"affs": AFFS})
    with pytest.raises(RunFailed, match="loss is nan at iteration"):
        train(folder, volume, 6, "training.optimizer.learning_rate=1e30")
    assert all("nan" not in str(checkpoints.read(path).weights) for path in folder.glob("checkpoints/*.pt"))


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path, volume: Path) -> None:
    """The loss is one of the weights before the step, and was fine."""
    folder = write_network(tmp_path / "d/n", {"affs": AFFS})
    config = load_network(folder)
    state = trainer.start_or_resume(folder, config, CPU)
    state.network.heads["affs"].bias.data[1] = torch.inf
    with pytest.raises(RunFailed, match=r"heads.affs.bias is no number after iteration 0; nothing was saved"):
        trainer.save(folder, config, state, ())
    assert not checkpoints.iterations(folder)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path, volume: Path) -> None:
    folder = write_network(tmp_path / "d/n", {"affs": AFFS})
    train(folder, volume, 1)
    path = folder / "checkpoints/checkpoint_1.pt"
    other = write_network(tmp_path / "d/other", {"affs": AFFS, "lsds": LSDS})
    (other / "checkpoints").mkdir()
    shutil.copy(path, other / "checkpoints")
    with pytest.raises(BadInput, match=r"another network: its heads.lsds is None, expected \{'target': 'lsds'"):
        checkpoints.load(other, load_network(other))
    with pytest.raises(BadInput, match=r"another network: its unet.num_fmaps is 4, expected 5 for d/n"):
        checkpoints.load(folder, load_network(folder, ["unet.num_fmaps=5"]))
    earlier = checkpoints.read(path).architecture
    del earlier["unet"]["residual"], earlier["unet"]["dropout"]
    checkpoints._check_architecture(path, earlier, load_network(folder))  # of a version that did not know these keys
    with pytest.raises(BadInput, match="no checkpoint of iteration 7; it has 1"):
        checkpoints.load(folder, load_network(folder), 7)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BadInput, match="not a whole checkpoint"):
        checkpoints.load(folder, load_network(folder))


def test_a_checkpoint_runs_no_code_when_it_is_read(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"format": 1, "weights": Evil()}, tmp_path / "checkpoint_1.pt")
    with pytest.raises(BadInput, match="not a whole checkpoint"):
        checkpoints.read(tmp_path / "checkpoint_1.pt")
    assert not (tmp_path / "ran").exists()


def test_data_of_other_voxels_is_refused(tmp_path: Path, volume: Path) -> None:
    folder = write_network(tmp_path / "d/n", {"affs": AFFS}, voxel_size=[40, 4, 4])
    with pytest.raises(BadInput, match="voxel size"):
        train(folder, volume, 1)


@pytest.mark.parametrize("scope", ["dataset", "volume", "tile"])
def test_a_measured_normalization_is_recorded_and_a_resumed_run_goes_on_with_it(
    tmp_path: Path, volume: Path, scope: str
) -> None:
    more = {"normalization": {"method": "z_score", "scope": scope}}
    straight = train(write_network(tmp_path / "a/n", {"affs": AFFS}, **more), volume, 4)
    folder = write_network(tmp_path / "b/n", {"affs": AFFS}, **more)
    train(folder, volume, 2)
    assert same(train(folder, volume, 4), straight)
    saved = checkpoints.read(folder / "checkpoints/checkpoint_4.pt")
    assert saved.normalization["settings"]["method"] == "z_score"
    assert (saved.grey_scale is not None) == (scope == "dataset")
    plain = train(write_network(tmp_path / "c/n", {"affs": AFFS}), volume, 4)
    assert not same(plain, straight)
    with pytest.raises(BadInput, match="was trained with the normalization"):
        checkpoints.load(folder, load_network(folder, ["normalization.method=unit_range"]))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("array", [RAW, LABELS])
def test_volumes_that_are_edited_while_they_are_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool, array: str
) -> None:
    """Weights of two versions have no record; volumes in memory are those of the start."""
    volume, folder = two_neurons(tmp_path / "v.zarr"), write_network(tmp_path / "n", {"affs": AFFS})
    config = load_network(folder, [f"training.stream={json.dumps(stream)}"])
    real = trainer.save

    def edited(*arguments: Any) -> None:
        real(*arguments)
        open_volume(volume / array, "r+").array[3, 4, 5] = 9

    monkeypatch.setattr(trainer, "save", edited)
    loaded = load_training_data(config, [str(volume)], tmp_path)
    if stream:
        with pytest.raises(BadInput, match=r"v\.zarr: was replaced or edited while it was read"):
            trainer.train(folder, config, loaded, 6, CPU)
    else:
        assert trainer.train(folder, config, loaded, 6, CPU) == 0
    assert checkpoints.iterations(folder) == ([3] if stream else [3, 6])


def test_a_volume_that_changes_on_its_server_gives_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_neurons(tmp_path / "served/v.zarr")
    folder, real = write_network(tmp_path / "n", {"affs": AFFS}), trainer.save
    config = load_network(folder, ["training.stream=true"])

    def edited(*arguments: Any) -> None:
        real(*arguments)
        open_volume(tmp_path / "served/v.zarr" / RAW, "r+").array[3, 4, 5] = 9

    with serve_files(tmp_path / "served") as url:
        loaded = load_training_data(config, [f"{url}/v.zarr"], tmp_path)
        assert trainer.train(folder, config, loaded, 4, CPU) == 0
        monkeypatch.setattr(trainer, "save", edited)
        with pytest.raises(BadInput, match=r"^http://.*v\.zarr.*: was replaced or edited while it was read"):
            trainer.train(write_network(tmp_path / "other", {"affs": AFFS}), config, loaded, 9, CPU)
    assert checkpoints.iterations(tmp_path / "other") == [3], "whoever predicts takes a checkpoint of any iteration"


def test_a_stopped_run_over_a_server_saves_for_going_on_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its voxels were not compared, for which the end of a job leaves no time."""
    two_neurons(tmp_path / "served/v.zarr")
    folder, real = write_network(tmp_path / "n", {"affs": AFFS}), trainer._report
    config = load_network(folder, ["training.stream=true"])

    def stopped(run: trainer.Run, state: TrainingState, *arguments: Any) -> None:
        real(run, state, *arguments)
        if state.iteration == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with serve_files(tmp_path / "served") as url:
        loaded = load_training_data(config, [f"{url}/v.zarr"], tmp_path)
        monkeypatch.setattr(trainer, "_report", stopped)
        assert trainer.train(folder, config, loaded, 3, CPU) == 128 + signal.SIGTERM
        assert checkpoints.iterations(folder) == []
        assert checkpoints.interim_path(folder).exists()
        monkeypatch.setattr(trainer, "_report", real)
        assert trainer.train(folder, config, loaded, 3, CPU) == 0
    straight = train(write_network(tmp_path / "s/n", {"affs": AFFS}), tmp_path / "served/v.zarr", 3)
    assert same(checkpoints.load(folder, config).weights, straight)
