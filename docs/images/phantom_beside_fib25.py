#!/usr/bin/env python
"""Draw phantom_beside_fib25.png: sections of the phantom beside sections of FIB-25 at the same scale.

FIB-25 is read from the test data (../shared/data from the project's root, or EMSUITE_TEST_DATA).
"""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from emsuite.io.volume import open_volume
from emsuite.phantom.settings import PhantomSettings
from emsuite.phantom.synthesize import synthesize

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("EMSUITE_TEST_DATA", HERE.parents[2] / "shared" / "data"))
FIB25 = DATA / "fib25/training/trvol-250-2.zarr/volumes"
SETTINGS = PhantomSettings(shape=(160, 250, 250), seed=2)
CREDIT = (
    "FIB-25 (right): FlyEM, Janelia Research Campus, neuroproof_examples, training_sample2 (Takemura et al., PNAS "
    "2015);\nCreative Commons Attribution 3.0 US, creativecommons.org/licenses/by/3.0/us; cropped, labels coloured. "
    "Left: made by 01_data/synthesize.py."
)


def sections(raw: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """An x-y section, an x-z section, and the x-y section's labels in colour (RGB)."""
    colours = np.random.default_rng(1).integers(70, 255, (int(labels.max()) + 1, 3)).astype(np.uint8)
    middle, row = raw.shape[0] // 2, raw.shape[1] // 2
    return [raw[middle], raw[:, row], colours[labels[middle]]]


def main() -> None:
    """Write the picture beside this script."""
    phantom = synthesize(SETTINGS)
    real = [open_volume(FIB25 / name).read() for name in ("raw", "labels/neuron_ids")]
    columns = {"phantom": sections(phantom.raw, phantom.labels), "FIB-25": sections(*real)}
    figure, axes = plt.subplots(3, 2, figsize=(8.2, 11.6), height_ratios=(250, 160, 250), layout="constrained")
    for column, (title, images) in zip(axes.T, columns.items(), strict=True):
        column[0].set_title(title)
        for axis, image in zip(column, images, strict=True):
            axis.imshow(image, cmap="gray", vmin=30, vmax=220, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
    for axis, name in zip(axes[:, 0], ("x-y", "x-z", "x-y, neurons"), strict=True):
        axis.set_ylabel(name)
    axes[0, 0].plot([10, 10 + 500 / 8], [240, 240], color="white", linewidth=3)
    axes[0, 0].text(12, 230, "500 nm", color="white", fontsize=9, bbox={"color": "black", "pad": 1.5})
    figure.supxlabel(CREDIT, fontsize=7.5)
    figure.savefig(HERE / "phantom_beside_fib25.png", dpi=84)


if __name__ == "__main__":
    main()
