"""N5 as other programs write it: axes x, y, z, attributes in the words of the field, blocks of any compression."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts

from emsuite.common.errors import BadInput
from emsuite.io.volume import array_names, create_volume, fingerprint, holds_array, open_volume, rename_array

VOXELS = (np.cumsum(np.random.default_rng(0).integers(-3, 4, (20, 30, 40)), axis=2) % 256).astype(np.uint8)
GZIP = {"type": "gzip", "level": 1}


def put(container: Path, name: str, voxels: np.ndarray = VOXELS, compression: Any = GZIP, **attributes: Any) -> Path:
    """An array by tensorstore's own writer, with the attributes of other programs. Return its folder."""
    kind = voxels.dtype.newbyteorder("=").name
    metadata = {"dimensions": [*voxels.T.shape], "blockSize": [16, 8, 8, 8][: voxels.ndim], "dataType": kind}
    store = {"driver": "file", "path": f"{container}/{name}/"}
    spec = {"driver": "n5", "kvstore": store, "metadata": metadata | {"compression": compression}}
    ts.open(spec, create=True).result().write(voxels.T).result()
    document = container / name / "attributes.json"
    document.write_text(json.dumps(json.loads(document.read_text()) | attributes))
    (container / "attributes.json").write_text('{"n5": "2.5.1"}')
    return container / name


@pytest.mark.parametrize("compression", ["raw", "gzip", "bzip2", "xz", "zstd", "blosc"])
def test_blocks_of_every_compression(tmp_path: Path, compression: str) -> None:
    more = {"cname": "lz4", "clevel": 5, "shuffle": 1} if compression == "blosc" else {}
    path = put(tmp_path / "c.n5", "volumes/raw", VOXELS, {"type": compression} | more, resolution=[4, 4, 40])
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(), VOXELS)
    np.testing.assert_array_equal(volume[3:9, 20:, 5], VOXELS[3:9, 20:, 5])
    np.testing.assert_array_equal(volume[-1, ::-2], VOXELS[-1, ::-2])
    assert (tuple(volume.voxel_size), volume.stored_block) == ((40, 4, 4), (8, 8, 16))


