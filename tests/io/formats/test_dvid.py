"""DVID's arrays, from a server on loopback."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dvid_server import BLOCK, Dvid, serve_dvid
from emsuite.common.errors import BadInput, RunFailed
from emsuite.data.raw import open_raw
from emsuite.io.formats import dvid as dvid_format
from emsuite.io.volume import array_names, fingerprint, holds_array, open_volume

GREY = np.random.default_rng(0).integers(0, 256, (40, 70, 50), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 2**64 - 1, (40, 70, 50), np.uint64)


@pytest.fixture
def dvid(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dvid]:
    monkeypatch.setattr(dvid_format, "_FIRST_DELAY", 0.001)
    with serve_dvid() as server:
        yield server


@pytest.mark.parametrize("kind", ["labelmap", "labelblk", "labelarray"])
def test_labels(dvid: Dvid, kind: str) -> None:
    volume = open_volume(dvid.add("bodies", LABELS, (64, 32, 96), kind))
    assert (volume.shape, volume.dtype) == (LABELS.shape, np.uint64)
    np.testing.assert_array_equal(volume.read(), LABELS)


def test_grey_values_lie_where_the_server_says(dvid: Dvid) -> None:
    url = dvid.add("grayscale", GREY, (64, 32, 96))
    for path in (url, Path(url)):
        volume = open_volume(path)
        assert tuple(volume.voxel_size) == (40, 8, 4), "DVID says x, y, z"
        assert tuple(volume.offset) == (64 * 40, 32 * 8, 96 * 4)
        assert (volume.stored_block, volume.dtype) == ((BLOCK,) * 3, np.uint8)
        np.testing.assert_array_equal(volume[3:9, 60:, 17:19], GREY[3:9, 60:, 17:19])
    np.testing.assert_array_equal(open_raw(Path(url), (40, 8, 4)).read(), GREY)
    assert dvid.asked[1] == "/api/node/a1b2c3/grayscale/raw/0_1_2/2_10_6/113_92_67"


def test_large_boxes_are_read_in_bounded_answers(dvid: Dvid, monkeypatch: pytest.MonkeyPatch) -> None:
    url = dvid.add("grayscale", GREY)
    for most, answers in ((32 * 70 * 50, 2), (32 * 32 * 50, 6), (1000, 12)):
        monkeypatch.setattr(dvid_format, "_MOST_BYTES", most)
        dvid.asked.clear()
        np.testing.assert_array_equal(open_volume(url)[:], GREY)
        sizes = [re.findall(r"0_1_2/(\d+)_(\d+)_(\d+)/", path) for path in dvid.asked[1:]]
        assert len(sizes) == answers
        assert max(np.prod([int(n) for n in size[0]]) for size in sizes) <= max(most, BLOCK**3)


@pytest.mark.parametrize("fault", ["503", "429", "500", "cut"])
def test_what_passes_is_tried_again(dvid: Dvid, fault: str) -> None:
    volume = open_volume(dvid.add("grayscale", GREY))
    dvid.fail = [fault, fault]
    np.testing.assert_array_equal(volume[:5], GREY[:5])
    dvid.fail = [fault] * 4
    with pytest.raises(RunFailed, match=r"grayscale: no answer from http://.* in 4 attempts: (status|\d|Incomplete)"):
        volume[:5]


def test_what_does_not_pass_is_one_line(dvid: Dvid) -> None:
    url = dvid.add("grayscale", GREY)
    dvid.add("tiles", GREY, kind="imagetile")
    dvid.add("nothing", np.zeros((0, 3, 4), np.uint8))
    for path, message in [
        (url.replace("grayscale", "missing"), "missing: the server refuses http://.*: status 400"),
        (url.replace("grayscale", "tiles"), "tiles: is a imagetile, expected uint8blk"),
        (url.replace("grayscale", "nothing"), "nothing: holds no voxels"),
        ("dvid://host", "no array of DVID, expected dvid://HOST:PORT/UUID/NAME"),
        ("dvid://host/uuid/a/b", "no array of DVID"),
        ("dvid://host/uuid/a?b", "no array of DVID"),
    ]:
        with pytest.raises(BadInput, match=message):
            open_volume(path)
    with pytest.raises(BadInput, match="DVID is read only"):
        open_volume(url, "r+")
    with pytest.raises(RunFailed, match=r"no answer from http://127\.0\.0\.1:1/api/node/a/b/info in 4 attempts"):
        open_volume("dvid://127.0.0.1:1/a/b")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MinPoint", [0, 0]),
        ("MaxPoint", ["1", 2, 3]),
        ("MaxPoint", [2**40, 1, 1]),
        ("BlockSize", "64"),
        ("MaxPoint", 5),
    ],
)
def test_an_odd_answer_is_one_line(dvid: Dvid, monkeypatch: pytest.MonkeyPatch, key: str, value: object) -> None:
    url, whole = dvid.add("grayscale", GREY), dvid.info("grayscale")
    whole["Extended"] |= {key: value}  # type: ignore[operator]
    monkeypatch.setattr(dvid, "info", lambda _name: whole)
    with pytest.raises(BadInput, match=f"grayscale: the server says {key} .*, expected three whole numbers"):
        open_volume(url)
    for odd in ([], {}, {"Base": 3}, "text"):
        monkeypatch.setattr(dvid, "info", lambda _name, odd=odd: odd)
        with pytest.raises(BadInput, match="describes no array of DVID"):
            open_volume(url)


def test_a_server_that_says_no_voxel_size(dvid: Dvid, monkeypatch: pytest.MonkeyPatch) -> None:
    url, whole = dvid.add("grayscale", GREY), dvid.info("grayscale")
    whole["Extended"] |= {"VoxelSize": None}  # type: ignore[operator]
    monkeypatch.setattr(dvid, "info", lambda _name: whole)
    with pytest.raises(BadInput, match="--voxel-size"):
        open_volume(url)
    assert tuple(open_volume(url, voxel_size=(8, 8, 8)).voxel_size) == (8, 8, 8)


def test_the_url_is_the_array(dvid: Dvid) -> None:
    url = dvid.add("grayscale", GREY)
    assert array_names(Path(url)) == [""]
    assert holds_array(Path(url))
    assert not holds_array(Path(url.replace("gray", "grey")))
    before = fingerprint(Path(url))
    assert before.startswith("dvid:")
    dvid.add("grayscale", GREY[1:])
    assert fingerprint(Path(url)) != before
