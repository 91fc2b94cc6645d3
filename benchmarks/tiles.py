"""The tiles of a prediction without reading and writing: raw is on the device, predictions come to the host."""

import math
from pathlib import Path

from measure import Cost, measure

AT_ONCE = 4
"""Tiles that a GPU is given one after the other before it is waited for."""


def predictor_of(folder: Path, config, raw: Path, tile, device: str):
    """Return what predicts tiles of a volume on the device, as predict.py makes it for a region of one such tile."""
    import torch

    from emsuite.common.geometry import Coordinate, Roi
    from emsuite.data.raw import open_raw
    from emsuite.prediction.predictor import load_frozen_config, make_predictor
    from emsuite.prediction.tiling import BY_STRIDE
    from emsuite.training.trained_network import load_trained

    network, checkpoint = load_trained(folder, config)
    volume, where = open_raw(raw, config.voxel_size, config.normalization, checkpoint.grey_range), torch.device(device)
    field = network.receptive_field
    kept = [min(n, m) for n, m in zip(field.step(field.largest_within(tile)), volume.shape[-3:], strict=True)]
    region = Roi(volume.offset, Coordinate(kept) * volume.voxel_size)
    predictor = make_predictor(network, config, where, tile, volume, region, BY_STRIDE,
                               load_frozen_config(folder, config), checkpoint.grey_scale)  # fmt: skip
    return predictor.on(where)


def grey_tile(predictor):
    """Return random grey values on the device of a predictor, of the shape of its tiles."""
    import torch

    return torch.randint(256, tuple(predictor.input_shape), dtype=torch.uint8, device=predictor.device)


def time_tile(folder: Path, config, raw: Path, tile, device: str) -> tuple[tuple[int, ...], int, Cost]:
    """Return the shape of a tile no larger than `tile`, the voxels that it predicts, and its cost.

    On a GPU tiles follow each other without a wait, as they do in a prediction.
    """
    from emsuite.common.process import kept_memory

    predictor = predictor_of(folder, config, raw, tile, device)
    grey, number = grey_tile(predictor), AT_ONCE if device == "cuda" else 1

    def predict() -> None:
        [predictor(grey) for _ in range(number)][-1].arrays()

    with kept_memory():
        cost = measure(predict, 3, device=device)
    voxels = math.prod(predictor.step)
    return tuple(predictor.input_shape), voxels, Cost(cost.wall / number, cost.cpu / number, cost.memory)
