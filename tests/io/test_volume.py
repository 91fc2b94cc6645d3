import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from funlib import geometry

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate, Roi
from emsuite.common.outputs import unfinished_path
from emsuite.common.provenance import checksum
from emsuite.io.regions import format_roi, parse_roi
from emsuite.io.volume import (
    Volume,
    array_names,
    create_volume,
    fingerprint,
    holds_array,
    is_writable,
    open_volume,
    rename_array,
    split_path,
)

VOXELS = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(4, 6, 5)


def put(path: Path, voxels: np.ndarray, zarr_format: Any, **attributes: Any) -> Path:
    """An array as other programs write it; `zarr_format` 2, 3, or None for HDF5."""
    container, name = split_path(path)
    container.parent.mkdir(parents=True, exist_ok=True)
    if zarr_format is None:
        with h5py.File(container, "a") as file:
            file.create_dataset(name, data=voxels).attrs.update(attributes)
    else:
        group = zarr.open_group(container, mode="a", zarr_format=zarr_format)
        array = group.create_array(name, shape=voxels.shape, dtype=voxels.dtype, chunks=(2,) * voxels.ndim)
        array[...] = voxels
        array.attrs.update(attributes)
    return path


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as error:
        open_volume(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("name", "zarr_format"), [("v.zarr", 2), ("v.zarr", 3), ("v.hdf", None), ("v.h5", None)])
def test_an_array_has_its_place_in_the_world(tmp_path: Path, name: str, zarr_format: int | None) -> None:
    path = put(tmp_path / name / "volumes/raw", VOXELS, zarr_format, resolution=[40, 4, 8], offset=[80, 0, -16])
    volume = open_volume(path)
    assert (volume.voxel_size, volume.offset) == (Coordinate(40, 4, 8), Coordinate(80, 0, -16))
    assert volume.roi == Roi((80, 0, -16), (160, 24, 40))
    assert (volume.shape, volume.spatial_shape, volume.channels) == ((4, 6, 5), Coordinate(4, 6, 5), None)
    assert volume.dtype == np.uint8
    np.testing.assert_array_equal(volume.read(), VOXELS)
    np.testing.assert_array_equal(volume.read(Roi((120, 8, 0), (80, 12, 16))), VOXELS[1:3, 2:5, 2:4])


@pytest.mark.parametrize("keys", [("resolution",), ("voxel_size",), ("resolution", "voxel_size")])
def test_either_name_of_the_voxel_size_is_read(tmp_path: Path, keys: tuple[str, ...]) -> None:
    volume = open_volume(put(tmp_path / "v.zarr/raw", VOXELS, 2, **{key: [8, 8, 8] for key in keys}))
    assert volume.voxel_size == Coordinate(8, 8, 8)
    assert volume.offset == Coordinate(0, 0, 0), "by default"


def test_whole_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
    volume = open_volume(put(tmp_path / "v.zarr/raw", VOXELS, 2, resolution=[40.0, 4.0, 4.0], offset=[0.0, 8.0, 4.0]))
    assert (volume.voxel_size, volume.offset) == (Coordinate(40, 4, 4), Coordinate(0, 8, 4))


