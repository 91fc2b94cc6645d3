"""Large objects in ranges: faults, kills and changes, with ranges so small that the objects need not be large."""

from dataclasses import replace
from pathlib import Path

import pytest

from emsuite.download import resumable
from emsuite.download.object_store import StoredObject
from emsuite.download.resumable import PartialFile, byte_ranges

OBJECT = StoredObject("net/data", "data", 10, "0" * 32)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "RANGE_BYTES", 4)


def test_byte_ranges_on_paper() -> None:
    assert byte_ranges(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert byte_ranges(8, 4) == [(0, 4), (4, 8)]
    assert byte_ranges(3, 4) == [(0, 3)]
    assert byte_ranges(0, 4) == []


def test_a_partial_file_grows_and_gets_its_final_name(tmp_path: Path) -> None:
    path = tmp_path / "net/data"
    part = PartialFile(path, OBJECT)
    assert not part.can_continue()
    assert (part.missing_ranges(), part.bytes_done()) == ([(0, 4), (4, 8), (8, 10)], 0)
    assert list(tmp_path.iterdir()) == []
    part.begin()
    with open(part.bytes_path, "r+b") as file:
        file.seek(4)
        file.write(b"4567")
    part.mark_done((4, 8))
    assert not path.exists()
    again = PartialFile(path, OBJECT)
    again.begin()
    assert (again.missing_ranges(), again.bytes_done()) == ([(0, 4), (8, 10)], 4)
    with open(part.bytes_path, "r+b") as file:
        file.write(b"0123")
        file.seek(8)
        file.write(b"89")
    again.mark_done((8, 10))
    again.mark_done((0, 4))
    assert (again.missing_ranges(), again.bytes_done()) == ([], 10)
    again.finish()
    assert path.read_bytes() == b"0123456789"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "other",
    [
        StoredObject("net/data", "data", 10, "1" * 32),
        StoredObject("net/data", "data", 11, "0" * 32),
        StoredObject("old/data", "data", 10, "0" * 32),
    ],
)
def test_a_partial_file_belongs_to_one_object(tmp_path: Path, other: StoredObject) -> None:
    PartialFile(tmp_path / "data", OBJECT).begin()
    assert PartialFile(tmp_path / "data", OBJECT).can_continue()
    assert not PartialFile(tmp_path / "data", other).can_continue()


def test_a_partial_file_belongs_to_one_size_of_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nine = replace(OBJECT, size=9)  # three ranges of four bytes at most, and also of three
    PartialFile(tmp_path / "data", nine).begin()
    monkeypatch.setattr(resumable, "RANGE_BYTES", 3)
    assert not PartialFile(tmp_path / "data", nine).can_continue()


@pytest.mark.parametrize("spoil", ["no record", "short record", "no bytes", "fewer bytes", "a link"])
def test_inconsistent_partial_files_are_replaced(tmp_path: Path, spoil: str) -> None:
    part = PartialFile(tmp_path / "data", OBJECT)
    part.begin()
    part.mark_done((0, 4))
    if spoil == "no record":
        part.ranges_path.unlink()
    elif spoil == "short record":
        part.ranges_path.write_bytes(b"\1")
    elif spoil == "no bytes":
        part.bytes_path.unlink()
    elif spoil == "fewer bytes":
        part.bytes_path.write_bytes(b"0123")
    else:
        part.bytes_path.unlink()
        (tmp_path / "elsewhere").write_bytes(b"hands off!")
        part.bytes_path.symlink_to(tmp_path / "elsewhere")
    assert part.bytes_done() == 0
    part.begin()
    assert part.can_continue()
    assert not part.bytes_path.is_symlink()
    assert part.missing_ranges() == [(0, 4), (4, 8), (8, 10)]


def test_discarding_removes_all_files(tmp_path: Path) -> None:
    part = PartialFile(tmp_path / "data", OBJECT)
    part.begin()
    part.discard()
    part.discard()
    assert list(tmp_path.iterdir()) == []
