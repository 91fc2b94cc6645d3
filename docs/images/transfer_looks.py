"""Draw transfer_looks.jpg: a section of look A, with look B by seg_match and by vanilla, and in the true look B.

python docs/images/transfer_looks.py, after `benchmarks/downstream.py`.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from emsuite.io.volume import open_volume

ROOT = Path(__file__).resolve().parents[2]
SECTION = 60
RUN = "results/transfer/cyclegan__fib25_second_look__{}__700I_300DI/transferred.zarr/image"
PANELS = (
    "data/funke/fib25/training/trvol-250-2.zarr/volumes/raw",
    RUN.format("ccgan_seg_match_small"),
    RUN.format("ccgan_vanilla_small"),
    "data/transfer/fib25_second_look/own.zarr/volumes/raw",
)


def section(path: Path) -> np.ndarray:
    """Return a section (Y, X) of an array, uint8."""
    volume = open_volume(path)
    return np.squeeze(volume.read(volume.roi))[SECTION].astype(np.uint8)


gap = np.full((250, 4), 255, np.uint8)
parts = [part for panel in PANELS for part in (section(ROOT / panel), gap)][:-1]
Image.fromarray(np.concatenate(parts, axis=1)).save(Path(__file__).with_suffix(".jpg"), quality=88)
