"""Time training iterations of CAREamics' supervised U-Net, data included.

python train.py INPUT.npy TARGET.npy PATCH BATCH ITERATIONS PRECISION NETWORK; images (S, Y, X) float32.
NETWORK is `own`, the U-Net that it has by default, or `same`, that of the benchmark.
"""

import json
import resource
import statistics
import sys
import tempfile
import time
import warnings

import numpy as np
from careamics import CAREamist
from careamics.config import create_care_config
from careamics.models.unet.layers import Conv_Block
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn import functional

SKIPPED = 10
"""Iterations at the start that are not timed."""


class Clock(Callback):
    """Notes when each iteration ends."""

    def __init__(self):
        self.ends, self.losses = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.ends.append(time.perf_counter())
        self.losses.append(float(outputs["loss"]))


class Up(nn.Upsample):
    """Bilinear, a convolution of one pixel that halves the channels, and an activation."""

    def __init__(self, channels):
        super().__init__(scale_factor=2, mode="bilinear")
        self.conv = nn.Conv2d(channels, channels // 2, 1)

    def forward(self, features):
        return functional.relu(self.conv(super().forward(features)))


def make_same(unet):
    """Make CAREamics's U-Net that of the benchmark: levels of 32, 64 and 128 channels, upsampled by `Up`."""
    unet.decoder.bottleneck = Conv_Block(2, 64, 128, use_batch_norm=True)
    unet.decoder.decoder_blocks = nn.ModuleList(
        [Up(128), Conv_Block(2, 128, 64, use_batch_norm=True), Up(64), Conv_Block(2, 64, 32, use_batch_norm=True)]
    )
    for block in unet.modules():
        if isinstance(block, Conv_Block):  # a bias before a norm does nothing
            block.conv1.bias = block.conv2.bias = None


def main():
    given, target, patch, batch, iterations = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    warnings.simplefilter("ignore")
    config = create_care_config(
        experiment_name="peer", data_type="array", axes="SYX", patch_size=[patch, patch], batch_size=batch,
        num_epochs=1, num_steps=iterations, augmentations=["x_flip", "y_flip", "rotate_90"],
    )  # fmt: skip
    config.training_config.trainer_params["precision"] = sys.argv[6]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        careamist = CAREamist(config, work_dir=folder, callbacks=[clock], enable_progress_bar=False)
        if sys.argv[7] == "same":
            make_same(careamist.model.model)
        images = [np.load(path) for path in (given, target)]
        careamist.train(train_data=images[0], train_data_target=images[1])
    took = [after - before for before, after in zip(clock.ends[SKIPPED:], clock.ends[SKIPPED + 1 :], strict=False)]
    parameters = sum(p.numel() for p in careamist.model.parameters())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"wall": statistics.mean(took), "cpu": 0.0, "memory": memory, "parameters": parameters,
                      "losses": [clock.losses[0], clock.losses[-1]]}))  # fmt: skip


if __name__ == "__main__":
    main()
