"""Plates seen otherwise: PNG frames in grey values again, and the foreground of masks as a channel."""

from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput
from emsuite.plates.plate import Numbers, Plate, ZarrPlate

SCALE = "scale.json"
FOREGROUND = "foreground"
FOREGROUND_IMAGE = f"labels/{FOREGROUND}"
"""The image of a position that holds its mask, as preprocessing writes it."""


class _View:
    """A plate, seen otherwise."""

    def __init__(self, plate: Plate):
        self._plate = plate

    @property
    def path(self) -> Path:
        """See `Plate`."""
        return self._plate.path

    @property
    def voxel_size_nm(self) -> tuple[float, float, float] | None:
        """See `Plate`."""
        return self._plate.voxel_size_nm

    @property
    def positions(self) -> tuple[str, ...]:
        """See `Plate`."""
        return self._plate.positions

    @property
    def channels(self) -> tuple[str, ...]:
        """See `Plate`."""
        return self._plate.channels

    @property
    def dtype(self) -> np.dtype:
        """See `Plate`."""
        return self._plate.dtype

    def shape(self, position: str) -> tuple[int, int, int, int, int]:
        """See `Plate`."""
        return self._plate.shape(position)

    def read(self, position: str, time: int, channel: int) -> np.ndarray:
        """See `Plate`."""
        return self._plate.read(position, time, channel)

    def numbers(self, position: str) -> Numbers:
        """See `Plate`."""
        return self._plate.numbers(position)

    def labels(self, position: str) -> tuple[str, ...]:
        """See `Plate`."""
        return self._plate.labels(position)


class InGreyValues(_View):
    """PNG frames with a `scale.json`, as grey values, float32: zero + step * pixel, for each channel."""

    def __init__(self, plate: Plate):
        super().__init__(plate)
        path, content = plate.path / SCALE, read_json(plate.path / SCALE)
        scales: Any = content.get("channels") if isinstance(content, dict) else None
        try:
            self._scales = [(float(scales[name]["zero"]), float(scales[name]["step"])) for name in plate.channels]
        except (KeyError, TypeError, ValueError):
            raise BadInput(f"{path}: says no zero and step of each of {', '.join(plate.channels)}") from None

    @property
    def dtype(self) -> np.dtype:
        """See `Plate`."""
        return np.dtype(np.float32)

    def read(self, position: str, time: int, channel: int) -> np.ndarray:
        """See `Plate`."""
        zero, step = self._scales[channel]
        return (zero + step * self._plate.read(position, time, channel)).astype(np.float32)


class WithForeground(_View):
    """A plate with its masks as a further channel `foreground`, 0 and 1."""

    def __init__(self, plate: ZarrPlate):
        super().__init__(plate)
        self._zarr = plate

    @property
    def channels(self) -> tuple[str, ...]:
        """See `Plate`."""
        return (*self._plate.channels, FOREGROUND)

    def shape(self, position: str) -> tuple[int, int, int, int, int]:
        """See `Plate`."""
        t, c, z, y, x = self._plate.shape(position)
        return t, c + 1, z, y, x

    def read(self, position: str, time: int, channel: int) -> np.ndarray:
        """See `Plate`."""
        if channel < len(self._plate.channels):
            return self._plate.read(position, time, channel)
        return (self._zarr.read(position, time, 0, FOREGROUND_IMAGE) > 0).astype(np.uint8)


def predicted(plate: Plate) -> Plate:
    """Return a prediction in grey values: PNG files are scaled as their `scale.json` says."""
    return InGreyValues(plate) if (plate.path / SCALE).is_file() else plate


def without_variances(plate: Plate) -> list[int | str]:
    """Return the channels of a prediction, those apart that hold the variance of another one, `nuclei_variance`."""
    names = plate.channels
    return [name for name in names if not (name.endswith("_variance") and name.removesuffix("_variance") in names)]


def with_foreground(target: Plate, names: tuple[str, ...]) -> Plate:
    """Return a target plate; if masks are among what is predicted, `names`, they are its channel `foreground`."""
    has_masks = isinstance(target, ZarrPlate) and FOREGROUND in target.labels(target.positions[0])
    if FOREGROUND in names and FOREGROUND not in target.channels and has_masks and isinstance(target, ZarrPlate):
        return WithForeground(target)
    return target
