"""The published networks as they are configured, and each at work: one training step and one prediction on a crop."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial import KDTree

from builders import ROOT
from emsuite.config.dataset import load_dataset
from emsuite.config.describe import build_untrained
from emsuite.config.network import NetworkConfig, load_network
from emsuite.data.sampler import Sampler
from emsuite.data.training_volume import TrainingVolume, load_training_volume
from emsuite.io.volume import create_volume, open_volume
from emsuite.targets.lsds import local_shape_descriptors
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
        assert heads["affs"].masked == (dataset != "fib25" or name == "malis")


@pytest.mark.parametrize(("dataset", "name"), ALL)
def test_training_data_is_all_that_was_published(dataset: str, name: str) -> None:
    data = load_dataset(dataset, ROOT / "01_data/datasets")
    assert network(dataset, name).training.split == "published"
    split = data.named_split("published")
    assert {(part.volume, part.roi) for part in split.train} == {(volume, None) for volume in data.volumes}
    assert not split.test
    assert len(split.train) == {"zebrafinch": 33, "fib25": 4, "hemi": 8}[dataset]
    chances = {part.volume: part.probability for part in split.train}
    small_to_large = {"trvol-250-1": 0.05, "trvol-250-2": 0.05, "tstvol-520-1": 0.45, "tstvol-520-2": 0.45}
    assert chances == (small_to_large if dataset == "fib25" else dict.fromkeys(data.volumes))


@pytest.mark.parametrize("dataset", DATASETS)
def test_small_networks_hold_some_voxels_out(dataset: str) -> None:
    """The figures of the README are theirs: what they train on and from is as it was."""
    config, data = network(dataset, "small"), load_dataset(dataset, ROOT / "01_data/datasets")
    assert (config.training.split, config.training.initial_weights) == (None, "he")
    split = data.named_split(None)
    assert split.test
    assert split.probabilities is None
    if dataset == "fib25":
        assert [(part.volume, part.roi) for part in split.train] == [("trvol-250-2", "0:1040,:,:")]
        assert [(part.volume, part.roi) for part in split.test] == [("trvol-250-2", "1040:1280,:,:")]


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
    assert training.checkpoint_every == (1_000 if dataset == "zebrafinch" and name in AUTOCONTEXT else 10_000)
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
    assert (training.precision, training.average, training.initial_weights) == ("float32", None, "glorot")


@pytest.mark.parametrize(("dataset", "name"), ALL)
def test_augmentations_in_order(dataset: str, name: str) -> None:
    config = network(dataset, name)
    kept = {"slip": 0, "shift": 0, "max_misalign": 0}
    intensity = {"name": "intensity", "scale": (0.9, 1.1), "shift": (-0.1, 0.1)}
    if dataset == "zebrafinch":
        elastic = {"name": "elastic", "control_point_spacing": (4, 4, 10), "jitter_sigma": (0, 2, 2), "subsample": 8}
        expected = [
            elastic | {"rotation": QUARTER_TURN, "slip": 0.05, "shift": 0.05, "max_misalign": 10},
            {"name": "mirror_transpose", "mirror": (0, 1, 2), "transpose": (1, 2), "diagonals": True},
            intensity | {"per_section": True},
        ]
    else:
        elastic = {"name": "elastic", "control_point_spacing": (40, 40, 40), "subsample": 8}
        jitter = {"jitter_sigma": (2, 2, 2), "slip": 0.01, "shift": 0.01, "max_misalign": 1}
        transpose = (1, 2) if (dataset, name) == ("hemi", "acrlsd") else (0, 1, 2)
        expected = [
            elastic | {"jitter_sigma": (0, 0, 0), "rotation": QUARTER_TURN} | kept,
            {"name": "mirror_transpose", "mirror": (0, 1, 2), "transpose": transpose, "diagonals": True},
            elastic | jitter | {"rotation": QUARTER_TURN},
            intensity | {"per_section": False},
        ]
    assert [step.model_dump() for step in config.training.augment] == expected
    growth = config.training.grow_boundary
    if (dataset, name) == ("zebrafinch", "lsd"):
        assert growth is None
    else:
        assert (growth.steps, growth.in_plane) == (1, dataset == "zebrafinch")


@pytest.mark.parametrize("dataset", DATASETS)
def test_autocontext_reads_the_frozen_network(dataset: str) -> None:
    for name in AUTOCONTEXT:
        autocontext = network(dataset, name).autocontext
        assert (autocontext.network, autocontext.with_raw) == ("lsd", name == "acrlsd")
        assert autocontext.iteration == {"zebrafinch": 400_000, "fib25": 300_000, "hemi": 200_000}[dataset]
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
    """Cells, background from y = 60 on, and nobody's voxels from z = 45 on: (1, 80, 96, 90)."""
    shape = (80, 96, 90)
    centres = np.random.default_rng(0).uniform(0, shape, (150, 3))
    cells = KDTree(centres).query(np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1))[1] + 1
    labels = torch.from_numpy(cells)[None]
    labels[:, :, 60:] = 0
    mask = torch.ones_like(labels, dtype=torch.uint8)
    mask[:, 45:] = 0
    labels[:, 50:] = 0  # padding behind the labels; before it, labels that are masked out
    return labels, mask


