import hashlib
from pathlib import Path

import pytest

from emsuite import etag

MIB = 1 << 20


def in_parts(content: bytes, part: int) -> str:
    parts = [content[start : start + part] for start in range(0, len(content), part)]
    digests = b"".join(hashlib.md5(piece).digest() for piece in parts)
    return f"{hashlib.md5(digests).hexdigest()}-{len(parts)}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "object"
    path.write_bytes(bytes(range(256)) * (11 * MIB // 256))
    return path


def test_one_part(file: Path) -> None:
    assert etag.matches(file, hashlib.md5(file.read_bytes()).hexdigest()) is True
    assert etag.matches(file, "0" * 32) is False


@pytest.mark.parametrize("part", [5 * MIB, 8 * MIB, 6 * MIB])
def test_parts_of_common_or_even_sizes_are_found(file: Path, part: int) -> None:
    assert etag.matches(file, in_parts(file.read_bytes(), part)) is True


def test_an_object_put_as_one_part(file: Path) -> None:
    assert etag.matches(file, in_parts(file.read_bytes(), 16 * MIB)) is True


def test_parts_of_a_known_size_give_a_verdict(file: Path) -> None:
    odd = 5 * MIB + 17
    right = in_parts(file.read_bytes(), odd)
    assert etag.matches(file, right) is None
    assert etag.matches(file, right, odd) is True
    assert etag.matches(file, "0" * 32 + "-3", odd) is False


def test_parts_of_unequal_sizes_cannot_be_told(file: Path) -> None:
    assert etag.matches(file, "0" * 32 + "-3", 10 * MIB) is None


def test_no_md5_cannot_be_told(file: Path) -> None:
    assert etag.matches(file, "something-else") is None


def test_which_etags_are_of_parts() -> None:
    assert etag.in_parts("0" * 32 + "-2")
    assert not etag.in_parts("0" * 32)
    assert not etag.in_parts("x-2")
