"""Exports of a segmentation by 04_segment/export.py: whole processes, wall clock and CPU time, two workers.

The labels are those of the FIB-25 slab, mirrored to the size of the cube (250^3 voxels), or random cells.
"""

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from volumes import mirrored, read, synthetic, volume

from emsuite.io.volume import create_volume

_SCRIPT = Path(__file__).resolve().parents[1] / "04_segment/export.py"
_SHAPE = (250, 250, 250)
_EXPORTS = {
    "precomputed, meshes at three levels": ("x.precomputed", "precomputed", []),
    "precomputed, meshes and skeletons": ("x.precomputed", "precomputed", ["--skeletons"]),
    "table with surfaces": ("x.csv", "csv", ["--levels-of-detail", "1"]),
    "table with cable lengths": ("x.csv", "csv", ["--levels-of-detail", "0", "--skeletons"]),
    "OME-Zarr": ("x.zarr", "ome-zarr", []),
    "HDF5": ("x.h5", "hdf5", []),
    "TIFF": ("x.tif", "tiff", []),
}


@click.command(help=__doc__)
@volume
@synthetic
@click.option("--workers", default=2, show_default=True)
@click.option("--only", multiple=True, metavar="WORD", help="Exports whose names hold the word. [default: all]")
def main(volume: Path, synthetic: bool, workers: int, only: tuple[str, ...]) -> None:
    labels = mirrored(read(volume, synthetic)[1], _SHAPE).astype(np.uint64)
    print(f"{len(np.unique(labels[labels > 0]))} segments, {' x '.join(map(str, labels.shape))} voxels")
    with tempfile.TemporaryDirectory() as folder:
        source = create_volume(Path(folder) / "s.zarr/segmentation", labels.shape, np.uint64, (8, 8, 8), (0, 0, 0))
        source.array[...] = labels
        for name, (out, kind, options) in _EXPORTS.items():
            if not only or any(word in name for word in only):
                wall, cpu = measure(
                    source.path, Path(folder) / "out" / out, kind, [*options, "--workers", str(workers)]
                )
                print(f"{name}: {wall:.1f} s, {cpu:.1f} s of CPU", flush=True)


def measure(source: Path, out: Path, kind: str, options: list[str]) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of one export, its start included."""
    shutil.rmtree(out.parent, ignore_errors=True)
    command = [
        sys.executable,
        str(_SCRIPT),
        "--segmentation",
        str(source),
        "--out",
        str(out),
        "--format",
        kind,
        *options,
    ]
    before, begin = _cpu(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin, _cpu() - before


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
