"""Folders of frames: one file per channel, slice, time and position, read as a plate.

    im_c000_z000_t000_p000.png, ...      names, see `frame_names`; or
    frames_meta.csv                      channel_idx, slice_idx, time_idx, channel_name, file_name, pos_idx

Files are PNG, TIFF, JPEG (Y, X), or NPY of (Y, X), or of (Z, Y, X) for a whole stack.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.files import write_table
from emsuite.io.formats.sections.image_folder import describe_image, read_image
from emsuite.io.formats.tensors.hcs import Numbers
from emsuite.plates.frame_names import Parse, gaps

TABLE = "frames_meta.csv"
COLUMNS = ("channel_idx", "slice_idx", "time_idx", "channel_name", "file_name", "pos_idx")
_ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".npy")
_MOST = 1_000_000
"""Slices, times, channels and positions."""


@dataclass(frozen=True)
class Frame:
    """A file, and where it belongs."""

    channel: int
    slice: int
    time: int
    position: int
    channel_name: str
    file_name: str

    @property
    def index(self) -> tuple[int, int, int, int]:
        """Position, time, channel, slice."""
        return self.position, self.time, self.channel, self.slice


def frames_in(folder: Path, parse: Parse, channel_names: Sequence[str] = ()) -> list[Frame]:
    """Return the frames that the names in a folder say, sorted by position, time, channel and slice.

    Args:
        folder: files of other kinds, and those whose names begin with a point, do not count.
        parse: reads a name.
        channel_names: names of the channels 0, 1, ...; none: the number, or the name that files have. Where files have
            names, these are the same ones, in the order of the channels.

    Raises:
        BadInput: no images, a name that the parser cannot read, or names of channels that are not those of the files.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; expected one of images")
    files = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _ENDINGS and path.name[0] != ".")
    if not files:
        raise BadInput(f"{folder}: holds no images, expected {', '.join(_ENDINGS)}")
    indices = {name: parse(Path(name).stem) for name in files}
    if unread := [name for name, index in indices.items() if index is None]:
        raise BadInput(
            f"{folder / unread[0]}: no channel, slice, time and position in its name, expected im_c000_z000_t000_p000"
        )
    known = {name: index for name, index in indices.items() if index is not None}
    numbers, labels = _channels(folder, {name: index.channel for name, index in known.items()}, channel_names)
    frames = []
    for name, (channel, z, time, position) in known.items():
        frames.append(Frame(numbers[channel], z, time, position, labels[numbers[channel]], name))
    return sorted(frames, key=lambda frame: frame.index)


def _channels(
    folder: Path, of_files: Mapping[str, int | str], given: Sequence[str]
) -> tuple[dict[int | str, int], dict[int, str]]:
    """Return the number of each channel that files have, and the name of each number.

    Numbers of files stay, and names that are given are theirs in order. Where files have names, those that are given
    choose the order of the same names; else they are numbered as they appear.
    """
    found = list(dict.fromkeys(of_files.values()))
    if double := [name for name, count in Counter(given).items() if count > 1]:
        raise BadInput(f"{folder}: the name {double[0]} is given to two channels, expected another one for each")
    if any(isinstance(channel, str) for channel in found):
        for name, channel in of_files.items():
            if given and str(channel) not in given:
                raise BadInput(f"{folder / name}: channel {channel}, expected one of the names {', '.join(given)}")
        order = list(given) or [str(channel) for channel in found]
        numbers = {channel: order.index(str(channel)) for channel in found}
    else:
        numbers = {channel: int(channel) for channel in found}
        order = list(given)
        if given and (more := [name for name, channel in of_files.items() if int(channel) >= len(given)]):
            raise BadInput(f"{folder / more[0]}: channel {of_files[more[0]]}, but {len(given)} names of channels")
    if missing := [number for number in range(len(order)) if number not in numbers.values()]:
        raise BadInput(f"{folder}: channel {missing[0]} ({order[missing[0]]}) has no images, expected some")
    return numbers, {number: order[number] if order else str(number) for number in numbers.values()}


