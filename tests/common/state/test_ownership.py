"""Only what this suite wrote itself is replaced: a user's own data may lie where an output once was."""

import json
import os
import shutil
from pathlib import Path

import pytest

from emsuite.common.errors import BadInput
from emsuite.common.files import remove
from emsuite.common.outputs import manifest_path, output
from emsuite.common.state import ownership
from emsuite.common.state.ownership import is_newer, is_own, wrote


def make(path: Path, x: int = 1) -> None:
    with output(path, {"x": x}) as made:
        if path.suffix:
            path.write_text("made")
        else:
            for number in range(3):
                (made.path / "a" / str(number)).parent.mkdir(parents=True, exist_ok=True)
                (made.path / "a" / str(number)).write_text("made " * number)


@pytest.mark.parametrize("name", ["folder", "table.csv"])
@pytest.mark.parametrize("with_manifest", [True, False])
def test_own_data_in_the_place_of_an_output_stay(tmp_path: Path, name: str, with_manifest: bool) -> None:
    path = tmp_path / name
    make(path)
    remove(path)
    if not with_manifest:
        manifest_path(path).unlink()
    (path / "own" if not path.suffix else path).parent.mkdir(exist_ok=True)
    (path / "own" if not path.suffix else path).write_text("my notes")
    with pytest.raises(BadInput, match="holds something else than this suite wrote there"):
        make(path, 2)
    assert "my notes" in (path / "own" if not path.suffix else path).read_text()


@pytest.mark.parametrize("name", ["folder", "table.csv"])
def test_outputs_and_copies_of_them_are_replaced_whatever_was_lost(tmp_path: Path, name: str) -> None:
    make(tmp_path / "from" / name)
    manifest_path(tmp_path / "from" / name).unlink()  # as Snakemake does
    shutil.copytree(tmp_path / "from", tmp_path / "to")
    path = tmp_path / "to" / name
    if not path.suffix:
        (path / "a" / "2").unlink()
    make(path, 2)
    assert json.loads(manifest_path(path).read_text())["settings"] == {"x": 2}


def test_marks_of_earlier_versions_say_nothing(tmp_path: Path) -> None:
    make(tmp_path / "folder")
    (tmp_path / ".folder.emsuite").write_text("")
    (tmp_path / "folder/a/1").write_text("of another size")
    make(tmp_path / "folder", 2)


def test_records_of_many_files_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "_MOST", 8)
    for number in range(40):
        (tmp_path / str(number)).write_text("x" * number)
    record = wrote(tmp_path)
    assert len(record["files"]) == 8
    assert is_own(tmp_path, record)
    for number in range(40):
        (tmp_path / str(number)).write_text("x" * (number + 1))
    assert not is_own(tmp_path, record)


def array(folder: Path) -> None:
    (folder / "c").mkdir(parents=True)
    (folder / "zarr.json").write_text('{"node_type": "array"}')
    (folder / "c/0").write_text("voxels")


def make_array(path: Path, x: int, stop: bool = False) -> None:
    with output(path, {"x": x}) as made:
        made.claim("affs")
        if not (path / "affs").exists():
            array(path / "affs")
        (path / "zarr.json").write_text("{}")
        if stop:
            raise InterruptedError


OWN = ["NOTES.txt", "proofread/c/0", "proofread/zarr.json"]


@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("stopped", [True, False])
def test_a_users_own_inside_an_output_is_named_and_nothing_removed(tmp_path: Path, own: str, stopped: bool) -> None:
    path = tmp_path / "a.zarr"
    if stopped:
        with pytest.raises(InterruptedError):
            make_array(path, 1, stop=True)
    else:
        make_array(path, 1)
    (path / own).parent.mkdir(exist_ok=True, parents=True)
    (path / own).write_text("mine")
    with pytest.raises(BadInput, match=f"holds {own.split('/')[0]}.*, which this suite did not write; move it"):
        make_array(path, 2)
    assert (path / own).read_text() == "mine"
    assert (path / "affs/c/0").exists()


def test_own_data_in_the_place_of_a_stopped_run_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    with pytest.raises(InterruptedError):
        make_array(path, 1, stop=True)
    remove(path)
    array(path / "affs")
    for x in (1, 2):
        with pytest.raises(BadInput, match="holds something else than this suite wrote there"):
            make_array(path, x)
    assert (path / "affs/c/0").exists()


def test_arrays_that_a_user_adds_while_it_is_written_are_not_recorded_as_the_runs(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    with output(path, {"x": 1}) as made:
        made.claim("affs")
        array(path / "affs")
        array(path / "mine")
    assert set(json.loads(manifest_path(path).read_text())["written"]) == {"affs"}
    with pytest.raises(BadInput, match="holds mine"):
        make_array(path, 2)


def test_a_file_of_a_users_own_among_many_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "_MOST", 2)
    make(tmp_path / "folder")
    (tmp_path / "folder/.snakemake_timestamp").touch()
    make(tmp_path / "folder", 2)
    (tmp_path / "folder/NOTES.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"NOTES|something else"):
        make(tmp_path / "folder", 3)
    assert (tmp_path / "folder/NOTES.txt").exists()


@pytest.mark.parametrize("name", ["folder", "plain copy"])
def test_what_is_newer_than_its_record_is_set_aside(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "folder"
    make(path)
    if name == "folder":
        edited = path / "a/2"
        edited.write_text(edited.read_text().upper())  # of the same size
    later = manifest_path(path).stat().st_mtime_ns + 10**9
    os.utime(path / "a/2", ns=(later, later))
    before = {file.name: file.read_text() for file in (path / "a").iterdir()}
    make(path, 2)
    assert {file.name: file.read_text() for file in (tmp_path / "folder.before1/a").iterdir()} == before
    assert f"is kept in {tmp_path / 'folder.before1'}" in caplog.text
    make(path, 3)
    assert not (tmp_path / "folder.before2").exists()


def test_an_edit_among_more_files_than_a_record_holds_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "_MOST", 4)
    for number in range(40):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / str(number)).write_text("made")
    record, written_at = wrote(tmp_path / "folder"), tmp_path / "record"
    written_at.touch()
    later = written_at.stat().st_mtime_ns + 10**6
    for number in range(40):
        own = tmp_path / "folder" / str(number)
        before = own.stat()
        os.utime(own, ns=(later, later))
        assert is_newer(tmp_path / "folder", record, written_at)
        os.utime(own, ns=(before.st_mtime_ns, before.st_mtime_ns))
        assert not is_newer(tmp_path / "folder", record, written_at)
