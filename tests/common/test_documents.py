"""Texts and JSON that people and programs leave behind."""

import os
from pathlib import Path

import pytest

from emsuite.common.documents import read_json, read_text
from emsuite.common.errors import BadInput


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": ' * 100_000, "1" * 5000, "\udcff", "nul", "{'a': 1}"])
def test_json_that_is_none(tmp_path: Path, text: str) -> None:
    """Also such that it breaks Python's own reader."""
    path = tmp_path / "a.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert read_json(path) is None
    path.write_text('{"a": [1, null]}')
    assert read_json(path) == {"a": [1, None]}


def test_json_of_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "loop", "none", "", "/dev/zero"):
        assert read_json(tmp_path / name) is None


def test_texts(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("é".encode())
    assert read_text(tmp_path / "a", "a letter") == "é"
    with pytest.raises(BadInput, match="longer than 1 bytes; expected a letter"):
        read_text(tmp_path / "a", "a letter", 1)
    (tmp_path / "a").write_bytes(b"ab\xff")
    with pytest.raises(BadInput, match=r"is no text in UTF-8 \(byte 2\); expected a letter"):
        read_text(tmp_path / "a", "a letter")
    with pytest.raises(BadInput, match="no such file; expected a letter"):
        read_text(tmp_path / "b", "a letter")