def read_frames(table: Path, channel_names: Sequence[str] = ()) -> list[Frame]:
    """Return the frames of a `frames_meta.csv`, sorted.

    Args:
        table: the file.
        channel_names: see `frames_in`; channels that the table names are those of files with names.

    Raises:
        BadInput: a column is missing, a number is odd, or names of channels are not those of the table.
    """
    try:
        with open(table, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{table}: cannot be read as a table: {error}") from None
    if not rows:
        raise BadInput(f"{table}: holds no frames, expected a row for each")
    frames = []
    for number, row in enumerate(rows, 2):
        if missing := [column for column in COLUMNS if not row.get(column) and column != "channel_name"]:
            raise BadInput(f"{table}:{number}: {missing[0]} is missing, expected the columns {', '.join(COLUMNS)}")
        try:
            c, z, t, p = (int(float(row[key])) for key in ("channel_idx", "slice_idx", "time_idx", "pos_idx"))
        except (ValueError, OverflowError):
            raise BadInput(f"{table}:{number}: an index is no number, expected whole numbers") from None
        frames.append(Frame(c, z, t, p, row.get("channel_name") or str(c), row["file_name"]))
    if channel_names:
        named = {f.file_name: f.channel if f.channel_name == str(f.channel) else f.channel_name for f in frames}
        numbers, labels = _channels(table.parent, named, channel_names)
        places = [numbers[named[frame.file_name]] for frame in frames]
        pairs = zip(frames, places, strict=True)
        frames = [replace(frame, channel=place, channel_name=labels[place]) for frame, place in pairs]
    return sorted(frames, key=lambda frame: frame.index)


def write_frames(table: Path, frames: Iterable[Frame]) -> None:
    """Write a `frames_meta.csv`; its first column counts the rows."""
    rows = [
        {"": number, "channel_idx": frame.channel, "slice_idx": frame.slice, "time_idx": frame.time,
         "channel_name": frame.channel_name, "file_name": frame.file_name, "pos_idx": frame.position}
        for number, frame in enumerate(frames)
    ]  # fmt: skip
    write_table(table, ("", *COLUMNS), rows)


class FramePlate:
    """A folder of frames as a `Plate`: complete, of one size and one type."""

    def __init__(self, folder: Path, frames: Sequence[Frame]):
        self.path, self.frames = folder, tuple(frames)
        self.voxel_size_nm: tuple[float, float, float] | None = None
        self._at = {frame.index: frame for frame in self.frames}
        self._check_unique()
        self._check_channels()
        self._check_complete()
        self._depth, self._plane, self.dtype = self._check_sizes()

    @cached_property
    def position_numbers(self) -> tuple[int, ...]:
        """The numbers of the positions, ascending."""
        return tuple(sorted({frame.position for frame in self.frames}))

    @cached_property
    def positions(self) -> tuple[str, ...]:
        """The names of the positions, as `A/1/7`."""
        return tuple(f"A/1/{number}" for number in self.position_numbers)

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """The names of the channels, in the order of their numbers."""
        names = {frame.channel: frame.channel_name for frame in self.frames}
        return tuple(names[number] for number in sorted(names))

    def shape(self, position: str) -> tuple[int, int, int, int, int]:
        """Return the lengths of T, C, Z, Y, X of a position."""
        times, channels, slices = self._axes[self._number(position)]
        return len(times), len(channels), self._depth or len(slices), *self._plane

    def read(self, position: str, time: int, channel: int) -> np.ndarray:
        """Return the voxels (Z, Y, X) of a position, time and channel; raise BadInput for NaN or a damaged file."""
        number = self._number(position)
        times, channels, slices = self._axes[number]
        frames = [self._at[number, times[time], channels[channel], z] for z in slices]
        planes = [self._read(frame) for frame in frames]
        return planes[0] if self._depth else np.stack(planes)

    def numbers(self, position: str) -> Numbers:
        """Return the numbers of the times and slices of a position; slices of a stack in one file count from 0."""
        times, _, slices = self._axes[self._number(position)]
        return Numbers(tuple(times), tuple(range(self._depth) if self._depth else slices))

    def labels(self, position: str) -> tuple[str, ...]:
        """Return the names of the images of labels: none."""
        return ()

    @cached_property
    def _axes(self) -> Mapping[int, tuple[list[int], list[int], list[int]]]:
        """For each position, the numbers of its times, channels and slices."""
        found: dict[int, tuple[set[int], set[int], set[int]]] = {}
        for frame in self.frames:
            parts = found.setdefault(frame.position, (set(), set(), set()))
            for part, value in zip(parts, (frame.time, frame.channel, frame.slice), strict=True):
                part.add(value)
        return {position: tuple(sorted(part) for part in parts) for position, parts in found.items()}  # type: ignore[misc]

    def _number(self, position: str) -> int:
        return self.position_numbers[self.positions.index(position)]

    def _read(self, frame: Frame) -> np.ndarray:
        path = self.path / frame.file_name
        voxels = np.load(path) if path.suffix == ".npy" else read_image(path)
        if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
            raise BadInput(
                f"{path}: pixel {_first_odd(voxels)} is no finite number (NaN or infinite), expected numbers"
            )
        return voxels

    def _check_unique(self) -> None:
        if odd := next((frame for frame in self.frames if not 0 <= min(frame.index) <= max(frame.index) < _MOST), None):
            raise BadInput(
                f"{self.path}: {odd.file_name} is {_told(odd.index)}, expected numbers from 0 to {_MOST - 1}"
            )
        for index, count in Counter(frame.index for frame in self.frames).items():
            if count > 1:
                names = [frame.file_name for frame in self.frames if frame.index == index][:2]
                raise BadInput(f"{self.path}: {names[0]} and {names[1]} are both {_told(index)}, expected one file")

    def _check_channels(self) -> None:
        numbers = {frame.channel for frame in self.frames}
        if missing := gaps(numbers):
            raise BadInput(f"{self.path}: channel {missing[0]} has no images, but {sorted(numbers)} have some")
        named: dict[int, str] = {}
        for frame in self.frames:
            if (name := named.setdefault(frame.channel, frame.channel_name)) != frame.channel_name:
                both = f"{name} and {frame.channel_name}"
                raise BadInput(f"{self.path / frame.file_name}: channel {frame.channel} is {both}, expected one name")
        for position, (_, channels, _) in self._axes.items():
            if missing := sorted(numbers - set(channels)):
                raise BadInput(f"{self.path}: channel {missing[0]} has no images at position {position}, expected some")

    def _check_complete(self) -> None:
        """Refuse gaps: positions may begin and end at other slices and times, but have all between that others have."""
        all_times, all_slices = ({getattr(frame, axis) for frame in self.frames} for axis in ("time", "slice"))
        all_times, all_slices = all_times | set(gaps(all_times)), all_slices | set(gaps(all_slices))
        for position, (times, channels, slices) in self._axes.items():
            every_time, every_slice = _between(all_times, times), _between(all_slices, slices)
            for index in ((position, t, c, z) for t in every_time for c in channels for z in every_slice):
                if index not in self._at:
                    raise BadInput(f"{self.path}: no image of {_told(index)}, expected one for each")

    def _check_sizes(self) -> tuple[int, tuple[int, int], np.dtype]:
        """Return the slices of one file (0: one image per slice), the size (Y, X) and the type of all files."""
        first = self.frames[0].file_name
        shape, dtype = _describe(self.path / first)
        for frame in self.frames[1:]:
            if (found := _describe(self.path / frame.file_name)) != (shape, dtype):
                expected = f"{shape} {dtype} as {first}"
                raise BadInput(f"{self.path / frame.file_name}: an image of {found[0]} {found[1]}, expected {expected}")
        if len(shape) == 2:
            return 0, shape, dtype
        if any(len(slices) > 1 for _, _, slices in self._axes.values()):
            raise BadInput(f"{self.path / first}: a stack {shape}, expected one slice per file or one file per stack")
        return shape[0], shape[1:], dtype  # type: ignore[return-value]


def _between(numbers: set[int], known: Sequence[int]) -> list[int]:
    return sorted(number for number in numbers if known[0] <= number <= known[-1])


def _describe(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    if not path.is_file():
        raise BadInput(f"{path}: no such file, but the table of frames names it")
    if path.suffix.lower() != ".npy":
        return describe_image(path)
    try:
        array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BadInput(f"{path}: cannot be read as NPY: {error}") from None
    if array.ndim not in (2, 3) or array.dtype.kind not in "biuf":
        raise BadInput(f"{path}: an array {array.shape} {array.dtype}, expected numbers (Y, X) or (Z, Y, X)")
    return array.shape, array.dtype


def _first_odd(voxels: np.ndarray) -> tuple[int, ...]:
    return tuple(int(n) for n in np.argwhere(~np.isfinite(voxels))[0])


def _told(index: tuple[int, int, int, int]) -> str:
    position, time, channel, z = index
    return f"channel {channel}, slice {z}, time {time}, position {position}"