def test_voxels_need_not_be_whole_nanometres(tmp_path: Path) -> None:
    """29.4 nm and 4.6 nm, also as float32 stores them, and written again as they are."""
    path = put(tmp_path / "v.zarr/raw", VOXELS, 3, resolution=[29.4, 4.599999904632568, 4.6], offset=[58.8, 0, 2.3])
    volume = open_volume(path)
    assert volume.voxel_size == Coordinate(29.4, 4.6, 4.6)
    assert volume.offset == Coordinate(58.8, 0, 2.3)
    assert np.array_equal(volume.read(parse_roi("88.2:117.6,4.6:13.8,6.9:", volume)), VOXELS[1:2, 1:3, 1:])
    assert np.array_equal(volume.read(parse_roi("88.2001:117.6,4.597:13.8,:", volume)), VOXELS[1:2, 1:3])
    with pytest.raises(BadInput, match=r"\[88.3:.*does not lie on the voxels, which are \(29.4, 4.6, 4.6\) nm wide"):
        parse_roi("88.3:117.7,:,:", volume)
    made = create_volume(tmp_path / "w.zarr/raw", VOXELS.shape, VOXELS.dtype, volume.voxel_size, volume.offset)
    made.write(made.roi, VOXELS)
    assert dict(made.attributes)["voxel_size"] == [29.4, 4.6, 4.6]
    again = open_volume(tmp_path / "w.zarr/raw")
    assert (again.voxel_size, again.offset, format_roi(again.roi)) == (
        volume.voxel_size, volume.offset, "58.8:176.4,0:27.6,2.3:25.3")  # fmt: skip


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, "no attribute 'resolution' or 'voxel_size'"),
        ({"resolution": [8, 8, 8], "voxel_size": [8, 8, 4]}, "disagree"),
        ({"resolution": [0, 8, 8]}, "expected nm above 0"),
        ({"resolution": []}, "expected nm above 0"),
        ({"resolution": 8}, "expected nm per axis"),
        ({"resolution": ["a", "b", "c"]}, "expected nm per axis"),
        ({"resolution": [8, 8, 8], "offset": [0, 0]}, "differ in their number of axes"),
        ({"resolution": [8]}, "3 axes (4, 6, 5), expected 1, or one more"),
        ({"resolution": [8, 8, 8, 8]}, "3 axes (4, 6, 5), expected 4"),
    ],
)
def test_odd_attributes_are_refused(tmp_path: Path, attributes: dict[str, Any], expected: str) -> None:
    path = put(tmp_path / "v.zarr/raw", VOXELS, 3, **attributes)
    message = refused(path)
    assert message.startswith(f"{path}: ")
    assert expected in message


def test_what_is_not_there_or_no_array_is_named_with_what_there_is(tmp_path: Path) -> None:
    for name, zarr_format in (("v.zarr", 2), ("w.zarr", 3), ("v.hdf", None)):
        put(tmp_path / name / "volumes/raw", VOXELS, zarr_format, resolution=[8, 8, 8])
        assert refused(tmp_path / name / "volumes/labels").endswith(
            "has no array 'volumes/labels'; it holds volumes/raw"
        )
        assert refused(tmp_path / name / "volumes").endswith("it holds volumes/raw")
        assert refused(tmp_path / name).endswith("it holds volumes/raw")
    assert "no such volume" in refused(tmp_path / "none.zarr/raw")
    assert "no such volume" in refused(tmp_path / "none.hdf/raw")
    assert "not in a .zarr, .n5, .precomputed, .h5, .hdf, .hdf5, .tif or .tiff container" in refused(
        tmp_path / "folder/raw"
    )
    (tmp_path / "empty.zarr").mkdir()
    assert "not a zarr group" in refused(tmp_path / "empty.zarr/raw")
    (tmp_path / "text.hdf").write_text("no HDF5")
    assert "cannot be read as HDF5" in refused(tmp_path / "text.hdf/raw")


