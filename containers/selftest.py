#!/usr/bin/env python
"""The test of a new image, run when it is built: import every module, check the packages, predict a tiny volume."""

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
    """Run all tests of the image. One that fails ends this script with one line or a traceback."""
    import_all()
    if os.environ.get("EMSUITE_KIND") == "cuda":
        find_cuda()
    check_pinned()
    predict()
    print("all packages and modules import, a prediction ran")


def import_all() -> None:
    """Import every module of the suite; without CUDA, not those of kernels: the image has no triton."""
    import emsuite

    for module in pkgutil.walk_packages(emsuite.__path__, "emsuite."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name != "triton" or os.environ.get("EMSUITE_KIND") == "cuda":
                raise


def find_cuda() -> None:
    """Check that an image for CUDA has a torch that can use GPUs, and a C compiler for triton."""
    import torch

    if torch.version.cuda is None:
        sys.exit(f"this image: torch {torch.__version__} is not built for CUDA")
    if not (shutil.which("cc") and Path(sysconfig.get_path("include"), "Python.h").exists()):
        sys.exit("this image: no C compiler, or no Python.h, which triton needs")


def check_pinned() -> None:
    """Check that the image has all packages that the locks pin, at their versions, and no others but the base's own."""
    from emsuite.common.locked_packages import check_image_here, pinned

    check_image_here()
    expected = {"pip", "wheel"}
    for lock in (ROOT / "requirements.lock", ROOT / "containers/cuda.lock"):
        expected |= {canonical(name) for name in pinned(lock)}
    if unpinned := {canonical(package.name) for package in metadata.distributions()} - expected:
        sys.exit(f"this image: has {', '.join(sorted(unpinned))}, which no lock pins; 'make lock' updates the locks")


def canonical(name: str) -> str:
    """Return a package's name in the form in which pip compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def predict() -> None:
    """Predict a cube of noise with the script of the stage and the small network, which has random weights."""
    import numpy as np

    from emsuite.config.network import build_network, load_network
    from emsuite.io.volume import create_volume, open_volume
    from emsuite.training.checkpoint import Checkpoint, save

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        shutil.copytree(ROOT / "01_data/datasets", root / "01_data/datasets")
        shutil.copytree(ROOT / "02_train/phantom", root / "02_train/phantom")
        folder, raw, out = root / "02_train/phantom/small", root / "noise.zarr/raw", root / "out.zarr"
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
            sys.exit(f"{out}: the shape of the prediction is not that of its volume")


if __name__ == "__main__":
    main()
