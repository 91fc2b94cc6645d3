"""A folder of frames into one plate: position by position, each read back and compared.

    frames/im_c000_z000_t000_p000.png, ...   ->   mine.zarr                   OME-NGFF, HCS layout
                                                  mine.frames_meta.csv        the table of the frames
                                                  mine.zarr.manifest.json     with the digest of each position

A stopped run continues behind the positions that were complete. A whole plate is left alone if its digests are those of
the frames: a file that was edited with its size and times restored is seen.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.files import remove
from emsuite.common.outputs import is_finished, output, read_manifest
from emsuite.io.fingerprint import origin_of
from emsuite.io.volume import fingerprint
from emsuite.plates.frame_names import Parse
from emsuite.plates.frames import FramePlate, write_frames
from emsuite.plates.plate import (
    Plate,
    check_outside,
    create_plate,
    in_threads,
    new_image,
    note_result,
    noted_result,
    open_plate,
)


def index_plate(
    folder: Path,
    out: Path,
    parse: Parse | None = None,
    *,
    channel_names: Sequence[str] = (),
    voxel_size_nm: tuple[float, float, float] | None = None,
    workers: int = 1,
) -> FramePlate:
    """Write the frames of a folder as a plate.

    Args:
        folder: the frames, or microDL's own folder with its `frames_meta.csv`.
        out: the plate to write, a name that ends in .zarr.
        parse: reads names; None: `frames_meta.csv` if there is one, else im_c###_z###_t###_p###.
        channel_names: of the channels 0, 1, ..., see `frames_in`; none: their numbers, or the names that files have.
        voxel_size_nm: z, y, x; None: unknown.
        workers: threads; the result does not depend on them.

    Raises:
        BadInput: a frame is missing, double, damaged or of another size, or holds NaN.
        RunFailed: voxels that were read back differ.
    """
    if out.suffix != ".zarr":
        raise BadInput(f"{out}: expected a name that ends in .zarr")
    check_outside(out, folder)
    plate = open_plate(folder, parse, channel_names)
    if not isinstance(plate, FramePlate):
        raise BadInput(f"{folder}: is a plate already, expected a folder of frames")
    table = out.with_suffix(".frames_meta.csv")
    settings = {
        "frames": origin_of(folder),
        "table": hashlib.sha256("\n".join(map(repr, plate.frames)).encode()).hexdigest(),
        "voxel_size_nm": voxel_size_nm,
    }
    if is_finished(out, settings) and table.exists() and _is_copied(plate, out, workers):
        return plate
    with output(out, settings, inputs={"frames": folder}, fingerprint=fingerprint) as made:
        done = out.with_suffix(".positions")
        if not (made.resumed and done.exists()):
            remove(done)
            made.clear()
            create_plate(out, plate.positions)
            done.mkdir(parents=True)
        digests = in_threads(
            lambda position: _copy(plate, out, position, voxel_size_nm, done), plate.positions, workers, "index"
        )
        write_frames(table, plate.frames)
        made.notes["digests"] = dict(zip(plate.positions, digests, strict=True))
        remove(done)
    return plate


def _is_copied(plate: Plate, out: Path, workers: int) -> bool:
    """Read all frames again, and return whether their digests are those of the plate."""
    digests = in_threads(lambda position: _digest(plate, position), plate.positions, workers, "compare")
    return bool(read_manifest(out).get("digests") == dict(zip(plate.positions, digests, strict=True)))


def _digest(plate: Plate, position: str) -> str:
    hashed = hashlib.sha256()
    for time, channel in np.ndindex(*plate.shape(position)[:2]):
        _add(hashed, plate.read(position, time, channel))
    return hashed.hexdigest()


def _add(hashed: "hashlib._Hash", voxels: np.ndarray) -> None:
    hashed.update(np.ascontiguousarray(voxels, voxels.dtype.newbyteorder("<")).tobytes())


def _copy(plate: Plate, out: Path, position: str, voxel_size_nm: tuple[float, float, float] | None, done: Path) -> str:
    """Copy a position, unless an earlier run has; return the digest of its voxels."""
    if isinstance(digest := noted_result(done, position, out / position), str):
        return digest
    shape, hashed = plate.shape(position), hashlib.sha256()
    copy = new_image(out, position, shape, plate.dtype, plate.channels, voxel_size_nm, "", plate.numbers(position))
    for time, channel in np.ndindex(*shape[:2]):
        voxels = plate.read(position, time, channel)
        copy.write(time, channel, voxels)
        if not np.array_equal(copy.read(time, channel), voxels):
            raise RunFailed(f"{out}/{position}: voxels of time {time}, channel {channel} differ when read back")
        _add(hashed, voxels)
    note_result(done, position, out / position, hashed.hexdigest())
    return hashed.hexdigest()