@pytest.mark.parametrize(("zarr_format", "file"), [(2, ".zarray"), (3, "zarr.json")])
def test_broken_metadata_is_refused(tmp_path: Path, zarr_format: int, file: str) -> None:
    path = put(tmp_path / "v.zarr/raw", VOXELS, zarr_format, resolution=[8, 8, 8])
    whole = (path / file).read_text()
    (path / file).write_text(whole[: len(whole) // 2])
    refused(path)
    (path / file).write_text(json.dumps(json.loads(whole) | {"shape": "wide"}))
    refused(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_damaged_chunks_are_refused(tmp_path: Path, zarr_format: int) -> None:
    path = put(tmp_path / "v.zarr/raw", VOXELS, zarr_format, resolution=[8, 8, 8])
    chunk = path / {2: "0.0.0", 3: "c/0/0/0"}[zarr_format]
    chunk.write_bytes(chunk.read_bytes()[:3])
    with pytest.raises(BadInput, match="is damaged"):
        open_volume(path).read()


def test_channels_come_first(tmp_path: Path) -> None:
    path = put(tmp_path / "v.zarr/affs", np.stack([VOXELS, VOXELS + 1]), 2, resolution=[8, 8, 8])
    volume = open_volume(path)
    assert (volume.channels, volume.spatial_shape) == (2, Coordinate(4, 6, 5))
    np.testing.assert_array_equal(volume.read(Roi((8, 0, 0), (8, 16, 8))), volume.array[:, 1:2, :2, :1])


def test_two_axes(tmp_path: Path) -> None:
    volume = open_volume(put(tmp_path / "v.zarr/image", VOXELS[0], 3, voxel_size=[4, 4]))
    assert volume.roi == Roi((0, 0), (24, 20))
    np.testing.assert_array_equal(volume.read(Roi((4, 0), (8, 4))), VOXELS[0, 1:3, :1])


def made(tmp_path: Path, **extra: Any) -> Volume:
    return create_volume(tmp_path / "made.zarr/volumes/raw", (4, 6, 5), np.uint8, (40, 4, 4), (80, 0, -16), **extra)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_created_volumes_open_as_they_were_made(tmp_path: Path, zarr_format: Any) -> None:
    volume = made(tmp_path, zarr_format=zarr_format, remark="mine")
    volume.write(Roi((120, 4, -16), (40, 8, 12)), VOXELS[:1, :2, :3])
    opened = open_volume(volume.path, "r+")
    assert (opened.roi, opened.voxel_size) == (volume.roi, volume.voxel_size)
    assert opened.array.metadata.zarr_format == zarr_format
    assert dict(opened.array.attrs) == {
        "voxel_size": [40, 4, 4], "resolution": [40, 4, 4], "offset": [80, 0, -16], "remark": "mine",
    }  # fmt: skip
    expected = np.zeros_like(VOXELS)
    expected[1:2, 1:3, :3] = VOXELS[:1, :2, :3]
    np.testing.assert_array_equal(opened.read(), expected)


def test_creating_again_replaces_that_array_and_leaves_the_others(tmp_path: Path) -> None:
    first = made(tmp_path)
    first.write(first.roi, VOXELS)
    create_volume(tmp_path / "made.zarr/volumes/labels", (2, 2, 2), np.uint64, (8, 8, 8), (0, 0, 0))
    np.testing.assert_array_equal(open_volume(first.path).read(), VOXELS)
    made(tmp_path)
    assert not open_volume(first.path).read().any()


def test_an_older_container_stays_of_its_format(tmp_path: Path) -> None:
    put(tmp_path / "made.zarr/old", VOXELS, 2, resolution=[8, 8, 8])
    assert made(tmp_path).array.metadata.zarr_format == 2


@pytest.mark.parametrize("voxel_size", [(0, 4, 4), (-8, 8, 8), (1e-5, 8, 8)])
def test_volumes_are_not_made_with_odd_voxels(tmp_path: Path, voxel_size: tuple[float, ...]) -> None:
    with pytest.raises(BadInput, match="voxel_size"):
        create_volume(tmp_path / "v.zarr/raw", (2, 2, 2), np.uint8, voxel_size, (0, 0, 0))  # type: ignore[arg-type]
    assert not (tmp_path / "v.zarr").exists()


def test_volumes_are_made_as_zarr(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="written as zarr"):
        create_volume(tmp_path / "v.hdf/raw", (2, 2, 2), np.uint8, (8, 8, 8), (0, 0, 0))


@pytest.mark.parametrize(
    ("roi", "expected"),
    [
        (Roi((90, 0, -16), (40, 4, 4)), "does not lie on the voxels"),
        (Roi((80, 0, -16), (41, 4, 4)), "does not lie on the voxels"),
        (Roi((40, 0, -16), (40, 4, 4)), "was asked for"),
        (Roi((80, 0, -16), (40, 4, 400)), "was asked for"),
    ],
)
def test_regions_off_the_voxels_or_outside_are_refused(tmp_path: Path, roi: Roi, expected: str) -> None:
    volume = made(tmp_path)
    with pytest.raises(BadInput, match=expected):
        volume.read(roi)
    with pytest.raises(BadInput, match=expected):
        volume.write(roi, np.zeros(1, np.uint8))


def test_what_a_run_left_unfinished_is_not_read(tmp_path: Path) -> None:
    volume = made(tmp_path)
    unfinished_path(tmp_path / "made.zarr").write_text("{}")
    assert "unfinished" in refused(volume.path)
    assert open_volume(volume.path, "r+").shape == volume.shape, "but the run itself can go on"


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        (":,:,:", (80, 0, -16), (240, 24, 4)),
        ("120:200,:,:", (120, 0, -16), (200, 24, 4)),
        ("120:,:8,-8:0", (120, 0, -8), (240, 8, 0)),
        (" 120:160, 4:8 ,:", (120, 4, -16), (160, 8, 4)),
    ],
)
def test_regions_are_parsed_and_written_back(tmp_path: Path, text: str, begin: tuple, end: tuple) -> None:
    volume = made(tmp_path)
    roi = parse_roi(text, volume)
    assert (tuple(roi.begin), tuple(roi.end)) == (begin, end)
    assert parse_roi(format_roi(roi), volume) == roi


@pytest.mark.parametrize(
    "text",
    ["", "0:8", ":,:", ":,:,:,:", "a:b,:,:", "120,:,:", "200:120,:,:", "120:120,:,:", "121:201,:,:", "0:400,:,:",
     "1.5:3,:,:", "120:160:200,:,:", "120:120.001,:,:"],
)  # fmt: skip
def test_odd_regions_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput) as error:
        parse_roi(text, made(tmp_path))
    assert "\n" not in str(error.value)


