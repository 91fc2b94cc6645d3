"""What several test files do, and is no fixture."""

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml

from emsuite.io.volume import Volume, create_volume

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests/fixtures/tensorflow"


def of_project(pattern: str) -> list[Path]:
    """The paths of the project that match `pattern` and that git knows, in order; a user's own files are not ours."""
    command = ["git", "ls-files", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    known = {ROOT / name for name in done.stdout.split("\0")}
    return sorted(path for path in ROOT.glob(pattern) if done.returncode or path in known)


PUBLISHED_NETWORKS = ("baseline", "malis", "long_range", "lsd", "mtlsd", "aclsd", "acrlsd")
NETWORKS = [path.parent for path in of_project("02_train/*/*/network.yaml")]
SETTINGS = of_project("01_data/datasets/*.yaml") + of_project("02_train/*/dataset.yaml")
SETTINGS += [folder / "network.yaml" for folder in NETWORKS]


def files_in(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below `folder`, by its place there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lose_a_chunk(plate: Path) -> None:
    """Remove the first chunk of the last position of a plate, as a copy that broke off does."""
    last = max(plate.glob("A/1/*/0"))
    min(file for file in last.rglob("*") if file.is_file() and file.suffix != ".json").unlink()


def copy_project(folder: Path) -> Path:
    """A copy of the project as it is in git, as `folder`; without tests, documentation and benchmarks.

    Changed files are copied as they are now, new files only if git knows them. What Python and numba compiled of them
    comes along, as a run would take 15 s to compile it again: they know it by the times of the files.
    """
    files = subprocess.run(["git", "ls-files", "-c"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in files.stdout.split("\n"):
        if name and not name.startswith(("tests/", "docs/", "benchmarks/")) and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for compiled in (ROOT / "src").rglob("__pycache__/*.*[ci]"):
        copy = folder / compiled.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(compiled, copy)
    return folder


def command_of(script: Path) -> click.Command:
    """The command that a stage script is, to parse command lines with."""
    spec = importlib.util.spec_from_file_location(f"script_{script.parent.name}_{script.stem}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def recorded(dataset: str, network: str) -> Path:
    """The path, without endings, of a checkpoint that TensorFlow wrote (fixtures/make_tensorflow_bundles.py)."""
    return next((RECORDED / dataset / network).glob("*.index")).with_suffix("")


def write_network(folder: Path, **sections: Any) -> Path:
    """A network of two levels that trains in milliseconds, in `folder`; outputs of 4^3 voxels of 10 nm.

    Sections of network.yaml go over the defaults: `training` and `prediction` key by key, others as a whole.
    """
    content: dict[str, Any] = {
        "voxel_size": [10, 10, 10],
        "unet": {"num_fmaps": 4, "fmap_inc_factor": 2, "downsample_factors": [[2, 2, 2]]},
        "heads": {"affs": {"target": "affinities", "neighborhood": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]}},
        "training": {"iterations": 2, "input_shape": [20, 20, 20], "sampling": {}, "log_every": 1},
        "prediction": {"input_shape": [28, 28, 28]},
    }
    for key in ("training", "prediction"):
        content[key] |= sections.pop(key, {})
    folder.mkdir(parents=True)
    (folder / "network.yaml").write_text(yaml.safe_dump(content | sections))
    return folder


def write_array(
    path: Path, voxels: np.ndarray, voxel_size: Sequence[int] = (8, 8, 8), offset: Sequence[int] = (0, 0, 0)
) -> Volume:
    """An array in a zarr container, with these voxels, at `offset` nm."""
    volume = create_volume(path, voxels.shape, voxels.dtype, voxel_size, offset)
    volume.write(volume.roi, voxels)
    return volume
