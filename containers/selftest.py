#!/usr/bin/env python
"""What an image is tested with when it is built: it imports every package and predicts a tiny volume."""

import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Ends with a traceback, or one line, where something is missing."""
    import_all()
    if os.environ.get("EMSUITE_KIND") == "cuda":
        find_cuda()
    check_pinned()
    predict()
    print("all packages and modules import, a prediction ran")


def import_all() -> None:
    """Every module of the suite."""
    import emsuite

    for module in pkgutil.iter_modules(emsuite.__path__):
        importlib.import_module(f"emsuite.{module.name}")


def find_cuda() -> None:
    """What an image with CUDA is built for: a torch that can use GPUs, and a compiler for triton."""
    import torch

    if torch.version.cuda is None:
        sys.exit(f"this image: torch {torch.__version__} is not built for CUDA")
    if not (shutil.which("cc") and Path(sysconfig.get_path("include"), "Python.h").exists()):
        sys.exit("this image: no C compiler, or no Python.h, which triton needs")


def check_pinned() -> None:
    """What the locks pin is here, at these versions, and nothing besides but the base's own."""
    from emsuite.common.locked_packages import check_image_here, pinned

    check_image_here()
    known = {"pip", "wheel"}
    for lock in (ROOT / "requirements.lock", ROOT / "containers/cuda.lock"):
        known |= {canonical(name) for name in pinned(lock)}
    if besides := {canonical(package.name) for package in metadata.distributions()} - known:
        sys.exit(f"this image: has {', '.join(sorted(besides))}, which no lock pins; 'make lock' writes them anew")


def canonical(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def predict() -> None:
    """The small network with random weights, over a cube of noise, by the stage's own script."""
    import numpy as np

    from emsuite.config.network import build_network, load_network
    from emsuite.io.volume import create_volume, open_volume
    from emsuite.training.checkpoint import Checkpoint, save

    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(ROOT / "02_train/phantom", Path(place) / "phantom")
        folder, raw, out = Path(place) / "phantom/small", Path(place) / "noise.zarr/raw", Path(place) / "out.zarr"
        config = load_network(folder)
        save(
            folder,
            Checkpoint(
                iteration=1,
                architecture=config.architecture(),
                networks={"network": build_network(config).state_dict()},
            ),
        )
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 40), np.uint8)
        volume = create_volume(raw, noise.shape, noise.dtype, config.voxel_size, (0, 0, 0))
        volume.write(volume.roi, noise)
        script = [sys.executable, ROOT / "03_predict/predict.py", folder, "--raw", raw, "--out", out]
        subprocess.run([*script, "--device", "cpu", "--input-shape", "144,144,144"], check=True)
        if open_volume(out / "affs").array.shape != (3, *noise.shape):
            sys.exit(f"{out}: the prediction has not the shape of its volume")


if __name__ == "__main__":
    main()
