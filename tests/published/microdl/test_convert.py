"""microDL's examples in this suite's keys, odd configurations, and what is refused.

The values of the examples are those of microDL's own: `config.yml` (mehta-lab/microDL 23f1f1e, 2-D) with keys of
preprocessing of its time, and `Training-config_2.5DUnet_regression_phase2membrane.yml` (008d1be) with its own.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from emsuite.common.errors import BadInput
from emsuite.common.settings import load, merge
from emsuite.config.network import NetworkConfig, load_network
from emsuite.models.unet_settings import trace
from emsuite.plates.settings import PreprocessSettings
from emsuite.published.microdl.convert import LEFT_OUT, NETWORK, PREPROCESS, translate, write_translation

FLAT_PREPROCESS: dict[str, Any] = {
    "input_dir": "/data/raw", "output_dir": "/data/out", "verbose": 10, "uniform_structure": True, "int2str_len": 3,
    "flat_field": {"estimate": True, "correct": True, "block_size": 16},
    "resize": {"scale_factor": 0.5, "resize_3d": False},
    "masks": {"channels": [5], "str_elem_radius": 3},
    "tile": {"tile_size": [256, 256], "step_size": [128, 128], "depths": [1, 1], "mask_depth": 1, "min_fraction": 0.25,
             "hist_clip_limits": [1, 99], "normalize_channels": -1, "image_format": "zyx"},
}  # fmt: skip
FLAT_TRAIN: dict[str, Any] = {
    "dataset": {"data_dir": "/data/tiles", "random_seed": 42, "input_channels": [3], "target_channels": [0],
                "split_by_column": "pos_idx", "split_ratio": {"train": 0.6, "val": 0.2, "test": 0.2}, "height": 256,
                "width": 256},
    "verbose": 10,
    "trainer": {"model_dir": "/models", "batch_size": 32, "max_epochs": 6, "metrics": "pearson_corr",
                "loss": "mae_loss",
                "callbacks": {"EarlyStopping": {"mode": "min", "monitor": "val_loss", "patience": 5, "verbose": True},
                              "ModelCheckpoint": {"mode": "min", "monitor": "val_loss", "save_best_only": True},
                              "TensorBoard": {"histogram_freq": 0}},
                "optimizer": {"lr": 0.001, "name": "Adam"}},
    "network": {"class": "UNet2D", "num_input_channels": 1, "num_target_channels": 1, "data_format": "channels_first",
                "height": 256, "width": 256, "depth": 1, "batch_norm": True, "pooling_type": "average",
                "filter_size": 3, "activation": {"type": "relu"}, "dropout": 0, "dropout_dense": 0.4,
                "num_filters_per_block": [8, 16, 32, 64, 128], "num_convs_per_block": 2,
                "block_sequence": "conv-activation-bn", "skip_merge_type": "concat", "upsampling": "bilinear",
                "residual": True, "final_activation": "linear"},
}  # fmt: skip
STACK_PREPROCESS: dict[str, Any] = {
    "input_dir": "/data/raw", "output_dir": "/data/stacks", "channel_ids": [0, 1, 2], "slice_ids": [8, 9, 10],
    "pos_ids": [0, 1, 2, 3], "time_ids": [0, 3, 5], "num_workers": 12, "uniform_struct": True,
    "normalize": {"normalize_im": "dataset", "min_fraction": 0.1, "normalize_channels": [True, True, True]},
    "masks": {"channels": [1], "str_elem_radius": 3, "mask_type": "unimodal", "mask_ext": ".png"},
    "tile": {"min_fraction": 0.1, "tile_size": [256, 256], "step_size": [128, 128], "depths": [1, 1, 5],
             "image_format": "zyx"},
    "metadata": {"order": "cztp", "name_parser": "parse_sms_name"},
}  # fmt: skip
STACK_TRAIN = merge(FLAT_TRAIN, {
    "dataset": {"model_task": "regression", "input_channels": [2], "mask_channels": [3], "target_channels": [0],
                "split_ratio": {"test": 0.1, "train": 0.8, "val": 0.1}, "squeeze": True, "random_seed": 0,
                "augmentations": {"zoom_range": [0.6, 1.6], "rotate_range": 180, "intensity_jitter": [0, 0.5],
                                  "noise_std": 0.5, "blur_range": [0, 10], "shear_range": 10}},
    "network": {"class": "UNetStackTo2D", "depth": 5, "dropout": 0.2, "temperature": 1,
                "num_filters_per_block": [16, 32, 64, 128, 256]},
    "trainer": {"batch_size": 64, "max_epochs": 200, "masked_loss": False, "patience": 10, "num_workers": 32,
                "optimizer": {"lr": 0.0001, "name": "adam"},
                "callbacks": {"EarlyStopping": {"patience": 10},
                              "LearningRateScheduler": {"lr_find": False, "base_lr": 0.00005, "max_lr": 0.006,
                                                        "step_size": 2, "gamma": 0.5, "scale_mode": "cycle"}}},
})  # fmt: skip


def written(folder: Path, **configurations: dict[str, Any]) -> list[Path]:
    paths = []
    for name, content in configurations.items():
        paths.append(folder / f"{name}.yml")
        paths[-1].write_text(yaml.safe_dump(content))
    return paths


def translated(folder: Path, *configurations: dict[str, Any], steps: int = 100) -> tuple[dict, dict, dict[str, str]]:
    """The content of preprocess.yaml and network.yaml, and the reason of each note."""
    paths = written(folder, **{f"config_{number}": content for number, content in enumerate(configurations)})
    result = translate(paths, steps)
    notes = {note.key: note.why for note in result.notes.notes}
    return result.files.get(PREPROCESS, {}), result.files.get(NETWORK, {}), notes


def test_the_flat_example(tmp_path: Path) -> None:
    preprocess, network, notes = translated(tmp_path, FLAT_PREPROCESS, FLAT_TRAIN, steps=250)
    assert preprocess == {
        "input": "/data/raw",
        "output": "/data/out",
        "flat_field": {"block_size": 16},
        "resize": {"scale": 0.5},
        "masks": {"channels": [5], "radius": 3},
        "clip": {"percentiles": [1, 99]},
        "tiles": {"size": [256, 256], "step": [128, 128], "min_fraction": 0.25},
        "split": {"by": "position", "train": 0.6, "val": 0.2, "test": 0.2, "seed": 42},
    }
    config = NetworkConfig.model_validate({"dataset": "a", "network": "b"} | network)
    unet = config.unet
    assert [unet.fmaps(level) for level in range(5)] == [8, 16, 32, 64, 128]
    assert unet.kernels_down(0) == ((1, 3, 3),) * 2
    assert (unet.order, unet.downsample, unet.skip) == ("conv_activation_norm", "average_pool", "concatenate")
    assert (unet.upsample, unet.norm, unet.residual, unet.dropout) == ("bilinear", "batch", "padded", 0)
    assert [trace(unet, axis, n)[-1] for axis, n in enumerate((1, 256, 256))] == [1, 256, 256]
    assert network["plate"] == {"path": "/data/out", "input_channels": [3]}
    assert network["heads"] == {"image": {"target": "image", "target_channels": [0], "loss": "mae"}}
    training = config.training
    assert (training.iterations, training.batch_size, training.input_shape) == (1500, 32, (1, 256, 256))
    assert (training.optimizer.learning_rate, training.optimizer.schedule) == (0.001, "constant")
    assert training.validation is not None
    assert (training.validation.every, training.validation.patience) == (250, 5)
    assert set(notes) == {
        "verbose", "uniform_structure", "int2str_len", "tile.depths", "tile.mask_depth", "tile.image_format",
        "tile.hist_clip_limits", "tile.normalize_channels", "dataset.data_dir", "network.residual", "network.height",
        "network.width", "network.data_format", "network.num_input_channels", "network.num_target_channels",
        "network.dropout_dense", "trainer.max_epochs", "trainer.model_dir", "trainer.metrics",
        "trainer.callbacks.ModelCheckpoint", "trainer.callbacks.TensorBoard",
    }  # fmt: skip


def test_the_example_of_a_stack_to_its_middle_slice(tmp_path: Path) -> None:
    preprocess, network, notes = translated(tmp_path, STACK_PREPROCESS, STACK_TRAIN)
    assert preprocess == {
        "input": "/data/raw",
        "output": "/data/stacks",
        "positions": ["0", "1", "2", "3"],
        "channels": [0, 1, 2],
        "times": [0, 3, 5],
        "slices": [8, 9, 10],
        "masks": {"channels": [1], "method": "unimodal", "radius": 3},
        "normalize": {"method": "z_score", "scope": "dataset"},
        "tiles": {"size": [256, 256], "step": [128, 128], "min_fraction": 0.1},
        "split": {"by": "position", "train": 0.8, "val": 0.1, "test": 0.1, "seed": 0},
    }
    config = NetworkConfig.model_validate({"dataset": "a", "network": "b"} | network)
    assert config.training.input_shape == (5, 256, 256)
    assert [trace(config.unet, axis, n)[-1] for axis, n in enumerate((5, 256, 256))] == [1, 256, 256]
    assert config.unet.padding == "same_in_plane"
    optimizer = config.training.optimizer
    assert (optimizer.learning_rate, optimizer.schedule) == (0.006, "cyclic")
    assert optimizer.cycle is not None
    assert optimizer.cycle.model_dump() == {"lowest_rate": 5e-5, "half": 200, "gamma": 0.5, "gamma_by": "cycle"}
    assert [step.name for step in config.training.augment] == ["mirror_transpose", "blur"]
    assert notes["dataset.augmentations.shear_range"].startswith("not carried over")
    assert notes["network.class"] == "2 convolutions of 3 slices lead from 5 slices to one, not one of 5"


@pytest.mark.parametrize(
    ("network", "shape", "out"),
    [
        ({"class": "UNetStackTo2D", "depth": 3}, (3, 256, 256), (1, 256, 256)),
        ({"class": "UNetStackTo2D", "depth": 7, "num_convs_per_block": 1}, (7, 256, 256), (1, 256, 256)),
        ({"class": "UNetStackToStack", "depth": 8}, (8, 256, 256), (8, 256, 256)),
        ({"class": "UNet3D", "depth": 32, "upsampling": "repeat"}, (32, 256, 256), (32, 256, 256)),
        ({"class": "Image2DToVectorNet", "num_initial_filters": 8}, (1, 256, 256), (1, 1, 1)),
    ],
)
def test_every_class_of_network(
    tmp_path: Path, network: dict[str, Any], shape: tuple[int, ...], out: tuple[int, ...]
) -> None:
    given = merge(FLAT_TRAIN, {"network": network})
    _, made, _ = translated(tmp_path, given)
    config = NetworkConfig.model_validate({"dataset": "a", "network": "b"} | made)
    assert config.training.input_shape == shape
    assert tuple((trace(config.unet, axis, n) or [0])[-1] for axis, n in enumerate(shape)) == out


def test_segmentation_masks_and_words_without_a_counterpart(tmp_path: Path) -> None:
    given = merge(FLAT_TRAIN, {
        "dataset": {"model_task": "segmentation", "mask_channels": [7], "split_by_column": "sample_num",
                    "augmentations": True},
        "trainer": {"loss": "binary_crossentropy_loss", "masked_loss": True, "optimizer": {"name": "sgd"},
                    "callbacks": {"LearningRateScheduler": {"lr_find": True, "base_lr": 0.0001, "max_lr": 0.01}}},
        "network": {"final_activation": "sigmoid", "activation": "prelu", "num_filters_per_block": [16, 32, 64, 64],
                    "mystery": 4},
    })  # fmt: skip
    _, network, notes = translated(tmp_path, given)
    head = {"target": "image", "target_channels": ["foreground"], "normalized": False, "loss": "bce",
            "weights": "foreground"}  # fmt: skip
    assert network["heads"]["image"] == head
    assert "final_activation" not in network["unet"]
    assert (network["unet"]["activation"], network["unet"]["max_fmaps"]) == ("relu", 64)
    assert network["training"]["augment"][0]["diagonals"] is False
    assert notes["network.mystery"] == "no key of microDL that is known here"
    assert notes["network.activation"].startswith("no such activation here (there are relu, leaky_relu, elu, gelu)")
    assert notes["trainer.optimizer.name"] == "Adam is the one optimizer"
    assert notes["trainer.callbacks.LearningRateScheduler.max_lr"].startswith("the search for a rate")
    assert notes["dataset.split_ratio"].startswith("belongs into preprocessing, `split: {by: position, train: 0.6")
    NetworkConfig.model_validate({"dataset": "a", "network": "b"} | network)


def test_preprocessing_of_other_kinds(tmp_path: Path) -> None:
    given = deepcopy(FLAT_PREPROCESS) | {
        "channel_ids": [4, 2, 0], "make_weight_map": True, "correct_flat_field": True,
        "flat_field": {"ff_dir": "/data/fields", "correct": True}, "masks": {"mask_dir": "/data/masks"},
        "resize": {"scale_factor": 2, "resize_3d": True, "num_slices_subvolume": 5},
        "tile": {"tile_size": [64, 96, 8], "step_size": [32, 32, 4], "tile_3d": True, "normalize_channels": [False]},
    }  # fmt: skip
    train = merge(FLAT_TRAIN, {"dataset": {"input_channels": [4, 2], "target_channels": [0]}})
    preprocess, network, notes = translated(tmp_path, given, train)
    assert preprocess["flat_field"] == {"folder": "/data/fields"}
    assert preprocess["resize"] == {"scale": [2, 2, 2]}
    assert preprocess["masks"] == {"folder": "/data/masks"}
    assert preprocess["border_weights"] == {}
    assert preprocess["tiles"] == {"size": [8, 64, 96], "step": [4, 32, 32]}
    assert preprocess["normalize"] == {"method": "none"}
    assert network["plate"]["input_channels"] == [0, 1], "channels are numbered among those that are chosen"
    assert network["heads"]["image"]["target_channels"] == [2]
    assert "resize.num_slices_subvolume" in notes


@pytest.mark.parametrize(
    ("given", "normalize"),
    [("slice", {"method": "z_score", "scope": "volume"}), (False, {"method": "none"}), (True, None),
     ("none", {"method": "none"}), ("tile", {"method": "z_score", "scope": "dataset"})],
)  # fmt: skip
def test_scopes_of_a_later_version(tmp_path: Path, given: str | bool, normalize: dict[str, str] | None) -> None:
    preprocess, _, _ = translated(tmp_path, STACK_PREPROCESS | {"normalize": {"normalize_im": given}})
    assert preprocess.get("normalize") == normalize


def test_files_are_read_again_and_never_replaced(tmp_path: Path) -> None:
    paths = written(tmp_path, pre=FLAT_PREPROCESS, train=FLAT_TRAIN)
    out = tmp_path / "mine/imported"
    write_translation(translate(paths), out, paths)
    load(PreprocessSettings, out / PREPROCESS)
    assert load_network(out).training.batch_size == 32
    text = (out / NETWORK).read_text()
    assert "kernel_sizes_up: [[[1, 3, 3], [1, 3, 3]]" in text
    assert "train.yml, SHA-256" in text
    assert "trainer.metrics: pearson_corr: an option of the evaluation" in (out / LEFT_OUT).read_text()
    write_translation(translate(paths), out, paths)
    (out / NETWORK).write_text(text.replace("batch_size: 32", "batch_size: 8"))
    with pytest.raises(BadInput, match=r"network.yaml: is there already and differs; remove it or choose another"):
        write_translation(translate(paths), out, paths)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"model_dir": "m", "image_dir": "i"}, "config_0.yml: a configuration of inference, whose keys are options"),
        ({"a": 1}, "config_0.yml: has neither input_dir nor network, expected microDL's preprocessing or training"),
        ({"network": {}}, "config_0.yml: has no `dataset`, expected dataset, trainer and network"),
        (merge(FLAT_TRAIN, {"network": {"class": "RegressionNet2D"}}),
         "config_0.yml: network.class holds RegressionNet2D, expected one of UNet2D"),
        (merge(FLAT_TRAIN, {"network": {"num_filters_per_block": [8, "x"]}}), "expected whole numbers above 0"),
        (merge(FLAT_TRAIN, {"network": {"filter_size": 4}}), "kernel_sizes_down"),
        (merge(FLAT_TRAIN, {"trainer": {"batch_size": "many"}}),
         "config_0.yml: trainer.batch_size holds 'many', expected a whole number"),
        (merge(FLAT_TRAIN, {"dataset": {"input_channels": None}}), "dataset.input_channels is missing"),
        (merge(FLAT_TRAIN, {"trainer": 7}), "config_0.yml: trainer holds 7, expected keys with values"),
        (merge(FLAT_PREPROCESS, {"masks": {"mask_dir": "m"}}), "masks.channels and masks.mask_dir are both given"),
        (merge(FLAT_PREPROCESS, {"tile": {"hist_clip_limits": [99, 1]}}), "clip.percentiles"),
        (merge(FLAT_PREPROCESS, {"input_dir": [1]}), "input_dir holds .1., expected a text"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, content: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput, match=line):
        translated(tmp_path, content)


def test_one_configuration_of_each_kind(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a second configuration of training, beside"):
        translated(tmp_path, FLAT_TRAIN, STACK_TRAIN)
