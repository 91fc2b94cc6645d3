"""Orders: a step's file is newer than its output exactly if the output is not what the plan asks for."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from builders import write_array
from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.outputs import manifest_path, output, unfinished_path
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
    remove(order.outputs[0])
    order.write()
    assert json.loads(order.path.read_text())["because"] == "made: its step was stopped", "nobody has run it since"


def test_an_output_that_somebody_has_removed_is_left_to_snakemake(order: Order) -> None:
    assert not is_newer(order)
    remove(order.outputs[0])
    manifest_path(order.outputs[0]).unlink()
    before = order.path.read_bytes()
    order.write()
    assert order.path.read_bytes() == before


@pytest.mark.parametrize("is_volume", [False, True])
def test_a_step_that_was_stopped_while_it_removed_its_former_output_runs_again(order: Order, is_volume: bool) -> None:
    same = Order(order.asked, order.outputs, is_volume=is_volume)
    assert not is_newer(same)
    remove(order.outputs[0])
    manifest_path(order.outputs[0]).unlink()
    unfinished_path(order.outputs[0]).write_text("{}")
    same.write()
    assert json.loads(order.path.read_text())["because"] == "made: its step was stopped"


def test_a_dry_run_of_other_settings_asks_for_no_output_that_is_gone(order: Order, tmp_path: Path) -> None:
    """Of two outputs one was removed; the other tells that the settings are others, and then the former ones again."""
    both = Order(order.asked, (*order.outputs, tmp_path / "second"))
    with output(tmp_path / "second", {}) as made:
        made.path.mkdir()
    both.write()
    remove(order.outputs[0])
    manifest_path(order.outputs[0]).unlink()
    other = Order('{"x": 2}', both.outputs)
    other.write()
    assert other.is_due
    both.write()
    assert not both.is_due


def test_an_output_that_is_gone_and_its_input_made_anew(chain: list[Order], monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step knows nothing of the first but by the second."""
    assert stale(chain) == []
    for path in (chain[1].outputs[0], manifest_path(chain[1].outputs[0])):
        remove(path)
    Order('{"other": 1}', chain[1].outputs, reads=chain[1].reads).write()  # a dry run of other settings
    make(chain[0], monkeypatch)
    chain[1].write()
    assert json.loads(chain[1].path.read_text())["because"] == "second: made from another first"
    newest = max(manifest_path(chain[step].outputs[0]).stat().st_mtime_ns for step in (0, 2))
    assert chain[1].path.stat().st_mtime_ns >= newest
    make(chain[1], monkeypatch)
    assert stale(chain) == ["third"]
    make(chain[2], monkeypatch)
    assert stale(chain) == []
    assert "because" not in json.loads(chain[1].path.read_text())


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


def test_an_output_without_an_order_is_taken_over_if_it_is_what_is_asked_for(tmp_path: Path) -> None:
    def order(x: int) -> Order:
        return Order(
            f'{{"x": {x}}}', (tmp_path / "made",), is_asked=lambda record: bool(record["settings"] == {"x": x})
        )

    for x, other in ((1, 2), (2, 1)):  # also after the workflow has asked for something
        with output(tmp_path / "made", {"x": x}) as made:
            made.path.write_text("by hand, or by an earlier version")
        assert is_newer(order(other))
        assert not is_newer(order(x))
    assert is_newer(Order("{}", (tmp_path / "made",))), "nothing tells what it is"


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """The orders of three steps, each of which reads what the one before has made."""
    return make_chain(tmp_path, monkeypatch)


def make_chain(folder: Path, monkeypatch: pytest.MonkeyPatch, settings: str = "1") -> list[Order]:
    orders = list[Order]()
    for name in ("first", "second", "third"):
        reads = tuple(order.outputs[0] for order in orders[-1:])
        more = {"after": tuple(orders[-1:]), "reads": reads, "beside": (folder / f"{name}.tsv",)}
        orders.append(Order(f'{{"{name}": {settings}}}', (folder / name,), **more))
        make(orders[-1], monkeypatch)
    return orders


