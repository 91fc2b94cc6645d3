"""Large objects in ranges: faults, kills and changes, with ranges so small that the objects need not be large."""

from dataclasses import replace
from pathlib import Path

import pytest

from emsuite.download import resumable as partial
from emsuite.download.object_store import StoredObject
from emsuite.download.resumable import Partial, byte_ranges

OBJECT = StoredObject("net/data", "data", 10, "0" * 32)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "RANGE", 4)


def test_ranges_on_paper() -> None:
    assert byte_ranges(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert byte_ranges(8, 4) == [(0, 4), (4, 8)]
    assert byte_ranges(3, 4) == [(0, 3)]
    assert byte_ranges(0, 4) == []


def test_grows_and_takes_its_name(tmp_path: Path) -> None:
    path = tmp_path / "net/data"
    part = Partial(path, OBJECT)
    assert not part.is_there()
    assert (part.missing(), part.bytes_there()) == ([(0, 4), (4, 8), (8, 10)], 0)
    assert list(tmp_path.iterdir()) == []
    part.begin()
    with open(part.part, "r+b") as file:
        file.seek(4)
        file.write(b"4567")
    part.mark_done((4, 8))
    assert not path.exists()
    again = Partial(path, OBJECT)
    again.begin()
    assert (again.missing(), again.bytes_there()) == ([(0, 4), (8, 10)], 4)
    with open(part.part, "r+b") as file:
        file.write(b"0123")
        file.seek(8)
        file.write(b"89")
    again.mark_done((8, 10))
    again.mark_done((0, 4))
    assert (again.missing(), again.bytes_there()) == ([], 10)
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
def test_belongs_to_one_object(tmp_path: Path, other: StoredObject) -> None:
    Partial(tmp_path / "data", OBJECT).begin()
    assert Partial(tmp_path / "data", OBJECT).is_there()
    assert not Partial(tmp_path / "data", other).is_there()


def test_belongs_to_one_size_of_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nine = replace(OBJECT, size=9)  # three ranges of four bytes at most, and also of three
    Partial(tmp_path / "data", nine).begin()
    monkeypatch.setattr(partial, "RANGE", 3)
    assert not Partial(tmp_path / "data", nine).is_there()


@pytest.mark.parametrize("spoil", ["no record", "short record", "no bytes", "fewer bytes", "a link"])
def test_what_does_not_fit_together_begins_anew(tmp_path: Path, spoil: str) -> None:
    part = Partial(tmp_path / "data", OBJECT)
    part.begin()
    part.mark_done((0, 4))
    if spoil == "no record":
        part.record.unlink()
    elif spoil == "short record":
        part.record.write_bytes(b"\1")
    elif spoil == "no bytes":
        part.part.unlink()
    elif spoil == "fewer bytes":
        part.part.write_bytes(b"0123")
    else:
        part.part.unlink()
        (tmp_path / "elsewhere").write_bytes(b"hands off!")
        part.part.symlink_to(tmp_path / "elsewhere")
    assert part.bytes_there() == 0
    part.begin()
    assert part.is_there()
    assert not part.part.is_symlink()
    assert part.missing() == [(0, 4), (4, 8), (8, 10)]


def test_discarded(tmp_path: Path) -> None:
    part = Partial(tmp_path / "data", OBJECT)
    part.begin()
    part.discard()
    part.discard()
    assert list(tmp_path.iterdir()) == []
