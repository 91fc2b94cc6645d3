import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emsuite.common.errors import of_file_system
from emsuite.common.files import (
    atomic_path,
    file_of,
    is_there,
    naming,
    remove,
    remove_parts_below,
    sha256,
    shows_locks_everywhere,
    write_json,
    write_text,
)
from killed import MOMENTS, Killed, killed


def half_write(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError


def test_the_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.bin"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent, "a rename must not cross file systems"
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file.bin"]


def test_what_was_there_stays_until_then(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError):
        half_write(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]
    write_text(path, "new ä")
    assert path.read_text(encoding="utf-8") == "new ä"


def test_a_failing_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        half_write(tmp_path / "file")
    assert os.listdir(tmp_path) == []


def test_a_block_that_writes_nothing_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_killed_process_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    script = f"""
import time
from pathlib import Path
from emsuite.common.files import atomic_path
with atomic_path(Path({str(path)!r})) as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    assert path.read_text() == "old"
    assert [name for name in os.listdir(tmp_path) if not name.startswith(".")] == ["file.txt"]


def test_json_keeps_its_order_and_writes_paths_as_text(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"z": 1, "a": [Path("x/y"), None]})
    assert (tmp_path / "a.json").read_text().endswith("}\n")
    assert list(json.loads((tmp_path / "a.json").read_text()).items()) == [("z", 1), ("a", ["x/y", None])]


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_remove_takes_files_folders_and_links_but_not_what_they_point_to(tmp_path: Path) -> None:
    folder, file, link = tmp_path / "folder", tmp_path / "file", tmp_path / "link"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").touch()
    link.symlink_to(folder)
    remove(link)
    assert (folder / "deep" / "file").exists()
    file.touch()
    for path in (file, folder, tmp_path / "never there"):
        remove(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", [OSError, io.UnsupportedOperation])
def test_errors_of_libraries_keep_their_text(kind: type[OSError]) -> None:
    with pytest.raises(OSError) as told, naming(Path("out/made")):
        raise kind("Can't read data (inflate() failed)")
    assert of_file_system(told.value)[0] == "out/made: Can't read data (inflate() failed)"
    with pytest.raises(InterruptedError), naming(Path("out/made")):
        raise InterruptedError


def test_a_path_may_lead_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "cube.h5").touch()
    assert file_of(tmp_path / "cube.h5") == file_of(tmp_path / "cube.h5/volumes/raw") == tmp_path / "cube.h5"
    assert file_of(tmp_path) is file_of(tmp_path / "gone.h5/raw") is None
    there = ("", "cube.h5", "cube.h5/volumes/raw", "gone.h5", "gone.h5/raw")
    assert [is_there(tmp_path / name) for name in there] == [True, True, True, False, False]


def test_errors_without_a_name_get_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left on device: 'made'"), naming(Path("made")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(FileNotFoundError, match="nowhere"), naming(Path("made")):
        (tmp_path / "nowhere").read_text()


def test_errors_of_a_file_that_grows_name_the_file(tmp_path: Path) -> None:
    made = tmp_path / "made"
    with pytest.raises(PermissionError) as told, atomic_path(made) as temporary:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(temporary))
    assert told.value.filename == str(made)
    made.mkdir()
    with pytest.raises(IsADirectoryError) as told, atomic_path(made) as temporary:
        temporary.touch()
    assert (told.value.filename, told.value.filename2) == (str(made), None)


MOUNTS = """\
22 1 0:20 / / rw,relatime - ext4 /dev/vda rw
30 22 0:21 / /home rw,relatime shared:5 - {} server:/home {}
"""


@pytest.mark.parametrize(
    ("kind", "options", "reaches"),
    [
        ("nfs4", "rw,vers=4.2,local_lock=none", True),
        ("nfs", "rw,vers=3,nolock", False),
        ("nfs", "rw,vers=3,local_lock=flock", False),
        ("lustre", "rw,flock", True),
        ("lustre", "rw,localflock", False),
        ("ceph", "rw", True),
        ("fuse.sshfs", "rw", False),
        ("ext4", "rw", False),
    ],
)
def test_mounts_say_whether_all_machines_see_locks(
    kind: str, options: str, reaches: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read_text = Path.read_text
    monkeypatch.setattr(os, "stat", lambda _path: os.stat_result((0, 0, os.makedev(0, 21), *[0] * 7)))
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self, **more: MOUNTS.format(kind, options) if self.name == "mountinfo" else read_text(self, **more),
    )
    found = shows_locks_everywhere(tmp_path)
    monkeypatch.undo()
    assert found is reaches


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_folder_is_removed_all_at_once(tmp_path: Path, moment: str) -> None:
    folder = tmp_path / "folder"
    for name in (".mark", "a", "b/c"):
        write_text(folder / name, name)
    with killed(0, moment), pytest.raises(Killed):
        remove(folder)
    if moment == "before":
        assert sorted(path.name for path in folder.rglob("*")) == [".mark", "a", "b", "c"]
    else:
        assert not folder.exists(), "half of a folder is never seen"
    write_text(folder / "new", "")
    remove(folder)
    assert os.listdir(tmp_path) == [], "what the kill left goes with the next removal"


def test_what_is_half_removed_below_a_folder_goes(tmp_path: Path) -> None:
    for name in ("a/.x.emsuite.removed/zarr.json", "a/.y.1a2b3c4d.part", "a/zarr.1.partial", "a/kept"):
        write_text(tmp_path / name, "")
    remove_parts_below(tmp_path)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["a", "kept"]
