"""Draw transfer_vnc.jpg: a section of FIB-25, the same with the look of the vnc stack, and a section of that stack.

It needs mine/vnc.zarr, the stack as means of 2 x 2 pixels (9.2 nm) and named as 8 nm, and then:

    python 02_train/train.py 02_train/fib25/ccgan_seg_match_small --set training.iterations=1000 \
        --set transfer.constant_iterations=600 --set transfer.losses.identity.weight=5 \
        --set "transfer.domains.b.volumes=[{raw: mine/vnc.zarr/volumes/raw}]"
    python 03_predict/predict.py 02_train/fib25/ccgan_seg_match_small --direction A2B --roi 1040:1280,:,: \
        --raw data/funke/fib25/training/trvol-250-2.zarr/volumes/raw --out mine/fake_vnc.zarr
"""

from pathlib import Path

import numpy as np
from PIL import Image

from emsuite.io.volume import open_volume

ROOT = Path(__file__).resolve().parents[2]
PANELS = (
    ("data/funke/fib25/training/trvol-250-2.zarr/volumes/raw", 140),
    ("mine/fake_vnc.zarr/image", 10),
    ("mine/vnc.zarr/volumes/raw", 5),
)


def section(path: Path, number: int) -> np.ndarray:
    """Return 250 x 250 pixels of a section of an array, uint8."""
    volume = open_volume(path)
    return np.squeeze(volume.read(volume.roi))[number, :250, :250].astype(np.uint8)


gap = np.full((250, 4), 255, np.uint8)
parts = [part for path, number in PANELS for part in (section(ROOT / path, number), gap)][:-1]
Image.fromarray(np.concatenate(parts, axis=1)).save(Path(__file__).with_suffix(".jpg"), quality=88)
