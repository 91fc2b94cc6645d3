"""What a prediction takes where the user names nothing."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from builders import ROOT, write_array, write_network
from emsuite.common.errors import BadInput
from emsuite.config.network import load_network
from emsuite.workflow.defaults import prediction_paths
from emsuite.workflow.plan import load_plan


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with FIB-25, a network that was trained to 7, and the volume of the test split."""
    shutil.copytree(ROOT / "01_data/datasets", tmp_path / "01_data/datasets")
    folder = write_network(tmp_path / "02_train/fib25/small", voxel_size=[8, 8, 8])
    (folder / "checkpoints").mkdir()
    for iteration in (3, 7):
        (folder / f"checkpoints/checkpoint_{iteration}.pt").touch()
    raw = tmp_path / "data/funke/fib25/training/trvol-250-2.zarr/volumes/raw"
    write_array(raw, np.zeros((4, 4, 4), np.uint8), offset=(1040, 0, 0))
    return tmp_path


def test_the_test_split_goes_where_the_workflow_puts_it(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = project / "02_train/fib25/small"
    config = load_network(folder)
    caplog.set_level(logging.INFO, "emsuite")
    found = prediction_paths(project, folder, config, None, None, None, None)
    plan = load_plan({"dataset": "fib25", "network": "small", "iterations": 7}, project)
    ((name, part),) = plan.test_parts.items()
    assert found.raw == project / part.volume / "volumes/raw"
    assert found.roi == part.roi
    assert found.out == project / plan.results / name / "prediction.zarr"
    assert caplog.messages == [f"by default: --raw {found.raw} --roi {found.roi} --out {found.out}"]
    assert prediction_paths(project, folder, config, 3, None, None, None).out.parent.parent.name == "3"


def test_what_is_named_is_taken(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = project / "02_train/fib25/small"
    config, raw = load_network(folder), Path("mine.zarr/volumes/raw")
    caplog.set_level(logging.INFO, "emsuite")
    assert prediction_paths(project, folder, config, None, raw, None, Path("p.zarr")) == (raw, None, Path("p.zarr"))
    assert caplog.messages == []
    out = prediction_paths(project, folder, config, 3, raw, None, None).out
    assert out == project / "results/fib25/small/3/mine/prediction.zarr"


def test_what_is_missing_is_told(project: Path) -> None:
    folder = project / "02_train/fib25/small"
    config = load_network(folder)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(BadInput, match="small: no checkpoint; train it"):
        prediction_paths(project, folder, config, None, None, None, None)
    shutil.rmtree(project / "data")
    with pytest.raises(BadInput, match=r"trvol-250-2\.zarr: no such volume; fetch it, or name an array"):
        prediction_paths(project, folder, config, None, None, None, None)
