"""Plates: positions of a microscope, each an image (T, C, Z, Y, X), in zarr or in a folder of frames.

plate = open_plate(Path("mine.zarr"))             OME-NGFF's HCS layout, of any program
plate = open_plate(Path("frames/"))               frames, or microDL's own folder with its frames_meta.csv
plate.read(plate.positions[0], time=0, channel=1)   (Z, Y, X)
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput
from emsuite.common.files import write_json
from emsuite.common.outputs import check_finished, check_whole
from emsuite.common.progress import progress
from emsuite.common.state.written import difference, written
from emsuite.io.formats.tensors import hcs
from emsuite.io.formats.tensors.hcs import FieldImage as FieldImage
from emsuite.io.formats.tensors.hcs import Numbers as Numbers
from emsuite.plates.frame_names import ByOrder, Parse
from emsuite.plates.frames import TABLE, FramePlate, frames_in, read_frames

MASK, WEIGHTS = "labels/foreground", "border_weights"
"""Further images of a preprocessed position."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Plate(Protocol):
    """Positions with the same channels. Reads may come from several threads at once."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def voxel_size_nm(self) -> tuple[float, float, float] | None:
        """z, y, x; None if it is unknown."""

    @property
    def positions(self) -> tuple[str, ...]:
        """The names of the positions, as `A/1/0`."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the channels."""

    @property
    def dtype(self) -> np.dtype:
        """The type of the voxels."""

    def shape(self, position: str) -> tuple[int, int, int, int, int]:
        """Return the lengths of T, C, Z, Y, X of a position."""

    def read(self, position: str, time: int, channel: int) -> np.ndarray:
        """Return the voxels (Z, Y, X); raise BadInput for a damaged file, and for NaN."""

    def numbers(self, position: str) -> Numbers:
        """Return the numbers of the times and slices of a position, as its frames have them; else from 0."""

    def labels(self, position: str) -> tuple[str, ...]:
        """Return the names of the images of labels of a position."""


class ZarrPlate:
    """A plate of OME-NGFF; images beside the main one are read by their names."""

    def __init__(self, path: Path):
        self.path = path
        self.positions: tuple[str, ...] = tuple(hcs.field_names(path))
        self._open = lru_cache(maxsize=256)(self._opened)
        first = self._open(self.positions[0], "")
        self.channels, self.voxel_size_nm, self.dtype = first.channels, first.voxel_size_nm, np.dtype(first.array.dtype)

    def shape(self, position: str, image: str = "") -> tuple[int, int, int, int, int]:
        """Return the lengths of T, C, Z, Y, X of a position, or of another image of it, as `labels/foreground`."""
        return self._open(position, image).shape

    def read(
        self, position: str, time: int, channel: int, image: str = "", box: Sequence[slice] | None = None
    ) -> np.ndarray:
        """Return the voxels (Z, Y, X) of a position, or of another image of it, or a box of it; BadInput for NaN."""
        opened = self._open(position, image)
        voxels = opened.read(time, channel, box)
        if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
            z = int(np.argwhere(~np.isfinite(voxels))[0][0])
            raise BadInput(
                f"{opened.path}: time {time}, channel {channel}, slice {z} holds NaN or infinity, expected numbers"
            )
        return voxels

    def numbers(self, position: str) -> Numbers:
        """Return the numbers of the times and slices of a position."""
        return self._open(position, "").numbers

    def labels(self, position: str) -> tuple[str, ...]:
        """Return the names of the images of labels of a position."""
        return tuple(hcs.label_names(self.path / position))

    def _opened(self, position: str, image: str) -> FieldImage:
        opened = hcs.open_image(self.path / position / image)
        if not image and position != self.positions[0]:
            first = self._open(self.positions[0], "")
            if opened.channels != first.channels:
                raise BadInput(f"{opened.path}: channels {list(opened.channels)}, expected {list(first.channels)}")
        return opened