@pytest.mark.parametrize("kind", ["<u2", ">u4", "u8", "i1", "i8", "f4", "f8"])
def test_types_and_channels(tmp_path: Path, kind: str) -> None:
    voxels = np.stack([VOXELS, VOXELS // 2]).astype(kind)
    volume = open_volume(put(tmp_path / "c.n5", "raw", voxels, resolution=[4, 4, 40]))
    np.testing.assert_array_equal(volume.read(), voxels)
    assert (volume.channels, volume.dtype) == (2, np.dtype(kind).newbyteorder("="))


@pytest.mark.parametrize(
    ("own", "above", "size", "offset"),
    [
        ({"resolution": [4, 8, 40], "offset": [4, 8, 80]}, {}, (40, 8, 4), (80, 8, 4)),
        ({"pixelResolution": {"unit": "nm", "dimensions": [4, 8, 40]}}, {}, (40, 8, 4), (0, 0, 0)),
        ({"pixelResolution": {"unit": "um", "dimensions": [0.004, 0.008, 0.04]}}, {}, (40, 8, 4), (0, 0, 0)),
        ({"pixelResolution": [4, 4, 40], "downsamplingFactors": [2, 2, 1]}, {}, (40, 8, 8), (0, 0, 0)),
        ({"downsamplingFactors": [2, 2, 1]}, {"resolution": [4, 4, 40]}, (40, 8, 8), (0, 0, 0)),
        ({"resolution": [8, 8, 40], "downsamplingFactors": [2, 2, 1], "units": ["nm"] * 3}, {}, (40, 8, 8), (0, 0, 0)),
        ({"resolution": [0.004, 0.004, 0.04], "units": ["um"] * 3, "axes": ["x", "y", "z"]}, {}, (40, 4, 4), (0, 0, 0)),
    ],
)
def test_attributes_of_other_programs(tmp_path: Path, own: Any, above: Any, size: Any, offset: Any) -> None:
    path = put(tmp_path / "c.n5", "em/s1", VOXELS, **own)
    (tmp_path / "c.n5/em/attributes.json").write_text(json.dumps(above))
    volume = open_volume(path)
    assert (tuple(volume.voxel_size), tuple(volume.offset)) == (size, offset)


@pytest.mark.parametrize("above", [False, True])
def test_two_voxel_sizes_that_differ_are_refused(tmp_path: Path, above: bool) -> None:
    said = {"resolution": [1, 1, 1], "pixelResolution": {"unit": "um", "dimensions": [0.004, 0.004, 0.04]}}
    path = put(tmp_path / "c.n5", "em/s1", VOXELS, **({} if above else said))
    (tmp_path / "c.n5/em/attributes.json").write_text(json.dumps(said if above else {}))
    with pytest.raises(
        BadInput, match=r"'resolution' says voxels of \[1, 1, 1\] nm, but 'pixelResolution' \[40, 4, 4\]"
    ):
        open_volume(path)


def test_what_the_suite_writes_is_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "c.n5/volumes/raw"
    volume = create_volume(path, VOXELS.shape, np.uint8, (40, 4, 4), (80, 8, 4), chunks=(8, 16, 16), kind="test")
    volume.write(volume.roi, VOXELS)
    stored = ts.open({"driver": "n5", "kvstore": f"file://{path}"}).result()
    np.testing.assert_array_equal(stored.read().result().T, VOXELS)
    assert [str(unit) for unit in stored.dimension_units] == ["4 nm", "4 nm", "40 nm"]
    document = json.loads((path / "attributes.json").read_text())
    assert (document["pixelResolution"], document["kind"]) == ({"unit": "nm", "dimensions": [4, 4, 40]}, "test")
    opened = open_volume(path, "r+")
    opened.array[2:5, 3, :7] = 9
    expected = VOXELS.copy()
    expected[2:5, 3, :7] = 9
    np.testing.assert_array_equal(open_volume(path).read(), expected)
    assert (opened.voxel_size, opened.offset, opened.attributes["kind"]) == (volume.voxel_size, volume.offset, "test")


def test_names_and_fingerprints(tmp_path: Path) -> None:
    container = tmp_path / "c.n5"
    put(container, "em/s0", resolution=[4, 4, 4])
    put(container, "em/s1", resolution=[8, 8, 8])
    assert array_names(container) == ["em/s0", "em/s1"]
    assert holds_array(container / "em/s0")
    before = fingerprint(container / "em/s0")
    rename_array(container, "em/s0", "raw")
    assert array_names(container) == ["em/s1", "raw"]
    assert fingerprint(container / "raw") == before
    with pytest.raises(BadInput, match="has no array 'em/s9'; it holds em/s1, raw"):
        open_volume(container / "em/s9")
    container.rename(tmp_path / "cube")
    np.testing.assert_array_equal(open_volume(tmp_path / "cube/raw").read(), VOXELS)


@pytest.mark.parametrize("compression", ["raw", "zstd", "blosc", "xz"])
def test_a_block_that_is_cut_off_is_named(tmp_path: Path, compression: str) -> None:
    more = {"cname": "lz4", "clevel": 5, "shuffle": 1} if compression == "blosc" else {}
    path = put(tmp_path / "c.n5", "raw", VOXELS, {"type": compression} | more, resolution=[4, 4, 4])
    block, volume = path / "1/1/1", open_volume(path)
    whole = block.read_bytes()
    for length in (1, 15, 17, 40, len(whole) // 2, len(whole) - 1):
        block.write_bytes(whole[:length])
        with pytest.raises(BadInput, match=f"{block}: the chunk is damaged"):
            volume.read()
        assert not np.any(volume[:4, :4, :4] != VOXELS[:4, :4, :4]), "others are read"
    block.write_bytes(whole)
    np.testing.assert_array_equal(volume.read(), VOXELS)


def test_blocks_that_are_no_files(tmp_path: Path) -> None:
    path = put(tmp_path / "c.n5", "raw", resolution=[4, 4, 4])
    (path / "0/0/0").write_bytes(b"")
    with pytest.raises(BadInput, match=f"{path}/0/0/0: is damaged: it is empty"):
        open_volume(path).read()
    (path / "0/0/0").unlink()
    assert not open_volume(path)[:8, :8, :16].any(), "what is missing is 0"
    os.mkfifo(path / "0/0/0")
    begin = time.monotonic()
    for work in (lambda: open_volume(path).read(), lambda: open_volume(path, "r+").array.__setitem__(0, 1)):
        with pytest.raises(BadInput, match="is a pipe, expected a file"):
            work()
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    "change",
    [
        {"dimensions": "wide"}, {"dimensions": [-4, 30, 20]}, {"dimensions": [2**63, 30, 20]}, {"blockSize": [0, 8, 8]},
        {"blockSize": [8, 8]}, {"blockSize": [2**20] * 3}, {"dataType": "string"}, {"dataType": None},
        {"compression": {"type": "lorem"}}, {"resolution": ["a"]}, {"downsamplingFactors": {"a": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_odd_attributes(tmp_path: Path, change: dict[str, Any]) -> None:
    document = put(tmp_path / "c.n5", "raw", resolution=[4, 4, 4]) / "attributes.json"
    document.write_text(json.dumps(json.loads(document.read_text()) | change))
    with pytest.raises(BadInput):
        open_volume(tmp_path / "c.n5/raw").read()


@pytest.mark.parametrize("text", ["[]", "", "{", "[" * 10**5])
def test_documents_that_are_none(tmp_path: Path, text: str) -> None:
    (put(tmp_path / "c.n5", "raw") / "attributes.json").write_text(text)
    with pytest.raises(BadInput, match=r"attributes\.json"):
        open_volume(tmp_path / "c.n5/raw")


def test_types_that_n5_lacks(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no voxels of type bool"):
        create_volume(tmp_path / "c.n5/mask", (2, 2, 2), bool, (8, 8, 8), (0, 0, 0))


def test_units_stand_for_every_axis(tmp_path: Path) -> None:
    path = tmp_path / "c.n5/affs"
    create_volume(path, (3, 8, 8, 8), np.uint8, (40, 4, 4), (80, 8, 4))
    stored = ts.open({"driver": "n5", "kvstore": f"file://{path}"}).result()
    assert [str(unit) for unit in stored.dimension_units] == ["4 nm", "4 nm", "40 nm", "1"]
    opened = open_volume(path)
    assert (opened.channels, tuple(opened.voxel_size), tuple(opened.offset)) == (3, (40, 4, 4), (80, 8, 4))


@pytest.mark.parametrize(("translate", "fits"), [([0, 0, 0], True), ([800, 0, 0], False)])
def test_offsets_under_two_names(tmp_path: Path, translate: list[int], fits: bool) -> None:
    path = put(tmp_path / "c.n5", "raw", resolution=[4, 4, 40], offset=[0, 0, 0], translate=translate)
    if fits:
        assert tuple(open_volume(path).offset) == (0, 0, 0)
        return
    with pytest.raises(BadInput, match=r"'offset' \[0, 0, 0\] and 'translate' \[800, 0, 0\] disagree"):
        open_volume(path)