def test_the_innermost_container_is_opened() -> None:
    assert split_path(Path("a.zarr/b.zarr/volumes/raw")) == (Path("a.zarr/b.zarr"), "volumes/raw")
    assert split_path(Path("a.zarr")) == (Path("a.zarr"), "")


@pytest.mark.parametrize(("name", "zarr_format"), [("v.zarr", 2), ("v.zarr", 3), ("v.hdf", None)])
def test_attributes_come_with_the_volume(tmp_path: Path, name: str, zarr_format: int | None) -> None:
    volume = open_volume(put(tmp_path / name / "affs", VOXELS, zarr_format, resolution=[8, 8, 8], kind="image"))
    assert volume.attributes["kind"] == "image"
    assert list(volume.attributes["resolution"]) == [8, 8, 8]
    assert made(tmp_path, remark="mine").attributes["remark"] == "mine"


def test_the_block_that_is_stored_in_one_file(tmp_path: Path) -> None:
    assert made(tmp_path).stored_block == (4, 6, 5)
    assert made(tmp_path, chunks=(2, 2, 2)).stored_block == (2, 2, 2)
    assert made(tmp_path, chunks=(2, 2, 2), shards=(4, 2, 2)).stored_block == (4, 2, 2)
    contiguous = put(tmp_path / "v.hdf/raw", VOXELS, None, resolution=[8, 8, 8])
    assert open_volume(contiguous).stored_block == (4, 6, 5)


@pytest.mark.parametrize(("name", "zarr_format"), [("v.zarr", 2), ("v.zarr", 3), ("v.hdf", None)])
def test_arrays_of_a_container(tmp_path: Path, name: str, zarr_format: int | None) -> None:
    for inside in ("volumes/raw", "volumes/labels/neuron_ids"):
        put(tmp_path / name / inside, VOXELS, zarr_format, resolution=[8, 8, 8])
    assert array_names(tmp_path / name) == ["volumes/labels/neuron_ids", "volumes/raw"]
    assert holds_array(tmp_path / name / "volumes/raw")
    assert not holds_array(tmp_path / name / "volumes/labels/labels_mask")
    with pytest.raises(BadInput, match="expected the container itself"):
        array_names(tmp_path / name / "volumes")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [False, True])