def as_the_original(dataset: str, name: str, numbers: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Targets and weights by the order of the originals' pipelines, written anew over regions of one sample, (Z, Y, X).

    Every node asks for the regions that it reads. AddLocalShapeDescriptor asks for labels alone, AddAffinities for
    labels and, if it masks, for the mask. GrowBoundary grows where both were asked for.
    """
    config = network(dataset, name)
    before, behind = (np.array(context) for context in config.target_maker.label_context)
    output = np.stack([before, np.array(numbers.shape) - behind])
    read_mask = output.copy()
    masks_affinities = "affs" in config.heads and (dataset != "fib25" or name == "malis")
    if masks_affinities:
        read_mask[0] += np.array(config.heads["affs"].neighborhood).min(0)
    labels = numbers.copy()
    if (dataset, name) != ("zebrafinch", "lsd"):
        grown = tuple(slice(*ends) for ends in read_mask.T)
        labels[grown] = eroded(labels[grown], mask[grown] != 0, in_plane=dataset == "zebrafinch")
    cut = tuple(slice(*ends) for ends in output.T)
    made = {"labels": labels[cut]}
    if "lsds" in config.heads:
        inside, labelled = mask[cut] != 0, labels[cut] != 0
        made["lsds"] = local_shape_descriptors(labels, config.heads["lsds"].sigma, config.voxel_size, 2, cut)
        counts = {"zebrafinch": inside, "hemi": labelled, "fib25": labelled | ~inside}[dataset]
        made["weights of lsds"] = np.broadcast_to(counts, made["lsds"].shape)
    if "affs" in config.heads:
        related, known = [], []
        for offset in config.heads["affs"].neighborhood:
            partner = tuple(slice(*ends) for ends in (output + offset).T)
            related.append((labels[cut] == labels[partner]) & (labels[cut] != 0))
            known.append((mask[cut] != 0) & (mask[partner] != 0) | (not masks_affinities))
        ones, counted = np.stack(related), np.stack(known)
        share = np.clip((ones & counted).sum() / counted.sum(), 0.05, 0.95)
        zero_share = np.clip((~ones & counted).sum() / counted.sum(), 0.05, 0.95)
        made |= {"affs": ones, "weights of affs": np.where(ones, 0.5 / share, 0.5 / zero_share) * counted}
    return made


def eroded(labels: np.ndarray, inside: np.ndarray, in_plane: bool) -> np.ndarray:
    """Erode each label by a voxel, with masked-out voxels as part of it; what no label keeps becomes 0."""
    cross = ndimage.generate_binary_structure(3, 1)
    if in_plane:
        cross[[0, 2]] = False
    kept = np.zeros(labels.shape, bool)
    for label in np.unique(labels[labels != 0]):
        kept |= ndimage.binary_erosion((labels == label) | ~inside, cross, border_value=1)
    return np.where(kept, labels, 0)


@pytest.mark.parametrize(("dataset", "name"), ALL)
def test_targets_are_those_of_the_originals_order(
    dataset: str, name: str, labels: tuple[torch.Tensor, torch.Tensor]
) -> None:
    config = network(dataset, name)
    made = config.target_maker(*labels, 1)
    expected = as_the_original(dataset, name, *(array[0].numpy() for array in labels))
    for head, target in made.items():
        assert np.array_equal(target.labels[0], expected["labels"])
        np.testing.assert_allclose(target.values[0], expected[head], atol=1e-5)
        np.testing.assert_allclose(target.weights[0], expected[f"weights of {head}"], rtol=1e-5)
        share = float((target.weights != 0).float().mean())
        assert (share == 1) == (head == "affs" and dataset == "fib25" and name != "malis")
    assert set(expected) >= {"labels", *made}


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_boundary_stays_out_of_the_context_of_lsds(dataset: str, labels: tuple[torch.Tensor, torch.Tensor]) -> None:
    """If it grew there, descriptors would differ: the originals' do not."""
    config = network(dataset, "mtlsd")
    boundary = config.training.grow_boundary
    everywhere = config.target_maker.__class__(
        config.heads, config.voxel_size, boundary.model_copy(update={"region": "context"})
    )
    of_output, of_context = (maker(*labels, 1)["lsds"].values for maker in (config.target_maker, everywhere))
    assert (of_output - of_context).abs().max() > 0.01


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
        text = re.sub(r"\n  iteration: \d+", "\n  iteration: 1", text)  # of the frozen network
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
