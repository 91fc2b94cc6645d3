"""Orders of the chain where it makes the other look: each edit and each key changes those of the steps behind it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import ROOT, write_array
from emsuite.data.derived.degradations import SecondLook
from emsuite.data.derived.degrade import degrade
from emsuite.io.volume import LABELS, MASK, RAW, open_volume
from emsuite.workflow import transfer_orders
from emsuite.workflow.inputs import input_state
from emsuite.workflow.transfer import load_transfer_plan
from emsuite.workflow.transfer_orders import TransferOrders

VOLUMES = ("labelled", "other", "test")
TRANSFERRED = {"train_transfer", "transfer", "pair", "train_segmenter"}
SEGMENTED = {"predict", "decode_instances", "evaluate"}


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(transfer_orders, "input_state", input_state.__wrapped__)  # each look is a new run's
    rng = np.random.default_rng(0)
    for name in VOLUMES:
        write_array(tmp_path / f"{name}.zarr" / RAW, rng.integers(0, 255, (8, 16, 16)).astype(np.uint8))
        write_array(tmp_path / f"{name}.zarr" / LABELS, rng.integers(0, 9, (8, 16, 16)).astype(np.uint64))
        write_array(tmp_path / f"{name}.zarr" / MASK, np.ones((8, 16, 16), np.uint8))
    places = {name: str(tmp_path / f"{name}.zarr") for name in VOLUMES}
    return places | {"data_name": "mine", "transfer": "fib25/ccgan_vanilla_small", "segmenter": "fib25/instances",
                     "look": "second_look", "results": str(tmp_path / "results")}  # fmt: skip


def digests(given: dict[str, Any]) -> dict[str, str]:
    """The digest of the order of each step, by name."""
    orders = TransferOrders(load_transfer_plan(given, ROOT))
    steps = {f"look {name}": orders.look(name) for name in ("b", "test", "own")}
    steps |= {name: getattr(orders, name)() for name in ("train_transfer", "transfer", "pair")}
    arm = ("train_segmenter", "predict", "decode_instances", "evaluate")
    steps |= {name: getattr(orders, name)("transferred") for name in arm}
    steps["evaluate own"] = orders.evaluate("own")
    return {name: order.digest for name, order in steps.items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


EVERY_LOOK = {"look b", "look test", "look own", "evaluate own"}


@pytest.mark.parametrize(
    ("key", "steps"),
    [
        ({"set": ["gamma=1.3"]}, EVERY_LOOK | TRANSFERRED | SEGMENTED),
        ({"look": "box_and_holes"}, EVERY_LOOK | TRANSFERRED | SEGMENTED),
        ({"other_roi": "0:32,:,:"}, {"look b"} | TRANSFERRED | SEGMENTED),
        ({"test_roi": "0:32,:,:"}, {"look test", "evaluate own"} | SEGMENTED),
        ({"labelled_roi": "0:32,:,:"}, {"look own", "evaluate own"} | TRANSFERRED | SEGMENTED),
        ({"segmentation": {"block_size": [80, 80, 80]}}, {"decode_instances", "evaluate", "evaluate own"}),
        ({"segmentation": {"label_border": 25}}, {"evaluate", "evaluate own"}),
        ({"segmentation": {"slurm": {"workers": 2}}}, set()),
        ({"device": "cpu"}, set()),
        ({"if_changed": "keep"}, set()),
    ],
)
def test_a_key_concerns_the_steps_behind_it(given: dict[str, Any], key: dict[str, Any], steps: set[str]) -> None:
    assert changed(digests(given), digests(given | key)) == steps


@pytest.mark.parametrize(
    ("array", "steps"),
    [
        (f"labelled.zarr/{RAW}", {"look own", "evaluate own"} | TRANSFERRED | SEGMENTED),
        (f"labelled.zarr/{LABELS}", {"look own", "evaluate own", "pair", "train_segmenter"} | SEGMENTED),
        (f"other.zarr/{RAW}", {"look b"} | TRANSFERRED | SEGMENTED),
        (f"other.zarr/{LABELS}", set()),
        (f"test.zarr/{RAW}", {"look test", "evaluate own"} | SEGMENTED),
        (f"labelled.zarr/{MASK}", {"look own", "evaluate own", "pair", "train_segmenter"} | SEGMENTED),
        (f"test.zarr/{MASK}", {"look test", "evaluate own"} | SEGMENTED),
    ],
)
def test_an_edit_concerns_the_steps_behind_it(
    given: dict[str, Any], tmp_path: Path, array: str, steps: set[str]
) -> None:
    before, orders = digests(given), TransferOrders(load_transfer_plan(given, ROOT))
    orders.note_inputs()
    assert orders.changed_inputs() == []
    open_volume(tmp_path / array, "r+").array[3, 4, 5] += 1
    assert changed(before, digests(given)) == steps
    assert orders.changed_inputs() == ([str(tmp_path / array)] if steps else [])


@pytest.mark.parametrize("name", ["labelled", "test"])
def test_a_mask_that_comes_later_concerns_them_too(given: dict[str, Any], tmp_path: Path, name: str) -> None:
    mask = tmp_path / f"{name}.zarr" / MASK
    shutil.move(mask, tmp_path / "later")
    before = digests(given)
    shutil.move(tmp_path / "later", mask)
    steps = {"labelled": {"look own", "pair", "train_segmenter"}, "test": {"look test", "evaluate"}}
    assert changed(before, digests(given)) >= steps[name]


@pytest.mark.parametrize("look", ["second_look", None])
def test_a_mask_of_the_test_volume_says_what_is_scored(given: dict[str, Any], look: str | None) -> None:
    plan = load_transfer_plan(given | {"look": look}, ROOT)
    assert plan.mask_option == ["--mask", str(plan.volume("test") / MASK)]
    shutil.rmtree(Path(given["test"]) / MASK)
    assert plan.mask_option == []


def test_a_volume_that_a_stage_made_anew_is_seen(given: dict[str, Any], tmp_path: Path) -> None:
    """A run of the stage that finds nothing to do is none; an edit is seen as well."""
    source, made = Path(given["other"]), tmp_path / "made.zarr"
    told = []
    for gamma in (1.5, 1.5, 2.0):
        degrade(source, made, SecondLook(gamma=gamma))
        told.append(digests(given | {"other": str(made)})["train_transfer"])
    assert told[0] == told[1]
    assert told[1] != told[2]
    open_volume(made / RAW, "r+").array[0, 0, 0] += 1
    assert digests(given | {"other": str(made)})["train_transfer"] != told[2]


def test_arrays_that_networks_name_concern_their_training(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(given)
    monkeypatch.setattr(transfer_orders, "states_named_by", lambda config: {"artifacts": "of another state"})
    assert changed(before, digests(given)) == TRANSFERRED | SEGMENTED | {"evaluate own"}
