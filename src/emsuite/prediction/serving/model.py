"""A trained network that stays loaded and predicts one region after the other, from memory to memory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emsuite.common.device import memory_to_use
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi, json_numbers
from emsuite.config.network import NetworkConfig
from emsuite.data.raw import Reads
from emsuite.io.regions import parse_roi
from emsuite.io.volume import Volume
from emsuite.models.network import AnyNetwork, is_local
from emsuite.prediction.blending import GridWeights, make_tiling
from emsuite.prediction.predictor import Predictor, make_predictor, written_heads
from emsuite.prediction.region import in_voxels
from emsuite.prediction.tile_size import input_shape_for
from emsuite.prediction.tiling import Tiling

_KEPT = 4
"""Predictors of different tiles that are kept: on a GPU each has recorded its tile."""


@dataclass
class Model:
    """A network with all that a prediction needs; for one thread at a time."""

    name: str
    network: AnyNetwork
    config: NetworkConfig
    device: torch.device
    iteration: int
    digest: str
    reads: Reads
    _predictors: dict[Any, Predictor] = field(default_factory=dict)

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that can be asked for; the first one is the default."""
        return written_heads(self.config)

    def describe(self) -> dict[str, Any]:
        """Return what a client needs to know, for JSON."""
        field_of_view = self.network.receptive_field
        heads = {name: {"channels": self.config.heads[name].channels, "dtype": self.config.heads[name].stored_as}
                 for name in self.heads}  # fmt: skip
        return {
            "network": self.name,
            "iteration": self.iteration,
            "weights": self.digest,
            "device": self.device.type,
            "voxel_size_nm": json_numbers(self.reads.voxel_size),
            "context_voxels": list(field_of_view.context),
            "stride_voxels": list(field_of_view.stride),
            "heads": heads,
        }

    def block(self, voxels: np.ndarray) -> Volume:
        """Return a posted block as a volume; raise BadInput if the network cannot read it."""
        size = Coordinate(*self.reads.voxel_size)
        if voxels.ndim != 3:
            raise BadInput(f"block: {voxels.ndim} axes {voxels.shape}, expected raw with 3 (z, y, x)")
        return self.reads.checked(Volume(Path("block"), voxels, size, size * 0))

    def region(self, raw: Volume, roi: str | None, most_voxels: int) -> Roi:
        """Return the region of a volume that a client names, nm, as `z0:z1,y0:y1,x0:x1`; None: all of it.

        Raises:
            BadInput: it lies outside, cuts voxels, or has more than `most_voxels`.
        """
        region = raw.roi if roi is None else parse_roi(roi, raw)
        number = math.prod(in_voxels(raw, region).shape)
        if number > most_voxels:
            raise BadInput(f"{number:,} voxels, expected at most {most_voxels:,}; ask for smaller regions")
        return region

    def predict(self, raw: Volume, roi: Roi, heads: Sequence[str] | None = None) -> Mapping[str, np.ndarray]:
        """Predict a region, as `03_predict/predict.py` does.

        Args:
            raw: `(Z, Y, X)`. Around it, it is mirrored.
            roi: the region, nm.
            heads: those to return; None: all that are written.

        Returns:
            by head, `(C, Z, Y, X)` uint8 for values in [0, 1], or float32.
        """
        predictor, roi_vx = self._predictor(raw, roi), in_voxels(raw, roi)
        wanted, tiles, window = heads or self.heads, predictor.grid(raw, roi_vx), predictor.tiling.window
        weights = None if window is None else GridWeights(tiles, predictor.step, window)
        arrays = {name: self._empty(name, roi_vx.shape, window is not None) for name in wanted}
        for tile in tiles:
            predicted = predictor(*predictor.read([raw], tile)).arrays()
            kept = Roi(tile.keep_begin, tile.keep_shape) - roi_vx.begin
            for name in wanted:
                place, values = (slice(None), *kept.to_slices()), predicted[name][tile.kept_of_output]
                if weights is None:
                    arrays[name][place] = values
                else:
                    arrays[name][place] += weights.of(tile)[tile.kept_of_output[1:]] * values
        if weights is None:
            return arrays
        return {name: predictor.to_stored(name, torch.from_numpy(sums)).numpy() for name, sums in arrays.items()}

    def _empty(self, name: str, shape: Sequence[int], is_sum: bool) -> np.ndarray:
        head = self.config.heads[name]
        return np.zeros((head.channels, *shape), np.float64 if is_sum else head.stored_as)

    @property
    def _tiling(self) -> Tiling:
        return make_tiling("stride", False, None, is_local=is_local(self.network))

    def _predictor(self, raw: Volume, roi: Roi) -> Predictor:
        tiling = self._tiling
        shape = input_shape_for(self.network, self.config, tiling, memory_to_use(self.device, 1), raw, roi, self.device)
        made = make_predictor(self.network, self.config, self.device, shape, raw, roi, tiling, None,
                              *self.reads.scales)  # fmt: skip
        key = made.input_shape, made.grey_scale
        if key not in self._predictors:
            while len(self._predictors) >= _KEPT:
                del self._predictors[next(iter(self._predictors))]
            self._predictors[key] = made.on(self.device)
        return self._predictors[key]
