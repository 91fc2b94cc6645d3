"""The token of a server, from a file."""

import os
from pathlib import Path

import pytest

from emsuite.common.errors import BadInput
from emsuite.prediction.serving.server import read_token


def test_a_token_is_one_word(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("  0123456789abcdef\n")
    assert read_token(file) == "0123456789abcdef"
    assert read_token(None) is None
    for text in ("short", "0123456789 abcdefgh", "0123456789abcdeé", ""):
        file.write_text(text)
        with pytest.raises(BadInput, match="token holds something else than one word of at least 16 ASCII characters"):
            read_token(file)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff" * 20)
    for path, reason in (
        (tmp_path / "pipe", "is no regular file"),
        (Path("/dev/zero"), "is no regular file"),
        (tmp_path, "is a folder"),
        (tmp_path / "gone", "no such file"),
        (tmp_path / "bytes", "is no text"),
    ):
        with pytest.raises(BadInput, match=f"{path}: {reason}.*; expected a file that holds a token"):
            read_token(path)
