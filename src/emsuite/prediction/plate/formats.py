"""How a predicted plate is written: OME-Zarr, or frames as TIFF, NPY or PNG.

    zarr    a plate (T, C, Z, Y, X) float32
    tiff    float32, one file per channel, slice, time and position
    npy     float32, one file (Z, Y, X) per channel, time and position
    png     uint16, as tiff; scale.json says what 0 and each step stand for, by channel, the same in all images

Folders of frames have a `frames_meta.csv`, so that they are plates as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from emsuite.common.errors import BadInput
from emsuite.common.files import atomic_path, has_content, write_json
from emsuite.plates.frames import TABLE, Frame, write_frames
from emsuite.plates.plate import Numbers, create_plate, new_image
from emsuite.prediction.plate.source import Channel

_HIGHEST = 65535
_FAR = 8.0
"""Deviations on either side of the mean that PNG files hold, if grey values do not fit as they are."""
_FINE = 16.0
"""Grey values per deviation at which whole numbers are fine enough."""

Volume = Callable[[int], np.ndarray]
"""Returns the channels (C, Z, Y, X) float32 of a time."""


@dataclass(frozen=True)
class PlateOutput:
    """Where a predicted plate goes."""

    path: Path
    format: str
    channels: Sequence[Channel]
    positions: Sequence[str]
    """All of the prediction."""
    voxel_size_nm: tuple[float, float, float] | None

    def begin(self) -> None:
        """Write what all positions share."""
        if self.format == "zarr":
            create_plate(self.path, self.positions)
        elif self.format == "png":
            scales = {c.name: dict(zip(("zero", "step"), png_scale(c), strict=True)) for c in self.channels}
            write_json(self.path / "scale.json", {"grey value": "zero + step * pixel", "channels": scales})

    def check(self) -> None:
        """Raise BadInput for frames of positions in several wells: names of frames have one number for a position."""
        other = next((position for position in self.positions if not position.startswith("A/1/")), None)
        if self.format not in ("zarr", "csv") and other is not None:
            raise BadInput(f"{self.path}: frames have no name for position {other}, expected --format zarr")

    def write(self, position: str, shape: Sequence[int], numbers: Numbers, predict: Volume) -> list[list[int]]:
        """Write a position, and return the channel, slice, time and position of each of its frames.

        Args:
            position: as `A/1/0`.
            shape: T, Z, Y, X.
            numbers: of its times and slices.
            predict: returns the channels of a time.
        """
        times, *spatial = shape
        if self.format == "zarr":
            names = [channel.name for channel in self.channels]
            full = (times, len(names), *spatial)
            image = new_image(self.path, position, full, np.float32, names, self.voxel_size_nm, numbers=numbers)
            for time in range(times):
                for channel, voxels in enumerate(predict(time)):
                    image.write(time, channel, voxels)
            return []
        number, frames = int(position.rpartition("/")[2]), list[list[int]]()
        for time in range(times):
            for channel, voxels in enumerate(predict(time)):
                stacks = [(0, voxels)] if self.format == "npy" else zip(numbers.slices, voxels, strict=True)
                for z, pixels in stacks:
                    frames.append([channel, z, numbers.times[time], number])
                    self._write_frame(self._name(*frames[-1]), pixels, self.channels[channel])
        return frames

    def has(self, frames: Sequence[Sequence[int]]) -> bool:
        """Return whether the files of frames exist and are not empty."""
        return all(has_content(self.path / self._name(*frame)) for frame in frames)

    def finish(self, frames: Sequence[Sequence[int]]) -> None:
        """Write the table of all frames."""
        if self.format != "zarr":
            rows = [Frame(c, z, t, p, self.channels[c].name, self._name(c, z, t, p)) for c, z, t, p in frames]
            write_frames(self.path / TABLE, sorted(rows, key=lambda frame: frame.index))

    def _name(self, channel: int, z: int, time: int, position: int) -> str:
        ending = {"tiff": "tif"}.get(self.format, self.format)
        return f"im_c{channel:03}_z{z:03}_t{time:03}_p{position:03}.{ending}"

    def _write_frame(self, name: str, pixels: np.ndarray, channel: Channel) -> None:
        with atomic_path(self.path / name) as path, open(path, "wb") as file:
            if self.format == "npy":
                np.save(file, pixels)
            elif self.format == "tiff":
                Image.fromarray(pixels).save(file, format="TIFF")
            else:
                zero, step = png_scale(channel)
                steps = (pixels.astype(np.float64) - zero) / step
                whole = np.rint(steps).clip(0, _HIGHEST).astype(np.uint16)
                Image.fromarray(whole).save(file, format="PNG")


def png_scale(channel: Channel) -> tuple[float, float]:
    """Return zero and step of a channel in PNG files: grey values as they are if they suit, else 8 deviations."""
    shift, scale = channel.scale
    if channel.is_variance:
        return 0.0, (_FAR * scale) ** 2 / _HIGHEST
    if (shift, scale) == (0.0, 1.0):
        return 0.0, 1.0 / _HIGHEST
    if scale >= _FINE and shift + _FAR * scale <= _HIGHEST:
        return 0.0, 1.0
    return shift - _FAR * scale, 2 * _FAR * scale / _HIGHEST
