"""A preprocessed plate, small enough to train on in seconds, and a network that reads it."""

from pathlib import Path
from typing import Any

import yaml

from emsuite.plates.preprocess import preprocess
from emsuite.plates.settings import PreprocessSettings
from emsuite.plates.synthesize import LabelFreeSettings, synthesize_frames

SET = LabelFreeSettings(positions=4, times=2, slices=3, size=48, cells=8, empty=0.1)
STEPS: dict[str, Any] = {
    "masks": {"channels": ["nuclei"], "radius": 1},
    "border_weights": {},
    "tiles": {"size": [16, 16]},
    "split": {"train": 0.5, "val": 0.25, "test": 0.25},
}
FLAT = [[[1, 3, 3]], [[1, 3, 3]]]
UNET: dict[str, Any] = {
    "num_fmaps": 4, "fmap_inc_factor": 2, "downsample_factors": [[1, 2, 2]], "padding": "same",
    "kernel_sizes_down": FLAT, "kernel_sizes_up": FLAT[:1],
}  # fmt: skip
HEADS: dict[str, Any] = {"image": {"target": "image", "target_channels": ["nuclei", 2]}}


def write_plate(folder: Path, settings: LabelFreeSettings = SET, **steps: Any) -> Path:
    """Write frames and the preprocessed plate, `folder/ready`, and return it; steps go over `STEPS`."""
    synthesize_frames("label-free", settings, folder / "frames")
    chosen = {"input": folder / "frames", "output": folder / "ready"} | STEPS | steps
    preprocess(PreprocessSettings(**chosen), 2)
    return folder / "ready"


def write_network(folder: Path, ready: Path, **sections: Any) -> Path:
    """Write a network of `ready` that saves every second iteration; `training` goes over the defaults key by key."""
    training: dict[str, Any] = {
        "iterations": 4, "input_shape": [1, 16, 16], "batch_size": 2, "sampling": {}, "checkpoint_every": 2,
        "snapshot_every": 100, "log_every": 1, "optimizer": {"learning_rate": 0.003},
    }  # fmt: skip
    content = {
        "voxel_size": [1000, 1000, 1000],
        "plate": {"path": str(ready), "input_channels": ["phase"]},
        "unet": UNET,
        "heads": HEADS,
        "training": training | sections.pop("training", {}),
        "prediction": {"input_shape": [1, 32, 32]},
    }
    folder.mkdir(parents=True)
    (folder / "network.yaml").write_text(yaml.safe_dump(content | sections))
    return folder