def make(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMSUITE_ORDER", order.digest)
    order.write()
    with output(order.outputs[0], {}, inputs={path.name: path for path in order.reads}) as made:
        made.path.mkdir(exist_ok=True)
    for benchmark in order.beside:
        benchmark.write_text("s")


def stale(chain: list[Order]) -> list[str]:
    """The steps that run: those with an input that is newer than their output, as Snakemake has it."""
    for order in chain:
        order.write()
    written = {order: (manifest_path(order.outputs[0]), *order.beside) for order in chain}
    times = {order: min(file.stat().st_mtime_ns for file in written[order]) for order in chain}
    read = {order: [order.path, *map(manifest_path, order.reads)] for order in chain}
    return [
        order.outputs[0].name for order in chain if any(file.stat().st_mtime_ns > times[order] for file in read[order])
    ]


def test_orders_count_those_before(chain: list[Order], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stale(chain) == []
    other = make_chain(tmp_path / "other", monkeypatch, "2")
    assert chain[2].digest not in (other[2].digest, Order(chain[2].asked, chain[2].outputs).digest)


@pytest.mark.parametrize("reverse", [False, True])
def test_copies_with_times_in_any_order_stay(chain: list[Order], tmp_path: Path, reverse: bool) -> None:
    for number, file in enumerate(sorted(tmp_path.glob("*.*"), reverse=reverse)):
        os.utime(file, (1e9 + number, 1e9 + number))
    assert stale(chain) == []


def test_an_input_that_was_made_anew_counts_whatever_the_times(
    chain: list[Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(chain[1], monkeypatch)  # by the same order
    for file in chain[0].path.parent.glob("*.json"):
        os.utime(file, (1e9, 1e9))
    assert stale(chain) == ["third"]
    assert json.loads(chain[2].path.read_text())["because"] == "third: made from another second"
    make(chain[2], monkeypatch)
    assert stale(chain) == []


def test_an_input_that_is_gone_counts_by_its_order(chain: list[Order], monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (chain[1].outputs[0], manifest_path(chain[1].outputs[0])):
        remove(path)
    os.utime(chain[1].beside[0], (1e9, 1e9))
    chain[1].write()
    newest = manifest_path(chain[0].outputs[0]).stat().st_mtime_ns
    assert chain[1].beside[0].stat().st_mtime_ns >= newest > chain[1].path.stat().st_mtime_ns
    chain[2].write()
    assert not is_newer(chain[2])
    first = Order('{"first": 2}', chain[0].outputs)
    second = Order(chain[1].asked, chain[1].outputs, after=(first,), reads=chain[1].reads)
    assert is_newer(Order(chain[2].asked, chain[2].outputs, after=(second,), reads=chain[2].reads))


@pytest.mark.parametrize(("seconds", "steps"), [(0, []), (100, ["third"])])
def test_records_of_an_earlier_version_tell_what_was_made_later(
    chain: list[Order], monkeypatch: pytest.MonkeyPatch, seconds: int, steps: list[str]
) -> None:
    for order in chain:
        record = manifest_path(order.outputs[0])
        content = json.loads(record.read_text())
        del content["made_from"]
        content["order"] = Order(order.asked, order.outputs).digest
        content["seconds"] += seconds * (order is chain[1])
        record.write_text(json.dumps(content))
    assert stale(chain) == steps


@pytest.mark.parametrize("content", ["[]", "5", "{", '{"provenance": 3}', '{"written": {"sha256": 1}, "order": []}'])
def test_odd_manifests_are_none(order: Order, content: str) -> None:
    manifest_path(order.outputs[0]).write_text(content)
    assert is_newer(order)


def test_a_manifest_of_another_user_is_not_taken_for_none(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    record = manifest_path(order.outputs[0])
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, how: path != record and real(path, how))
    with pytest.raises(PermissionError, match=r"is there and may not be read: .*made\.manifest\.json"):
        order.write()


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
