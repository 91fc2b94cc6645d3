"""Files that say no voxel size go through the stages with `--voxel-size` and `--offset`, also in their workers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tifffile import imwrite

from emsuite.io.volume import open_volume

Call = Callable[..., Any]
GRID = ("--voxel-size", "labels=8,8,8", "--offset", "labels=80,160,240")


@pytest.mark.parametrize("workers", [1, 2])
def test_evaluation_of_labels_in_a_tiff_file(call_script: Call, cells: Any, tmp_path: Path, workers: int) -> None:
    imwrite(tmp_path / "labels.tif", cells.labels.astype(np.uint16), compression="zlib")
    command = ["04_segment/evaluate.py", "--segmentation", cells.path / "labels", "--labels", tmp_path / "labels.tif",
               "--out", tmp_path / "scores", "--workers", workers, "--block-size", "160,384,448"]  # fmt: skip
    refused = call_script(*command)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "labels.tif: no attribute 'resolution' or 'voxel_size'" in refused.err
    ended = call_script(*command, *GRID)
    assert ended.code == 0, ended.err
    scores = json.loads((tmp_path / "scores/scores.json").read_text())
    assert json.dumps(scores).count("voi") > 0
    assert "VOI 0.0" in ended.out.replace("sum ", "") or "0.00" in ended.out, ended.out


def test_fragments_of_affinities_in_an_hdf5_file(call_script: Call, cells: Any, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "affs.h5", "w") as file:
        file["main"] = cells.affs
    out = tmp_path / "out"
    command = ["04_segment/extract_fragments.py", "--affs", tmp_path / "affs.h5/main", "--out", out, "--workers", 2]
    ended = call_script(*command, "--voxel-size", "8,8,8", "--offset", "80,160,240")
    assert ended.code == 0, ended.err
    fragments = open_volume(out / "fragments.zarr/fragments")
    assert tuple(fragments.offset) == (80, 160, 240)
    assert len(np.unique(fragments.read())) > 20
