"""Orders: a step's file is newer than its output exactly if the output is not what the plan asks for."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from builders import write_array
from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path, output
from emsuite.io.fingerprint import seen_arrays
from emsuite.io.volume import LABELS, RAW, open_volume
from emsuite.workflow.orders import Order


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Order:
    """The order of an output that was made by it."""
    order = Order('{"x": 1}', (tmp_path / "made",))
    order.write()
    monkeypatch.setenv("EMSUITE_ORDER", order.digest)
    with output(tmp_path / "made", {}) as made:
        made.path.mkdir()
        (made.path / "table").write_text("content")
    return order


def is_newer(order: Order) -> bool:
    order.write()
    return order.path.stat().st_mtime_ns >= manifest_path(order.outputs[0]).stat().st_mtime_ns


def test_an_output_made_by_the_order_stays(order: Order) -> None:
    assert json.loads(manifest_path(order.outputs[0]).read_text())["order"] == order.digest
    assert not is_newer(order)
    before = order.path.read_bytes()
    assert not is_newer(order)
    assert order.path.read_bytes() == before


def test_a_copy_with_new_times_stays(order: Order) -> None:
    os.utime(order.path)
    assert not is_newer(order)


def test_another_order_is_newer_until_its_output_is_there(order: Order) -> None:
    other = Order('{"x": 2}', order.outputs)
    assert is_newer(other)
    assert json.loads(other.path.read_text())["because"] == "made: made with other settings or inputs"
    assert is_newer(other), "nobody has run the step yet"


def test_a_dry_run_of_other_settings_leaves_the_output_valid(order: Order) -> None:
    Order('{"x": 2}', order.outputs).write()
    assert not is_newer(order)


def test_a_step_that_was_stopped_runs_again_and_one_that_left_nothing_is_left_to_snakemake(order: Order) -> None:
    manifest_path(order.outputs[0]).unlink()
    order.write()
    assert json.loads(order.path.read_text())["because"] == "made: its step was stopped"
    (order.outputs[0] / "table").unlink()
    order.outputs[0].rmdir()
    before = order.path.read_bytes()
    order.write()
    assert order.path.read_bytes() == before


def test_files_that_are_gone_or_of_another_size(order: Order) -> None:
    (order.outputs[0] / "beside").write_text("new")
    assert is_newer(order)
    (order.outputs[0] / "beside").unlink()
    assert not is_newer(order)
    (order.outputs[0] / "table").write_text("longer content")
    assert is_newer(order)
    (order.outputs[0] / "table").unlink()
    assert is_newer(order)
    assert "0 files, of 1 that were written" in json.loads(order.path.read_text())["because"]


def test_files_of_a_volume_are_the_users(order: Order) -> None:
    volume = Order(order.asked, order.outputs, is_volume=True)
    (order.outputs[0] / "table").write_text("edited by hand")
    assert not is_newer(volume)
    assert is_newer(Order('{"x": 2}', order.outputs, is_volume=True))


def test_an_output_without_an_order_is_taken_over(tmp_path: Path) -> None:
    with output(tmp_path / "made", {}) as made:
        made.path.write_text("by hand, or by an earlier version")
    order = Order('{"x": 1}', (tmp_path / "made",))
    assert not is_newer(order)
    assert not is_newer(order)
    assert is_newer(Order('{"x": 2}', order.outputs))
    with output(tmp_path / "made", {"more": 1}) as made:
        made.path.write_text("by hand, after the workflow has asked for something")
    assert is_newer(order)


@pytest.mark.parametrize("content", ["[]", "5", "{", '{"provenance": 3}', '{"written": {"sha256": 1}, "order": []}'])
def test_odd_manifests_are_none(order: Order, content: str) -> None:
    manifest_path(order.outputs[0]).write_text(content)
    assert is_newer(order)


def test_a_folder_that_cannot_be_written_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    order = Order("{}", (tmp_path / "shared/volume.zarr",))
    order.write()
    assert order.files == []
    assert not (tmp_path / "shared").exists()


@pytest.mark.parametrize("edit", ["labels", "own array", None])
def test_a_volume_that_a_user_has_edited_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: str | None
) -> None:
    volume = tmp_path / "v.zarr"
    order = Order('{"seed": 1}', (volume,), is_volume=True)
    monkeypatch.setenv("EMSUITE_ORDER", order.digest)
    with output(volume, {}) as made:
        for name in (RAW, LABELS):
            write_array(volume / name, np.ones((8, 8, 8), np.uint8))
        made.notes["arrays"] = seen_arrays(volume)
    order.write()
    if edit == "labels":
        open_volume(volume / LABELS, "r+").array[2, 3, 4] = 9
    if edit == "own array":
        write_array(volume / "volumes/mine", np.ones((8, 8, 8), np.uint8))
    other = Order('{"seed": 2}', (volume,), is_volume=True)
    if edit is None:
        assert is_newer(other)
    else:
        with pytest.raises(BadInput, match="was edited or added here; move the volume away"):
            other.write()
        assert not is_newer(order), "the former settings again"
