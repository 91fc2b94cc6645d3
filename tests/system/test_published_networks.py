"""The published networks as they are configured, and each at work: one training step and one prediction on a crop."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree

from builders import ROOT
from emsuite.config.describe import build_untrained
from emsuite.config.network import NetworkConfig, load_network
from emsuite.data.sampler import Sampler
from emsuite.data.training_volume import TrainingVolume, load_training_volume
from emsuite.io.volume import create_volume, open_volume
from emsuite.targets.affinities import affinities
from emsuite.training import checkpoint as checkpoints
from emsuite.training import trainer
from emsuite.training.batches import make_batch
from emsuite.training.log import read_losses
from emsuite.training.registry import STEPS

TRAIN = ROOT / "02_train"
DATASETS = ("zebrafinch", "fib25", "hemi")
AUTOCONTEXT = ("aclsd", "acrlsd")
WITH_AFFINITIES = ("baseline", "long_range", "malis", "mtlsd", *AUTOCONTEXT)
PUBLISHED = ("lsd", *WITH_AFFINITIES)
ALL = [(dataset, name) for dataset in DATASETS for name in PUBLISHED]
VOXELS = {"zebrafinch": (20, 9, 9), "fib25": (8, 8, 8), "hemi": (8, 8, 8)}
NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
QUARTER_TURN = (0, np.pi / 2)


def network(dataset: str, name: str) -> NetworkConfig:
    return load_network(TRAIN / dataset / name)


def along_axes(*distances: tuple[int, int, int]) -> tuple[tuple[int, int, int], ...]:
    """Offsets against each axis in turn, z y x."""
    return tuple(offset for z, y, x in distances for offset in ((-z, 0, 0), (0, -y, 0), (0, 0, -x)))


# ---- what the facts of the published experiments say


@pytest.mark.parametrize(("dataset", "name"), ALL)
def test_heads_and_losses(dataset: str, name: str) -> None:
    heads = network(dataset, name).heads
    assert set(heads) == {"lsd": {"lsds"}, "mtlsd": {"lsds", "affs"}}.get(name, {"affs"})
    assert all(head.loss == "weighted_mse" and head.loss_weight == 1 for head in heads.values())
    if "lsds" in heads:
        weights = {"zebrafinch": "mask", "fib25": "labelled_or_unmasked", "hemi": "labelled"}[dataset]
        sigma = {"zebrafinch": 120, "fib25": 80, "hemi": 80}[dataset]
        assert (heads["lsds"].sigma, heads["lsds"].downsample, heads["lsds"].weights) == (sigma, 2, weights)
        assert heads["lsds"].channels == 10
    if "affs" in heads:
        far = ((3, 3, 3), (5, 9, 9), (15, 27, 27)) if dataset == "zebrafinch" else ((3,) * 3, (5,) * 3, (13,) * 3)
        expected = along_axes((1, 1, 1), *far) if name == "long_range" else NEAREST
        assert heads["affs"].neighborhood == expected
        assert heads["affs"].weights == "balance"


@pytest.mark.parametrize("dataset", DATASETS)
def test_malis_takes_over_after_10_000_iterations(dataset: str) -> None:
    config = network(dataset, "malis")
    head = config.heads["affs"]
    assert [(head.settings_at(i).loss, head.settings_at(i).weights) for i in (10_000, 10_001)] == [
        ("weighted_mse", "balance"),
        ("malis", "mask"),
    ]
    assert config.training.renumber_components_from == 10_000
    for name in set(PUBLISHED) - {"malis"}:
        other = network(dataset, name)
        assert other.training.renumber_components_from is None
        assert all(head.settings_at(10**9) == head for head in other.heads.values())


PADDING = {
    "zebrafinch": {"affs": (500, 369, 369), "long": (780, 603, 603), "lsds": (840, 720, 720)},
    "fib25": {"affs": (376, 536, 536), "long": (472, 632, 632), "lsds": (608, 768, 768)},
}
PADDING["hemi"] = PADDING["fib25"]


@pytest.mark.parametrize(("dataset", "name"), ALL)
def test_sampling_and_cadence(dataset: str, name: str) -> None:
    training = network(dataset, name).training
    kind = {"baseline": "affs", "malis": "affs", "long_range": "long"}.get(name, "lsds")
    assert training.sampling.label_padding == PADDING[dataset][kind]
    assert training.sampling.min_masked == 0.5
    assert training.batch_size == 1
    assert training.checkpoint_every == (1_000 if name in AUTOCONTEXT else 10_000)
    assert (training.snapshot_every, training.log_every) == (1_000, 10)


@pytest.mark.parametrize(("dataset", "name"), ALL)
def test_the_padding_is_half_the_turned_output_and_the_context_of_labels(dataset: str, name: str) -> None:
    """Where the numbers come from: with it, and half of the mask set, an output's centre lies among the labels."""
    config = network(dataset, name)
    size = np.array(config.voxel_size)
    half = (np.array(build(dataset, name).output_shape(config.training.input_shape)) * size / 2).round()
    half[1:] *= np.sqrt(2)  # turned by 45 degrees in y and x
    receptive_field = (network(dataset, "lsd") if name in AUTOCONTEXT else config).target_maker.label_context[0]
    needed = half + np.array(receptive_field) * size
    given = np.array(config.training.sampling.label_padding)
    assert (given % size == 0).all()
    assert (given >= needed).all()
    assert (given - needed < 2 * size).all()


