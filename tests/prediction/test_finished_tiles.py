"""The record of finished tiles, also one that something else has written to."""

from pathlib import Path

from emsuite.prediction.finished_tiles import TileRecord


def test_numbers_of_all_processes(tmp_path: Path) -> None:
    TileRecord(tmp_path, "done").begin()
    for process, number in (("", 3), ("17", 4), ("18", 5)):
        record = TileRecord(tmp_path, "done").open(process)
        record.add(number)
        record.close()
    assert TileRecord(tmp_path, "done").read() == {3, 4, 5}


def test_lines_that_are_no_numbers_do_not_count(tmp_path: Path) -> None:
    """Their tiles are computed again."""
    lines = [b"1\n", b"x\n", b"\n", b"-4\n", b"2 3\n", b"9" * 5000 + b"\n", b"\xff\xfe\n", b"1e3\n", b"7\n", b"88"]
    (tmp_path / "done.txt").write_bytes(b"".join(lines))
    (tmp_path / "done_folder.txt").mkdir()
    assert TileRecord(tmp_path, "done").read() == {1, 7}


def test_tiles_that_are_not_kept_are_forgotten_in_all_files(tmp_path: Path) -> None:
    for process, numbers in (("", (1, 2)), ("17", (3, 4))):
        record = TileRecord(tmp_path, "done").open(process)
        for number in numbers:
            record.add(number)
        record.close()
    (tmp_path / "done_folder.txt").mkdir()
    TileRecord(tmp_path, "done").keep({4, 1})
    assert TileRecord(tmp_path, "done").read() == {1, 4}
    assert (tmp_path / "done.txt").read_text() == "1\n4\n"
