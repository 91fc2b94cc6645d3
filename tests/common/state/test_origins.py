"""Manifests name the runs that made their inputs; an input that is replaced while it is read yields no manifest."""

import json
import os
import shutil
from pathlib import Path

import pytest

from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path, output
from emsuite.common.state.origins import Reading, ended, identity, identity_of, made_from, record_of


def make(path: Path, text: str = "made") -> None:
    with output(path, {}) as made:
        (made.path if path.suffix == ".pt" else made.path / "a").parent.mkdir(parents=True, exist_ok=True)
        (made.path if path.suffix == ".pt" else made.path / "a").write_text(text)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make(tmp_path / "source.zarr")
    return tmp_path / "source.zarr"


@pytest.mark.parametrize("replace", ["made anew", "being made"])
def test_an_input_that_is_replaced_while_it_is_read(source: Path, tmp_path: Path, replace: str) -> None:
    out = tmp_path / "out"

    def read() -> None:
        with output(out, {}, inputs={"affs": source / "a"}) as made:
            made.path.mkdir()
            if replace == "made anew":
                make(source)
            else:  # as a run does that begins to write it
                manifest_path(source).unlink()

    with pytest.raises(BadInput, match="was replaced or edited while it was read"):
        read()
    assert not manifest_path(out).exists()
    with output(out, {}, inputs={"affs": source / "a"}) as made:
        assert not made.resumed, "what was made from two inputs is not continued"


@pytest.mark.parametrize("is_file", [True, False])
@pytest.mark.parametrize("change", ["edited", "removed", "added"])
def test_own_inputs_that_change_while_they_are_read(tmp_path: Path, is_file: bool, change: str) -> None:
    own = tmp_path / ("own.h5" if is_file else "own.zarr/c/0")
    own.parent.mkdir(exist_ok=True, parents=True)
    own.write_text("voxels")
    reading = Reading.of({"raw": own / "raw" if is_file else own.parents[1]})
    reading.check()
    if change == "added":  # by a copy that is under way
        (own.parent / "1").write_text("voxels")
    else:
        own.write_text("VOXELS") if change == "edited" else own.unlink()
    if change == "added" and is_file:
        return reading.check()
    os.utime(own, (1e9, 1e9)) if change == "edited" else None
    with pytest.raises(BadInput, match="was replaced or edited while it was read"):
        reading.check()


@pytest.mark.parametrize("group", [(".zgroup", "{}"), ("zarr.json", '{"node_type": "group"}')])
def test_a_group_may_get_further_arrays(tmp_path: Path, group: tuple[str, str]) -> None:
    (tmp_path / "v.zarr/raw/c").mkdir(parents=True)
    (tmp_path / "v.zarr" / group[0]).write_text(group[1])
    (tmp_path / "v.zarr/raw/c/0").write_text("voxels")
    reading = Reading.of({"volume": tmp_path / "v.zarr"})
    (tmp_path / "v.zarr/raw/c/mask").write_text("1")
    reading.check()


def test_inputs_with_a_record_that_are_edited_while_they_are_read(source: Path, tmp_path: Path) -> None:
    def read() -> None:
        with output(tmp_path / "out", {}, inputs={"raw": source / "a"}) as made:
            made.path.mkdir()
            (source / "a").write_text("MADE")
            os.utime(source / "a", (1e9, 1e9))

    with pytest.raises(BadInput, match="was replaced or edited while it was read"):
        read()
    assert not manifest_path(tmp_path / "out").exists()


def test_manifests_name_the_runs_of_their_inputs(source: Path, tmp_path: Path) -> None:
    with output(tmp_path / "out", {}, inputs={"affs": source / "a", "own": tmp_path / "nothing"}):
        pass
    told = json.loads(manifest_path(tmp_path / "out").read_text())["made_from"]
    assert told == {"affs": identity(manifest_path(source))}
    assert made_from({"affs": source}) == told
    make(source)
    assert made_from({"affs": source}) != told, "another run, of the same content"


def test_copies_have_the_identity_of_what_they_were_copied_from(source: Path, tmp_path: Path) -> None:
    shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}_copy")
    copy = tmp_path.parent / f"{tmp_path.name}_copy" / source.name
    os.utime(manifest_path(copy), (1e9, 1e9))
    assert made_from({"x": copy}) == made_from({"x": source})


def test_files_are_told_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_2.pt"
    make(path)
    before = identity(manifest_path(path))
    make(path)
    assert identity(manifest_path(path)) == before
    make(path, "others")
    assert identity(manifest_path(path)) != before


def test_arrays_that_were_copied_into_a_container_have_records_of_their_own(source: Path, tmp_path: Path) -> None:
    record = tmp_path / "source.zarr.volumes.raw.manifest.json"
    record.write_text("{}")
    assert record_of(source / "volumes/raw") == record
    assert record_of(source / "volumes/labels") == manifest_path(source)
    assert record_of(tmp_path / "nothing") is None
    assert record_of(tmp_path / "scores.json") == tmp_path / "scores.json"


def test_the_end_of_a_run_is_counted_from_its_record() -> None:
    assert ended({"started": "1970-01-01T00:01:00Z", "seconds": 2.5}) == 62.5
    for odd in ({}, {"started": "yesterday", "seconds": 1}, {"started": "1970-01-01T00:01:00Z", "seconds": "1"}):
        assert ended(odd) is None


def test_a_file_is_told_by_its_content_with_and_without_its_record(tmp_path: Path) -> None:
    weights = tmp_path / "a.pt"
    assert identity_of(weights) is None
    make(weights)
    of_record = identity_of(weights)
    assert of_record == identity(manifest_path(weights))
    manifest_path(weights).rename(tmp_path / "kept")
    assert identity_of(weights) == of_record
    weights.write_text("others")
    of_others = identity_of(weights)
    assert of_others not in (None, of_record)
    (tmp_path / "kept").rename(manifest_path(weights))
    assert identity_of(weights) == of_others, "put in the place of the recorded one"
    weights.unlink()
    assert identity_of(weights) == of_record, "removed by its user, who keeps the record"
