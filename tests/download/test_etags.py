"""ETags as checksums of files, and what other servers send instead."""

import hashlib
from pathlib import Path

import pytest

from emsuite.download.etags import candidate_part_sizes, clean_etag, is_multipart, matches_etag, same_version

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


def test_etag_of_an_object_uploaded_at_once(file: Path) -> None:
    assert matches_etag(file, hashlib.md5(file.read_bytes()).hexdigest()) is True
    assert matches_etag(file, "0" * 32) is False


@pytest.mark.parametrize("part", [5 * MIB, 8 * MIB, 6 * MIB])
def test_multipart_etags_of_common_or_even_part_sizes_match(file: Path, part: int) -> None:
    assert matches_etag(file, in_parts(file.read_bytes(), part)) is True


def test_multipart_etag_of_a_single_part(file: Path) -> None:
    assert matches_etag(file, in_parts(file.read_bytes(), 16 * MIB)) is True


def test_a_given_part_size_gives_a_definite_answer(file: Path) -> None:
    odd = 5 * MIB + 17
    right = in_parts(file.read_bytes(), odd)
    assert matches_etag(file, right) is None
    assert matches_etag(file, right, odd) is True
    assert matches_etag(file, "0" * 32 + "-3", odd) is False


def test_an_implausible_part_size_gives_no_answer(file: Path) -> None:
    assert matches_etag(file, "0" * 32 + "-3", 10 * MIB) is None


def test_an_etag_that_is_no_md5_gives_no_answer(file: Path) -> None:
    assert matches_etag(file, "something-else") is None


def test_is_multipart() -> None:
    assert is_multipart("0" * 32 + "-2")
    assert not is_multipart("0" * 32)
    assert not is_multipart("x-2")


def test_etags_are_cleaned() -> None:
    md5 = hashlib.md5(b"x").hexdigest()
    assert [clean_etag(header) for header in (f'"{md5}"', md5, f' "{md5.upper()}" ')] == [md5] * 3
    assert clean_etag(f'"{md5.upper()}-2"') == f"{md5}-2"
    assert clean_etag('"0x8DB2A5C7"') == "0x8DB2A5C7"
    assert clean_etag(f'W/"{md5}"') == f"W/{md5}"
    assert [clean_etag(header) for header in (None, "", '""')] == [""] * 3


def test_versions() -> None:
    assert same_version("a", "a")
    assert same_version("a", "W/a")
    assert same_version("", "a")
    assert same_version("a", "")
    assert not same_version("a", "b")
    assert not same_version("W/a", "W/b")


def test_a_multipart_etag_of_no_parts_gives_no_answer(file: Path) -> None:
    assert candidate_part_sizes(5, 0) == []
    assert matches_etag(file, "0" * 32 + "-0") is None
