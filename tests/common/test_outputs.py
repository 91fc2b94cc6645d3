import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emsuite.common import outputs as module
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.files import write_json
from emsuite.common.outputs import (
    check_finished,
    check_whole,
    is_finished,
    lock_path,
    manifest_path,
    output,
    read_json,
    read_manifest,
    unfinished_path,
    unfinished_settings,
)
from killed import MOMENTS, Killed, check_removals, killed_at_rename

SETTINGS = {"threshold": 0.5, "blocks": (1, 2), "path": Path("x")}


class Stopped(Exception):
    """Something that ends a run in the middle."""


def make(path: Path, settings: dict[str, Any] = SETTINGS, parts: int = 2, stop: bool = False) -> bool:
    """Make an output of that many files, or stop half-way; returns whether an earlier run was continued."""
    with output(path, settings, seed=3) as made:
        made.claim()
        there = len(list(path.glob("[0-9]")))
        for part in range(there, parts):
            (path / str(part)).write_text(f"{os.getpid()}")
            if stop:
                raise Stopped
        made.notes["parts"] = parts
    return made.resumed


def stop(path: Path, settings: dict[str, Any] = SETTINGS) -> None:
    with pytest.raises(Stopped):
        make(path, settings, stop=True)


def age(file: Path) -> None:
    """Another content of the same size: what has other sizes is not replaced."""
    file.write_text("o" * file.stat().st_size)


