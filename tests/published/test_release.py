"""Results are published without what tells of user and machine, and stay results."""

import json
import os
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from builders import files_in
from emsuite.common.errors import BadInput
from emsuite.common.files import write_json
from emsuite.common.outputs import check_finished, is_finished, output
from emsuite.common.provenance import provenance
from emsuite.published.release import release
from emsuite.training import checkpoint as checkpoints
from emsuite.training.log import TrainingLog

TELLING = ("jane", "hunter2", "private")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of every kind in a folder `release`, made on the host `host-of-jane` from files in `home/jane`."""
    monkeypatch.setattr("socket.gethostname", lambda: "host-of-jane")
    monkeypatch.setattr("sys.argv", ["x.py", "--raw", f"{tmp_path}/home/jane/v.zarr/raw"])
    folder, raw = tmp_path / "release", tmp_path / "home/jane/v.zarr/raw"
    with output(folder / "p.zarr", {"threshold": 1}, inputs={"raw": raw}):
        (folder / "p.zarr").mkdir()
    record = provenance({"raw": str(raw)}, {"raw": raw})
    write_json(folder / "v.zarr.masks.json", record)
    write_json(folder / "scores.json", {"threshold": 0.5, "provenance": record})
    made = checkpoints.Checkpoint(iteration=3, architecture={}, networks={"network": {"w": torch.ones(2)}},
                                  provenance=record)  # fmt: skip
    checkpoints.save(folder, made)
    old = record | {"machine": {"host": "host-of-jane", "cpus": 2, "gpu": None}}
    whole = {"format": 2} | made.__dict__ | {"iteration": 4, "provenance": old}
    torch.save(whole, folder / "checkpoints/checkpoint_4.pt")
    write_json(folder / "p.zarr.order.json", {"raw": str(raw)})
    log = TrainingLog(folder, [], 0)
    log.add(1, {"loss": 0.5})
    log.close()
    return folder


def test_nothing_tells_of_user_and_machine(results: Path) -> None:
    before = files_in(results)
    assert any(word.encode() in content for content in before.values() for word in TELLING)
    changed, unclean = release(results)
    assert len(changed) == 7
    assert unclean == []
    after = files_in(results)
    for name, content in after.items():
        assert [word for word in TELLING if word in name or word.encode() in content] == [], name
    kept = before.keys() - {"p.zarr.order.json"}
    assert {name.replace("host-of-jane", "host") for name in kept} == set(after)
    assert release(results) == ([], [])


def test_the_results_stay_results(results: Path) -> None:
    release(results)
    check_finished(results / "p.zarr")
    assert is_finished(results / "p.zarr", {"threshold": 1})
    assert json.loads((results / "scores.json").read_text())["threshold"] == 0.5
    for iteration in (3, 4):
        read = checkpoints.read(results / f"checkpoints/checkpoint_{iteration}.pt")
        assert torch.equal(read.weights["w"], torch.ones(2))
        assert read.provenance["settings"] == {"raw": "v.zarr/raw"}
    board = EventAccumulator(str(results / "log"))
    board.Reload()
    assert board.Tags()["scalars"] == ["loss"]


def test_texts_that_cannot_be_cleaned_are_named(results: Path) -> None:
    for name, text in {"train.log": "on host-of-jane.", "a.html": f"<td>{os.getcwd()}/x</td>", "b.csv": "1,2"}.items():
        (results / name).write_text(text)
    assert [path.name for path in release(results)[1]] == ["a.html", "train.log"]


def test_what_is_no_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="none: no such folder; expected a copy of results"):
        release(tmp_path / "none")