def test_an_array_gets_another_name(tmp_path: Path, zarr_format: int, consolidated: bool) -> None:
    for inside, voxels in (("volumes/old", VOXELS), ("volumes/new", VOXELS[:2])):
        put(tmp_path / "v.zarr" / inside, voxels, zarr_format, resolution=[8, 8, 8])
    if consolidated:
        zarr.consolidate_metadata(tmp_path / "v.zarr")
    rename_array(tmp_path / "v.zarr", "volumes/old", "volumes/new")
    np.testing.assert_array_equal(open_volume(tmp_path / "v.zarr/volumes/new").read(), VOXELS)
    assert array_names(tmp_path / "v.zarr") == ["volumes/new"]


def test_containers_that_can_be_written() -> None:
    assert is_writable(Path("v.zarr"))
    assert not any(is_writable(Path(name)) for name in ("v.hdf", "v.h5", "folder", "v.zarr/volumes", "v.txt"))


@pytest.mark.parametrize("file", [".zarray", ".zattrs", ".zgroup", "zarr.json"])
def test_the_fingerprint_of_zarr_depends_on_metadata_and_on_the_sizes_of_chunks(tmp_path: Path, file: str) -> None:
    folder = tmp_path / "v.zarr/raw"
    folder.mkdir(parents=True)
    (folder / file).write_text("ab")
    (folder / "0.0.0").write_text("chunk")
    # the listing as earlier versions of the suite recorded it
    expected = hashlib.sha256()
    for name, content in sorted({file: b"ab", "0.0.0": b""}.items()):
        expected.update(f"{name} {(folder / name).stat().st_size}\n".encode() + content)
    assert fingerprint(folder) == "listing:" + expected.hexdigest()
    before = fingerprint(tmp_path / "v.zarr")
    (folder / file).write_text("cd")
    assert fingerprint(tmp_path / "v.zarr") != before


def test_the_fingerprint_of_hdf5_is_that_of_the_file(tmp_path: Path) -> None:
    put(tmp_path / "v.hdf/volumes/raw", VOXELS, None)
    assert fingerprint(tmp_path / "v.hdf/volumes/raw") == checksum(tmp_path / "v.hdf")
    assert fingerprint(tmp_path / "none.hdf/volumes/raw") == "missing"


def test_the_fingerprint_of_what_is_no_volume(tmp_path: Path) -> None:
    (tmp_path / "nodes.parquet").write_text("a table")
    assert fingerprint(tmp_path) == checksum(tmp_path)
    assert fingerprint(tmp_path / "nodes.parquet").startswith("sha256:")


def test_the_real_slab(fib25_slab: Path) -> None:
    raw, labels = open_volume(fib25_slab / "volumes/raw"), open_volume(fib25_slab / "volumes/labels/neuron_ids")
    assert (raw.shape, raw.dtype, labels.dtype) == ((160, 250, 250), np.uint8, np.uint64)
    assert raw.voxel_size == labels.voxel_size == Coordinate(8, 8, 8)
    assert raw.roi == labels.roi


@pytest.mark.parametrize(
    "name", ["a::b.zarr", "s3:cube.zarr", "C:cube.zarr", "user@host:v.zarr", "größe, =1.zarr", "-x.zarr"]
)
def test_a_path_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    created = create_volume(Path(name) / "volumes/raw", (4, 4, 4), np.uint8, (8, 8, 8), (0, 0, 0))
    created.array[...] = 7
    assert open_volume(Path(name) / "volumes/raw").read().min() == 7
    assert array_names(Path(name)) == ["volumes/raw"]
    rename_array(Path(name), "volumes/raw", "volumes/other")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_regions_of_funlib_will_do(tmp_path: Path) -> None:
    volume = made(tmp_path)
    region = geometry.Roi(tuple(volume.offset), tuple(volume.voxel_size))
    assert volume.read(region).shape[-3:] == (1, 1, 1)