def open_plate(path: Path, parse: Parse | None = None, channel_names: Sequence[str] = ()) -> Plate:
    """Open a plate.

    Args:
        path: a plate of OME-NGFF, a folder with `frames_meta.csv`, or a folder of frames.
        parse: reads the names of frames in a folder without a table; None: im_c###_z###_t###_p###.
        channel_names: names of the channels of a folder, see `frames_in`.

    Raises:
        BadInput: nothing of these, unfinished, files are lost, or images are of unequal size or type.
    """
    check_finished(path)
    if not path.is_dir():
        raise BadInput(f"{path}: no such folder; expected a plate of OME-NGFF or a folder of frames")
    if hcs.is_plate(path):
        check_whole(path, is_edited=True)
        return ZarrPlate(path)
    if parse is None and (path / TABLE).is_file():
        return FramePlate(path, read_frames(path / TABLE, channel_names))
    if any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zattrs")):
        raise BadInput(f"{path}: zarr, but no plate; expected `plate` of OME-NGFF in its document")
    return FramePlate(path, frames_in(path, parse or ByOrder(), channel_names))


def create_plate(path: Path, positions: Sequence[str]) -> None:
    """Write the documents of a plate and its wells; see `new_image`."""
    hcs.create_plate(path, positions)


def new_image(
    path: Path, position: str, shape: Sequence[int], dtype: Any, channels: Sequence[str],
    voxel_size_nm: Sequence[float] | None, image: str = "", numbers: Numbers | None = None,
) -> FieldImage:  # fmt: skip
    """Create an image (T, C, Z, Y, X) of a position, filled with 0, and return it open for writing.

    Args:
        path: a plate that `create_plate` wrote.
        position: as `A/1/0`.
        shape: T, C, Z, Y, X.
        dtype: of the voxels.
        channels: the names of the channels.
        voxel_size_nm: z, y, x; None: unknown.
        image: the name of a further image of the position, as `labels/foreground`.
        numbers: of its times and slices; None: from 0.
    """
    hcs.create_image(path / position / image, shape, dtype, channels, voxel_size_nm, numbers)
    return hcs.open_image(path / position / image, "r+")


def note_result(done: Path, position: str, images: Path, result: Any) -> None:
    """Note that a position is whole, with the names and sizes of its files.

    Args:
        done: the folder of the notes of a run.
        position: as `A/1/0`.
        images: the folder of its images, or nothing.
        result: what the run needs of it later, as JSON.
    """
    write_json(_note(done, position), {"result": result, "written": written(images)})


def noted_result(done: Path, position: str, images: Path) -> Any:
    """Return the result that a stopped run noted for a position; None without one, or if its files differ by now.

    Files are lost where the machine goes down: the note is flushed to the disk, chunks of images are not.
    """
    note = read_json(_note(done, position))
    if not isinstance(note, dict) or "written" not in note or difference(images, note["written"]):
        return None
    return note.get("result")


def _note(done: Path, position: str) -> Path:
    return done / f"{position.replace('/', '.')}.json"


def check_outside(out: Path, source: Path) -> None:
    """Raise BadInput for an output in a folder that is read: the folder would change meanwhile."""
    if out.resolve().is_relative_to(source.resolve()):
        raise BadInput(f"{out}: lies in {source}, which is read; choose another place")


def check_equal_sizes(plate: Plate) -> tuple[int, int]:
    """Return the size (Y, X) of all positions; raise BadInput if two differ."""
    expected = plate.shape(plate.positions[0])[3:]
    for position in plate.positions[1:]:
        if (size := plate.shape(position)[3:]) != expected:
            raise BadInput(f"{plate.path}/{position}: images of {size}, expected {expected} as {plate.positions[0]}")
    return expected


def in_threads(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    what: "str | tqdm[Any] | None" = None,
    unit: str = "position",
) -> list[Result]:
    """Return what a function returns for each item, in their order; the first error ends all.

    Args:
        function: is called from several threads.
        items: its arguments.
        workers: the number of threads.
        what: the description of a progress bar, or a bar that counts these items among others; None: no bar.
        unit: the name of an item.
    """
    todo = list(items)
    own = progress(what=what, total=len(todo), unit=unit) if isinstance(what, str) else None
    bar, results = own if own is not None else what, []
    with ThreadPoolExecutor(workers) as pool, own or nullcontext():
        futures = [pool.submit(function, item) for item in todo]
        try:
            for future in futures:
                results.append(future.result())
                if isinstance(bar, tqdm):
                    bar.update()
            return results
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