def is_old(file: Path) -> bool:
    return set(file.read_text()) == {"o"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "a.zarr"


def test_a_whole_output_has_a_manifest_with_its_provenance(path: Path) -> None:
    assert not is_finished(path, SETTINGS)
    assert make(path) is False
    manifest = json.loads(manifest_path(path).read_text())
    assert manifest["settings"] == {"threshold": 0.5, "blocks": [1, 2], "path": "x"}
    assert (manifest["seed"], manifest["parts"]) == (3, 2)
    assert manifest["packages"]["python"]
    assert is_finished(path, SETTINGS)
    assert not is_finished(path, SETTINGS | {"threshold": 0.6})
    assert sorted(os.listdir(path.parent)) == [".a.zarr.emsuite", "a.zarr", "a.zarr.manifest.json"]
    check_finished(path / "deep" / "inside")


def test_the_manifest_is_written_last(path: Path) -> None:
    with output(path, SETTINGS):
        path.mkdir()
        assert not manifest_path(path).exists()
        assert unfinished_path(path).exists()


def test_an_exception_leaves_it_unfinished(path: Path) -> None:
    stop(path)
    assert not manifest_path(path).exists()
    assert not is_finished(path, SETTINGS)
    for inside in (path, path / "0"):
        with pytest.raises(BadInput, match=r"a\.zarr: unfinished"):
            check_finished(inside)


def test_the_same_settings_go_on_and_others_start_anew(path: Path) -> None:
    stop(path)
    (path / "0").write_text("by the first run")
    assert make(path) is True
    assert (path / "0").read_text() == "by the first run"
    assert sorted(os.listdir(path)) == ["0", "1"]

    stop(path, {"threshold": 0.6})
    (path / "0").write_text("by another run")
    assert make(path) is False
    assert (path / "0").read_text() != "by another run"


def test_a_whole_output_is_made_anew_and_is_not_whole_meanwhile(path: Path) -> None:
    make(path)
    age(path / "0")
    with output(path, SETTINGS) as made:
        assert not made.resumed
        assert not path.exists()
        assert not manifest_path(path).exists()
        path.mkdir()
    assert is_finished(path, SETTINGS)


def test_what_somebody_else_made_is_not_touched(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "precious").touch()
    with pytest.raises(BadInput, match="was not made by this suite"):
        make(path)
    assert os.listdir(path.parent) == ["a.zarr"]
    assert os.listdir(path) == ["precious"]


def test_an_output_whose_manifest_was_removed_is_made_anew(path: Path) -> None:
    """As Snakemake removes it before it runs a rule again."""
    make(path)
    manifest_path(path).unlink()
    age(path / "0")
    assert make(path) is False
    assert not is_old(path / "0")


def test_an_unreadable_mark_starts_anew(path: Path) -> None:
    stop(path)
    unfinished_path(path).write_text('{"thres')
    (path / "0").write_text("of unknown settings")
    assert make(path) is False
    assert (path / "0").read_text() != "of unknown settings"


def test_a_manifest_of_something_else_does_not_say_it_is_whole(path: Path) -> None:
    make(path)
    for content in ("[1]", "{}", "{", '"text"'):
        manifest_path(path).write_text(content)
        assert not is_finished(path, SETTINGS)


def test_an_output_that_was_deleted_is_not_whole(path: Path) -> None:
    make(path)
    (path / "0").unlink()
    (path / "1").unlink()
    path.rmdir()
    assert not is_finished(path, SETTINGS)
    assert make(path) is False


@pytest.mark.parametrize("killed_in", ["write_json", "remove", "provenance", "unlink"])
def test_killed_at_any_step_it_is_never_whole_by_mistake(
    path: Path, killed_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older, whole output of other settings lies there; the run that replaces it dies at each of its calls."""
    make(path, {"old": True})
    age(path / "0")
    target: Any = Path if killed_in == "unlink" else module
    real = getattr(target, killed_in)
    for survives in range(4):
        calls = iter(range(100))

        def dying(*arguments: Any, calls: Any = calls, survives: int = survives, **extra: Any) -> Any:
            if next(calls) == survives:
                if killed_in == "remove":
                    (path / "0").unlink(missing_ok=True)  # in the middle of it
                raise Stopped
            return real(*arguments, **extra)

        monkeypatch.setattr(target, killed_in, dying)
        try:
            make(path)
            survived = True
        except Stopped:
            survived = False
        monkeypatch.setattr(target, killed_in, real)
        if not survived and is_finished(path, {"old": True}):
            assert sorted(os.listdir(path)) == ["0", "1"], "the old one is whole, or is not called so"
        assert survived or not is_finished(path, SETTINGS) or sorted(os.listdir(path)) == ["0", "1"]
    make(path)
    assert is_finished(path, SETTINGS)
    assert sorted(os.listdir(path)) == ["0", "1"]
    assert not is_old(path / "0")
    assert not unfinished_path(path).exists()


def test_a_killed_process_leaves_it_unfinished_and_another_goes_on(path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from emsuite.common.outputs import output
path = Path({str(path)!r})
with output(path, {{"threshold": 0.5}}) as made:
    made.claim()
    (path / "0").write_text("by the killed run")
    print("ready", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    with pytest.raises(BadInput, match="unfinished"):
        check_finished(path)
    assert make(path, {"threshold": 0.5}) is True
    assert (path / "0").read_text() == "by the killed run"
    check_finished(path)


def test_reading_json(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none.json") is None
    (tmp_path / "a.json").write_bytes(b"\xff{")
    assert read_json(tmp_path / "a.json") is None
    (tmp_path / "a.json").write_text('{"a": [1]}')
    assert read_json(tmp_path / "a.json") == {"a": [1]}


@pytest.mark.parametrize(
    "text", ["[]", "5", "null", '"a"', "{", "[" * 100_000, '{"settings": 3}', '{"settings": null}']
)
def test_json_that_is_no_manifest(path: Path, text: str) -> None:
    """Such an output is not whole, and a run of it starts anew."""
    path.mkdir(parents=True, exist_ok=True)
    manifest_path(path).write_text(text)
    unfinished_path(path).write_text(text)
    assert read_manifest(path, settings=dict) == {}
    assert not is_finished(path, {"a": 1})
    with output(path, {"a": 1}) as made:
        path.mkdir(parents=True, exist_ok=True)
    assert not made.resumed
    assert is_finished(path, {"a": 1})
    assert read_manifest(path, settings=dict, seconds=float)["settings"] == {"a": 1}
    assert read_manifest(path, settings=str) == {}


def test_a_continued_output_keeps_no_half_written_chunks(tmp_path: Path) -> None:
    stop(tmp_path / "x")
    chunk = tmp_path / "x" / "c" / "0.1f.partial"
    chunk.parent.mkdir()
    chunk.write_text("half")
    with output(tmp_path / "x", SETTINGS) as made:
        assert made.resumed
        assert not chunk.exists()


def test_an_output_may_not_hold_its_own_input(tmp_path: Path) -> None:
    make(tmp_path / "volume.zarr")  # made by this suite, so that it may be replaced by it
    raw = tmp_path / "volume.zarr" / "0"
    for place in (tmp_path / "volume.zarr", tmp_path / "x" / ".." / "volume.zarr", raw):
        with (
            pytest.raises(BadInput, match=r"holds .*, the raw it would be made from"),
            output(place, {}, inputs={"raw": raw}),
        ):
            pass
    assert raw.exists()
    with output(tmp_path / "volume.zarr.other", {}, inputs={"raw": raw}):
        (tmp_path / "volume.zarr.other").mkdir()


def test_one_run_at_a_time(path: Path) -> None:
    """The second is told who writes, and touches nothing."""
    script = """
import sys
from pathlib import Path
from emsuite.common.outputs import output
path = Path(sys.argv[1])
with output(path, {"threshold": 0.5}):
    path.mkdir()
    (path / "0").write_text("0.5")
    print("ready", flush=True)
    input()
"""
    command = [sys.executable, "-c", script, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for settings in ({"threshold": 0.5}, {"threshold": 0.6}):
            with pytest.raises(BadInput, match=rf"a\.zarr: another run is writing it \(process {process.pid} on"):
                make(path, settings)
        process.communicate("\n")
    assert process.returncode == 0
    assert is_finished(path, {"threshold": 0.5})
    assert (path / "0").read_text() == "0.5"
    assert sorted(os.listdir(path.parent)) == [".a.zarr.emsuite", "a.zarr", "a.zarr.manifest.json"]


@pytest.mark.parametrize("how", ["lock", "unfinished", "both"])
def test_no_manifest_over_the_work_of_another_run(path: Path, how: str) -> None:
    """As after a stop of minutes, in which another machine took the output over."""

    def lose() -> None:
        with output(path, SETTINGS):
            path.mkdir()
            if how != "unfinished":
                lock_path(path).unlink()
            if how != "lock":
                write_json(unfinished_path(path), {"run": "another", "settings": {}})

    with pytest.raises(RunFailed, match=r"a\.zarr: another run has"):
        lose()
    assert not manifest_path(path).exists()


def test_a_continued_output_keeps_the_id_of_its_run(path: Path) -> None:
    runs = []
    for settings in (SETTINGS, SETTINGS, {"other": True}):
        with contextlib.suppress(Stopped), output(path, settings) as made:
            path.mkdir(exist_ok=True)
            runs.append(made.run)
            raise Stopped
    assert runs[0] == runs[1] != runs[2]
    assert unfinished_settings(path) == {"other": True}


def test_an_output_that_an_earlier_version_left_unfinished_is_continued(path: Path) -> None:
    path.mkdir(parents=True)
    write_json(unfinished_path(path), {"threshold": 0.5})
    with output(path, {"threshold": 0.5}) as made:
        assert made.resumed
        assert made.run == ""
    assert is_finished(path, {"threshold": 0.5})


def test_what_a_killed_run_left_beside_it_is_removed(path: Path) -> None:
    stop(path)
    leftover = path.with_name(".a.zarr.manifest.json.0123abcd.part")
    other = path.with_name(".b.zarr.manifest.json.0123abcd.part")
    leftover.touch()
    other.touch()
    make(path)
    assert not leftover.exists()
    assert other.exists()


def arrays(folder: Path) -> None:
    """Two arrays as zarr 3 and zarr 2 store them, and a file beside."""
    for name, document in (("a/affs", "zarr.json"), ("a/lsds", ".zarray")):
        (folder / name / "c").mkdir(parents=True)
        (folder / name / document).write_text('{"node_type": "array"}')
        (folder / name / "c/0").write_text("voxels")
        (folder / name / "c/1").write_text("voxels")
    (folder / "zarr.json").write_text('{"node_type": "group"}')


def test_an_output_that_has_lost_a_file_is_refused_and_files_beside_do_not_matter(path: Path) -> None:
    with output(path, {}) as made:
        arrays(made.path)
    check_whole(path / "a/affs")
    (path / "a/notes.txt").write_text("of a user")
    (path / "zarr.json").write_text('{"node_type": "group", "attributes": {}}')
    check_whole(path)
    (path / "a/lsds/c/1").unlink()
    with pytest.raises(BadInput, match=r"a/lsds: 2 files, of 3 that were written; remove .*manifest\.json beside it"):
        check_whole(path / "a/affs")


def test_a_chunk_of_another_size_is_refused(path: Path) -> None:
    with output(path, {}) as made:
        arrays(made.path)
    (path / "a/affs/c/1").write_text("vox")
    with pytest.raises(BadInput, match="a/affs: files of other sizes"):
        check_whole(path)


def test_volumes_are_edited(path: Path) -> None:
    with output(path, {}) as made:
        arrays(made.path)
        made.notes["arrays"] = {}
    (path / "a/affs/c/1").unlink()
    check_whole(path)


def test_a_file_counts_by_its_content(path: Path) -> None:
    with output(path, {}) as made:
        made.path.write_text("content")
    os.utime(path)
    check_whole(path)
    path.write_text("another")
    with pytest.raises(BadInput, match="holds something else than was written"):
        check_whole(path)


def test_files_beside_containers_count_by_their_content(tmp_path: Path) -> None:
    """As the split.json of a preprocessed plate, which an edit of the same length changes."""
    path = tmp_path / "ready"
    with output(path, {}) as made:
        arrays(made.path / "plate.zarr")
        (made.path / "split.json").write_text('["A/1/6"]')
    (path / "notes.txt").write_text("of a user")
    assert is_finished(path, {})
    (path / "split.json").write_text('["A/1/9"]')
    assert not is_finished(path, {})
    check_whole(path, is_edited=True)
    (path / "split.json").unlink()
    with pytest.raises(BadInput, match=r"split.json: is gone; remove ready\.manifest\.json"):
        check_whole(path, is_edited=True)


@pytest.mark.parametrize("written", [None, [], 5, {"affs": 3}, {"sha256": 3}, {"affs": {"sha256": 3}}])
def test_odd_records_do_not_end_in_a_traceback(path: Path, written: Any) -> None:
    path.mkdir(parents=True)
    write_json(path.with_name(path.name + ".manifest.json"), {"written": written})
    with contextlib.suppress(BadInput):
        check_whole(path)


def test_an_array_whose_own_copy_is_unfinished_is_unfinished(tmp_path: Path) -> None:
    array = tmp_path / "cube.zarr/volumes/raw"
    array.mkdir(parents=True)
    check_finished(array)
    unfinished_path(tmp_path / "cube.zarr.volumes.raw").write_text("{}")
    with pytest.raises(BadInput, match=r"cube.zarr.volumes.raw: unfinished"):
        check_finished(array)
    check_finished(tmp_path / "cube.zarr/volumes/labels")
    unfinished_path(tmp_path / "cube.zarr.volumes.labels_levels").write_text("{}")
    with pytest.raises(BadInput, match=r"cube.zarr.volumes.labels_levels: unfinished"):
        check_finished(tmp_path / "cube.zarr/volumes/labels_levels/1")


def test_an_output_that_has_lost_a_file_is_not_finished(path: Path) -> None:
    with output(path, SETTINGS) as made:
        arrays(made.path)
    (path / "notes.txt").write_text("of a user")
    assert is_finished(path, SETTINGS)
    (path / "a/lsds/c/1").unlink()
    assert not is_finished(path, SETTINGS)


@pytest.mark.parametrize("lost", ["split.json", "a"])
def test_a_folder_of_the_suite_alone_that_has_lost_a_file_beside_its_arrays_is_not_finished(
    path: Path, lost: str
) -> None:
    with output(path, SETTINGS) as made:
        made.claim()
        arrays(made.path)
        (path / "split.json").write_text("{}")
        made.everything = True
    (path / "split.json").write_text('{"edited": 1}')
    assert is_finished(path, SETTINGS)
    (path / "split.json").write_text("{}")
    (path / lost).rename(path.with_name("elsewhere"))
    assert not is_finished(path, SETTINGS)
    with output(path, SETTINGS) as made:
        assert not made.resumed


def test_a_volume_that_was_edited_is_finished(path: Path) -> None:
    with output(path, SETTINGS) as made:
        arrays(made.path)
        made.notes["arrays"] = {"a/affs": {}}
    (path / "a/affs/c/1").unlink()
    assert is_finished(path, SETTINGS)


def test_what_users_may_edit_is_whole_unless_files_are_gone(path: Path) -> None:
    with output(path, {}) as made:
        arrays(made.path)
    (path / "a/affs/c/1").write_text("edited by hand")
    check_whole(path, is_edited=True)
    (path / "a/affs/c/0").unlink()
    with pytest.raises(BadInput, match="a/affs: 2 files, of 3 that were written"):
        check_whole(path, is_edited=True)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("earlier", ["folder", "file", "nothing"])
def test_a_kill_in_any_removal_changes_nothing(tmp_path: Path, moment: str, earlier: str) -> None:
    """A run that ends with a file in the place of its folder, over an output of other settings."""

    def run(folder: Path) -> None:
        out = folder / "out"
        if earlier != "nothing" and not list(folder.iterdir()):
            with output(out, {"other": True}) as made:
                made.clear()
                write_json(out / "part", 1)
                if earlier == "file":
                    write_json(made.file, 0)
                    made.become_file()
        with output(out, SETTINGS) as made:
            if not made.resumed:
                made.clear()
            for part in ("a", "b"):
                write_json(out / part, part)
            write_json(made.file, ["a", "b"])
            made.become_file()
        assert is_finished(out, SETTINGS)

    check_removals(run, tmp_path, 1, moment)


@pytest.mark.parametrize("number", range(12))
def test_a_kill_at_any_rename_of_a_run_that_ends_with_a_file_is_no_end(path: Path, number: int) -> None:
    def run() -> None:
        with output(path, SETTINGS) as made:
            if not made.resumed:
                made.clear()
            write_json(path / "a", "a")
            write_json(made.file, ["a"])
            made.become_file()

    with killed_at_rename(number), contextlib.suppress(Killed):
        run()
    run()
    assert is_finished(path, SETTINGS)
    assert json.loads(path.read_text()) == ["a"]
