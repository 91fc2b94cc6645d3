"""Outputs without an order are what is asked for only if their manifests say so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import ROOT, write_array
from emsuite.config.network import load_network
from emsuite.io.volume import LABELS, RAW, fingerprint
from emsuite.segmentation.settings import BlockSettings, FragmentSettings, SegmentationSettings, SweepSettings
from emsuite.workflow import made_by_hand
from emsuite.workflow.plan import WorkflowPlan, load_plan


@pytest.fixture
def plan(tmp_path: Path) -> WorkflowPlan:
    for array, kind in ((RAW, np.uint8), (LABELS, np.uint64)):
        write_array(tmp_path / "v.zarr" / array, np.ones((16, 16, 16), kind))
    volume = str(tmp_path / "v.zarr")
    return load_plan(
        {"dataset": "fib25", "network": "small", "train": volume, "test": f"{volume}@0:80,:,:", "iterations": 7}, ROOT
    )


def trained(plan: WorkflowPlan, learning_rate: float | None = None) -> dict[str, Any]:
    settings = load_network(ROOT / "02_train/fib25/small").model_dump(mode="json")
    if learning_rate:
        settings["training"]["optimizer"]["learning_rate"] = learning_rate
    return {
        "settings": settings,
        "inputs": {"0": {"path": "v.zarr", "checksum": ""}},
        "command": ["train.py", "02_train/fib25/small", "--data", "v.zarr"],
    }


def test_trainings(plan: WorkflowPlan) -> None:
    assert made_by_hand.training(trained(plan), plan, "small")
    assert not made_by_hand.training(trained(plan, 0.5), plan, "small")
    for other in (
        {"inputs": {"0": {"path": "other.zarr"}}},
        {"inputs": []},
        {"command": ["train.py", "--data", "v.zarr@0:40,:,:"]},
        {"command": ["train.py"]},
        {"settings": 5},
    ):
        assert not made_by_hand.training(trained(plan) | other, plan, "small"), other


def test_predictions(plan: WorkflowPlan, tmp_path: Path) -> None:
    checkpoint, part = tmp_path / "checkpoint_7.pt", next(iter(plan.test_parts.values()))
    checkpoint.write_bytes(b"weights")
    paths = {"raw": part.volume / RAW, "checkpoint": checkpoint}
    settings = {"network": trained(plan)["settings"], "iteration": 7, "roi": "0:80,0:128,0:128", "tiles": "stride"}
    record = {"settings": settings, "inputs": {name: {"checksum": fingerprint(path)} for name, path in paths.items()}}
    assert made_by_hand.prediction(record, plan, part, checkpoint)
    for other in ({"iteration": 8}, {"roi": "0:128,0:128,0:128"}, {"mask": "m.zarr"}, {"tiles": "original"}):
        assert not made_by_hand.prediction(record | {"settings": settings | other}, plan, part, checkpoint), other
    checkpoint.write_bytes(b"others")
    assert not made_by_hand.prediction(record, plan, part, checkpoint)


def test_segmentations() -> None:
    asked, kinds = SegmentationSettings(), (FragmentSettings, BlockSettings)
    settings = FragmentSettings().model_dump(mode="json") | {"block_size": [80, 80, 80], "affs": "p.zarr/affs"}
    record = {"settings": settings | {"context": [0, 0, 0]}, "blocks": 1}
    assert made_by_hand.segmentation(record, asked, kinds, "affs")
    assert not made_by_hand.segmentation(record | {"blocks": 8}, asked, kinds, "affs"), "blocks decide"
    assert not made_by_hand.segmentation(record, asked, kinds, "other")
    for other in ({"flood": "distance"}, {"mask": "m.zarr/mask"}):
        assert not made_by_hand.segmentation({**record, "settings": settings | other}, asked, kinds, "affs")
    assert made_by_hand.segmentation({"settings": {"thresholds": [0.0, 0.5, 1.0]}},
                                     SegmentationSettings(thresholds="0,1,0.5"), (SweepSettings,), "affs")  # fmt: skip