def build(dataset: str, name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return build_untrained(TRAIN / dataset / name, network(dataset, name))


@pytest.mark.parametrize(("dataset", "name"), ALL)
def test_optimizer(dataset: str, name: str) -> None:
    training = network(dataset, name).training
    optimizer = training.optimizer
    assert (optimizer.learning_rate, optimizer.betas, optimizer.eps) == (0.5e-4, (0.95, 0.999), 1e-8)
    assert (optimizer.schedule, optimizer.warm_up, optimizer.clip_norm) == ("constant", 0, None)
    assert (training.precision, training.average) == ("float32", None)


@pytest.mark.parametrize(("dataset", "name"), ALL)
def test_augmentations_in_order(dataset: str, name: str) -> None:
    config = network(dataset, name)
    kept = {"slip": 0, "shift": 0, "max_misalign": 0}
    intensity = {"name": "intensity", "scale": (0.9, 1.1), "shift": (-0.1, 0.1)}
    if dataset == "zebrafinch":
        elastic = {"name": "elastic", "control_point_spacing": (4, 4, 10), "jitter_sigma": (0, 2, 2), "subsample": 8}
        expected = [
            elastic | {"rotation": QUARTER_TURN, "slip": 0.05, "shift": 0.05, "max_misalign": 10},
            {"name": "mirror_transpose", "mirror": (0, 1, 2), "transpose": (1, 2)},
            intensity | {"per_section": True},
        ]
    else:
        elastic = {"name": "elastic", "control_point_spacing": (40, 40, 40), "subsample": 8}
        jitter = {"jitter_sigma": (2, 2, 2), "rotation": (0, 0), "slip": 0.01, "shift": 0.01, "max_misalign": 1}
        expected = [
            elastic | {"jitter_sigma": (0, 0, 0), "rotation": QUARTER_TURN} | kept,
            {"name": "mirror_transpose", "mirror": (0, 1, 2), "transpose": (0, 1, 2)},
            elastic | jitter,
            intensity | {"per_section": False},
        ]
    assert [step.model_dump() for step in config.training.augment] == expected
    growth = config.training.grow_boundary
    if name == "lsd":
        assert growth is None
    else:
        assert (growth.steps, growth.in_plane) == (1, dataset == "zebrafinch")


@pytest.mark.parametrize("dataset", DATASETS)
def test_autocontext_reads_the_frozen_network(dataset: str) -> None:
    for name in AUTOCONTEXT:
        autocontext = network(dataset, name).autocontext
        assert (autocontext.network, autocontext.with_raw) == ("lsd", name == "acrlsd")
    assert all(network(dataset, name).autocontext is None for name in PUBLISHED if name not in AUTOCONTEXT)


SHAPES = {
    "zebrafinch": ((84, 268, 268), (96, 484, 484), (120, 484, 484), (36, 212, 212), (3, 27, 27)),
    "fib25": ((196,) * 3, (268,) * 3, (304,) * 3, (104,) * 3, (12,) * 3),
    "hemi": ((196,) * 3, (352,) * 3, (304,) * 3, (104,) * 3, (12,) * 3),
}
PREDICTED = {"zebrafinch": (60, 272, 272), "fib25": (164,) * 3, "hemi": (248,) * 3}


@pytest.mark.parametrize("dataset", DATASETS)
def test_shapes(dataset: str) -> None:
    training, prediction, autocontext, context, stride = SHAPES[dataset]
    first = build(dataset, "lsd").receptive_field
    assert (first.context, first.stride) == (context, stride)
    if dataset == "zebrafinch":  # z = 39 + 3k, y and x = 214 + 27k
        assert first.smallest == (39, 214, 214)
    for name in PUBLISHED:
        config, made = network(dataset, name), build(dataset, name)
        if name in AUTOCONTEXT:
            assert config.training.input_shape == autocontext
            assert made.trained_input_shape(autocontext) == training
        else:
            assert (config.training.input_shape, config.prediction.input_shape) == (training, prediction)
            assert made.output_shape(prediction) == PREDICTED[dataset]
        assert made.output_shape(config.training.input_shape) == tuple(
            n - c for n, c in zip(training, context, strict=True)
        )


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_context_of_labels(dataset: str) -> None:
    three_sigma = {"zebrafinch": (18, 40, 40), "fib25": (30, 30, 30), "hemi": (30, 30, 30)}[dataset]
    far = (15, 27, 27) if dataset == "zebrafinch" else (13, 13, 13)
    for name, (before, behind) in {
        "baseline": ((1, 1, 1), (0, 0, 0)),
        "long_range": (far, (0, 0, 0)),
        "lsd": (three_sigma, three_sigma),
        "mtlsd": (three_sigma, three_sigma),
    }.items():
        assert network(dataset, name).target_maker.label_context == (before, behind)


# ---- what becomes of labels


@pytest.fixture(scope="module")
def labels() -> tuple[torch.Tensor, torch.Tensor]:
    """Two neurons side by side in x, background from y = 48 on, and a mask that ends at z = 40: (1, 80, 96, 90)."""
    labels = torch.ones((1, 80, 96, 90), dtype=torch.int64)
    labels[..., 45:] = 2
    labels[:, :, 48:] = 0
    mask = torch.ones_like(labels, dtype=torch.uint8)
    mask[:, 40:] = 0
    return labels, mask


def inner(config: NetworkConfig, x: torch.Tensor) -> torch.Tensor:
    before, behind = config.target_maker.label_context
    return x[:, *(slice(b, n - e) for b, e, n in zip(before, behind, x.shape[1:], strict=True))]


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("name", ["lsd", "mtlsd"])
def test_voxels_that_count_for_lsds(dataset: str, name: str, labels: tuple[torch.Tensor, torch.Tensor]) -> None:
    config = network(dataset, name)
    numbers, mask = labels
    target = config.target_maker(numbers, mask, 1)["lsds"]
    kept = inner(config, numbers).clone()
    if name == "mtlsd":  # the boundary grows by a voxel on either side, where the mask is set
        known = inner(config, mask) != 0
        x, y = 45 - config.target_maker.label_context[0][2], 48 - config.target_maker.label_context[0][1]
        contact = torch.zeros_like(kept, dtype=torch.bool)
        contact[..., x - 1 : x + 1] = True
        contact[:, :, y - 1] = True
        kept[contact & known] = 0
    assert torch.equal(target.labels, kept)
    inside = inner(config, mask) != 0
    expected = {"zebrafinch": inside, "hemi": kept != 0, "fib25": (kept != 0) | ~inside}[dataset]
    assert 0.1 < expected.float().mean() < 0.95
    assert target.weights.shape == target.values.shape == (1, 10, *kept.shape[1:])
    assert torch.equal(target.weights, expected[:, None].float().expand_as(target.weights))
    assert (target.values[:, :, kept[0] == 0][:, [0, 1, 2, 6, 7, 8]] == 0).all()


@pytest.mark.parametrize(("dataset", "name"), [(d, n) for d in DATASETS for n in WITH_AFFINITIES])
def test_affinities_and_their_balance(dataset: str, name: str, labels: tuple[torch.Tensor, torch.Tensor]) -> None:
    config = network(dataset, name)
    numbers, mask = labels
    target = config.target_maker(numbers, mask, 1)["affs"]
    neighborhood = config.heads["affs"].neighborhood
    assert target.values.shape[1] == len(neighborhood)
    grown = numbers.clone()
    grown[:, :40, :, 44:46] = 0
    grown[:, :40, 47] = 0
    reference = affinities(grown, neighborhood).float()[0]
    known = affinities(mask, neighborhood).float()[0]
    before, behind = config.target_maker.label_context
    cut = tuple(slice(b, n - e) for b, e, n in zip(before, behind, numbers.shape[1:], strict=True))
    reference, known = reference[:, *cut], known[:, *cut]
    assert torch.equal(target.values[0], reference)
    share = (reference * known).sum() / known.sum()  # over all channels together
    assert 0.05 < share < 0.95
    expected = torch.where(reference == 1, 0.5 / share, 0.5 / (1 - share)) * known
    torch.testing.assert_close(target.weights[0], expected)


def test_malis_sees_the_pieces_that_the_grown_boundary_leaves() -> None:
    config = network("fib25", "malis")
    numbers = torch.ones((1, 12, 12, 12), dtype=torch.int64)
    numbers[:, :, :, 5] = 2  # a sheet one voxel thick: grown over, it parts its neighbour
    before = config.target_maker(numbers, torch.ones_like(numbers, dtype=torch.uint8), 10_000)["affs"]
    after = config.target_maker(numbers, torch.ones_like(numbers, dtype=torch.uint8), 10_001)["affs"]
    assert before.labels.unique().tolist() == [0, 1]
    assert after.labels.unique().tolist() == [0, 1, 2]
    assert torch.equal(before.values, after.values)
    assert before.weights.unique().numel() == 2
    assert after.weights.unique().tolist() == [1]


# ---- at work


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The networks with few feature maps, else as they are; their folders are empty but for the yaml files."""
    project = tmp_path_factory.mktemp("thin")
    shutil.copytree(ROOT / "01_data/datasets", project / "01_data/datasets")
    root = project / "02_train"
    for path in TRAIN.glob("*/**/*.yaml"):
        copy = root / path.relative_to(TRAIN)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
        text = re.sub(r"num_fmaps: \d+", "num_fmaps: 2", copy.read_text())
        copy.write_text(re.sub(r"fmap_inc_factor: \d+", "fmap_inc_factor: 2", text))
    return root


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int, int], Path]:
    """Cells with dark walls, by voxel size."""
    made = {}
    for size, shape in (((20, 9, 9), (40, 100, 100)), ((8, 8, 8), (72, 72, 72))):
        grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * size
        centres = np.random.default_rng(0).uniform(0, np.multiply(shape, size), (60, 3))
        distance, nearest = KDTree(centres).query(grid, k=2)
        arrays = {
            "volumes/raw": np.clip((distance[..., 1] - distance[..., 0]) * 3, 30, 220).astype(np.uint8),
            "volumes/labels/neuron_ids": nearest[..., 0].astype(np.uint64) + 1,
            "volumes/labels/labels_mask": np.ones(shape, np.uint8),
        }
        path = tmp_path_factory.mktemp("volume") / "cells.zarr"
        for name, array in arrays.items():
            volume = create_volume(path / name, array.shape, array.dtype, size, (0, 0, 0))
            volume.write(volume.roi, array)
        made[size] = path
    return made


def shape_option(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape))


def step(call: Callable, thin: Path, data: Path, dataset: str, name: str) -> tuple[NetworkConfig, list[dict]]:
    """Train one iteration on a small crop through the script (MALIS: one more, with its own loss)."""
    folder = thin / dataset / name
    config = load_network(folder)
    options, until = ["training.log_every=1", "training.snapshot_every=1"], 1
    if name == "small":
        options += [f"training.input_shape={[n // 2 for n in config.training.input_shape]}"]
    else:
        made = build_untrained(folder, config)
        wanted = (2, 2, 2) if name in AUTOCONTEXT else (4, 20, 20)
        options += [f"training.input_shape={list(made.receptive_field.input_for(wanted))}"]
    if name == "malis":
        options += ["heads.affs.switch_to.iteration=1", "training.renumber_components_from=1"]
        until = 2
    chosen = [word for option in options for word in ("--set", option)]
    ended = call(TRAIN / "train.py", folder, "--data", data, "--iterations", until, "--device", "cpu", *chosen)
    assert ended.code == 0, ended.err
    return load_network(folder, options), read_losses(folder / "log/losses.csv")


@pytest.mark.slow
@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("name", ["lsd", "baseline", "long_range", "malis", "mtlsd", "aclsd", "acrlsd", "small"])
def test_one_step_and_one_prediction(
    name: str, dataset: str, thin: Path, volumes: dict, call_script: Callable, tmp_path: Path
) -> None:
    folder, data = thin / dataset / name, volumes[VOXELS[dataset]]
    if name in AUTOCONTEXT and not checkpoints.iterations(thin / dataset / "lsd"):
        step(call_script, thin, data, dataset, "lsd")
    config, rows = step(call_script, thin, data, dataset, name)
    assert [row["iteration"] for row in rows] == ([1, 2] if name == "malis" else [1])
    for row in rows:
        assert all(np.isfinite(value) for value in row.values())
        assert row["loss"] == pytest.approx(sum(row[head] for head in config.heads), rel=1e-5)
        assert row["loss"] > 0
    shape = build_untrained(folder, config).output_shape(config.training.input_shape)
    snapshot = folder / "snapshots/batch_1.zarr"
    assert open_volume(snapshot / "raw").shape == config.training.input_shape
    for head, settings in config.heads.items():
        for kind in ("targets", "weights", "predictions"):
            assert open_volume(snapshot / kind / head).shape == (settings.channels, *shape)
    saved = checkpoints.load(folder, config)
    if name == "malis":  # its optimizer began anew
        assert saved.optimizer is not None
        assert int(saved.optimizer["state"][0]["step"]) == 1
    assert saved.weights["unet.layer_0_left_0.weight"].shape[1] == {"aclsd": 10, "acrlsd": 11, "small": 2}.get(name, 1)
    predicted(call_script, config, folder, data, tmp_path / "prediction.zarr")


def predicted(call: Callable, config: NetworkConfig, folder: Path, data: Path, out: Path) -> None:
    """Predict one small tile through the script and check what was written."""
    receptive_field = build_untrained(folder, config).receptive_field
    end = [n * size for n, size in zip(receptive_field.stride, config.voxel_size, strict=True)]
    roi = ",".join(f"0:{n}" for n in end)
    tile = receptive_field.input_for(receptive_field.stride)
    ended = call(TRAIN.parent / "03_predict/predict.py", folder, "--raw", data / "volumes/raw", "--out", out,
                 "--roi", roi, "--input-shape", shape_option(tile), "--device", "cpu")  # fmt: skip
    assert ended.code == 0, ended.err
    heads = config.prediction.heads or tuple(config.heads)
    assert {path.name for path in out.iterdir() if path.is_dir()} == set(heads)
    for name in heads:
        volume = open_volume(out / name)
        assert volume.dtype == np.uint8
        assert volume.shape == (config.heads[name].channels, *receptive_field.stride)
        assert tuple(volume.voxel_size) == config.voxel_size
        assert volume.read().any()


@pytest.mark.slow
def test_a_step_at_full_width(volumes: dict) -> None:
    """mtlsd for the zebra finch, 96 million parameters, on its smallest crop."""
    folder = TRAIN / "zebrafinch/mtlsd"
    config = load_network(folder, ["training.input_shape=[39, 214, 214]"])
    data: TrainingVolume = load_training_volume(volumes[20, 9, 9])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "iterations", lambda folder: [])  # whatever this checkout has trained
        state = trainer.start_or_resume(folder, config, torch.device("cpu"))
    before = state.network.unet.layer_3_left_1.weight[0].clone()
    targets, training = config.target_maker, config.training
    sampler = Sampler([data], (39, 214, 214), (3, 2, 2), targets.label_context, training.augment,
                              training.sampling)  # fmt: skip
    batch = make_batch(targets, sampler.batch(1, 1), 1, torch.device("cpu"))
    made = STEPS["supervised"].run(state, config, iter([batch]), 1)
    assert sum(p.numel() for p in state.network.parameters()) == 95_856_355
    assert {name: tuple(output.logits.shape) for name, output in made.outputs.items()} == {
        "lsds": (1, 10, 3, 2, 2),
        "affs": (1, 3, 3, 2, 2),
    }
    assert torch.isfinite(made.losses["loss"])
    assert made.losses["loss"] == made.losses["lsds"] + made.losses["affs"]
    moved = (state.network.unet.layer_3_left_1.weight[0] - before).abs().max()
    assert 0 < moved <= 0.51e-4  # Adam's first step is the learning rate, at most
