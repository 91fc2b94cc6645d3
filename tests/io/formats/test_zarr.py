"""Zarr containers as other programs leave them: old listings, missing documents, odd metadata."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from emsuite.common.errors import BadInput
from emsuite.io.volume import array_names, create_volume, fingerprint, holds_array, open_volume, rename_array
from emsuite.visualization.contents import data_layers

VOXELS = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(4, 6, 5)
RAW, LABELS = "volumes/raw", "volumes/labels/neuron_ids"
each_version = pytest.mark.parametrize("zarr_format", [2, 3])


def put(container: Path, name: str, zarr_format: Any, voxels: np.ndarray = VOXELS, **attributes: Any) -> None:
    group = zarr.open_group(container, mode="a", zarr_format=zarr_format, use_consolidated=False)
    group.create_array(name, data=voxels, chunks=(2,) * voxels.ndim).attrs.update(
        attributes or {"resolution": [8, 8, 8]}
    )


def listed(container: Path) -> list[str]:
    """The arrays that a program sees which reads the listing alone."""
    group = zarr.open_group(container, mode="r", use_consolidated=True)
    return sorted(name for name, member in group.members(max_depth=None) if isinstance(member, zarr.Array))


# ---- the disk counts, not a listing


@each_version
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_an_array_that_was_added_after_the_listing_is_read(tmp_path: Path, zarr_format: int) -> None:
    container = tmp_path / "v.zarr"
    put(container, RAW, zarr_format)
    zarr.consolidate_metadata(container)
    put(container, LABELS, zarr_format, VOXELS.astype(np.uint64))
    assert listed(container) == [RAW], "the listing is old"
    np.testing.assert_array_equal(open_volume(container / LABELS).read(), VOXELS)
    assert array_names(container) == [LABELS, RAW]
    assert holds_array(container / LABELS)
    assert sorted(layer.name for layer in data_layers([container])) == ["labels/neuron_ids", "raw"]


@each_version
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_attributes_that_were_added_or_changed_after_the_listing_count(tmp_path: Path, zarr_format: int) -> None:
    container = tmp_path / "v.zarr"
    put(container, RAW, zarr_format, purpose="test")
    zarr.consolidate_metadata(container)
    array = zarr.open_array(container / RAW, mode="r+")
    array.attrs["resolution"] = [8, 4, 4]
    assert tuple(open_volume(container / RAW).voxel_size) == (8, 4, 4)
    array.attrs["resolution"] = [16, 4, 4]
    assert tuple(open_volume(container / RAW).voxel_size) == (16, 4, 4)


@each_version
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_an_array_that_was_removed_or_replaced_after_the_listing(tmp_path: Path, zarr_format: int) -> None:
    container = tmp_path / "v.zarr"
    put(container, RAW, zarr_format)
    put(container, LABELS, zarr_format)
    zarr.consolidate_metadata(container)
    (container / LABELS).rename(container / "volumes/labels/other")
    with pytest.raises(BadInput, match=f"has no array '{LABELS}'; it holds volumes/labels/other, {RAW}"):
        open_volume(container / LABELS)
    group = zarr.open_group(container, mode="a", use_consolidated=False)
    del group[RAW]
    put(container, RAW, zarr_format, VOXELS[:, :3].astype(np.uint16))
    assert (open_volume(container / RAW).shape, open_volume(container / RAW).dtype) == ((4, 3, 5), np.uint16)


@each_version
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_what_the_suite_adds_and_renames_stands_in_the_listing(tmp_path: Path, zarr_format: int) -> None:
    container = tmp_path / "v.zarr"
    put(container, RAW, zarr_format)
    zarr.consolidate_metadata(container)
    create_volume(container / LABELS, (2, 2, 2), np.uint8, (8, 8, 8), (0, 0, 0), kind="test")
    assert listed(container) == [LABELS, RAW]
    found = zarr.open_group(container, mode="r", use_consolidated=True)[LABELS]
    assert dict(found.attrs)["kind"] == "test", "with its attributes"
    rename_array(container, LABELS, "volumes/other")
    assert listed(container) == ["volumes/other", RAW]


@each_version
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_listings_of_groups_inside_are_renewed_as_well(tmp_path: Path, zarr_format: int) -> None:
    container = tmp_path / "v.zarr"
    put(container, RAW, zarr_format)
    zarr.consolidate_metadata(container / "volumes")
    put(container, LABELS, zarr_format)
    np.testing.assert_array_equal(open_volume(container / LABELS).read(), VOXELS)
    create_volume(container / "volumes/mask", (2, 2, 2), np.uint8, (8, 8, 8), (0, 0, 0))
    assert listed(container / "volumes") == ["labels/neuron_ids", "mask", "raw"]
    assert not (container / ".zmetadata").exists(), "where there was no listing, none is written"


@each_version
def test_no_listing_is_written_where_there_was_none(tmp_path: Path, zarr_format: int) -> None:
    put(tmp_path / "v.zarr", RAW, zarr_format)
    create_volume(tmp_path / "v.zarr/mask", (2, 2, 2), np.uint8, (8, 8, 8), (0, 0, 0))
    assert not (tmp_path / "v.zarr/.zmetadata").exists()
    assert "consolidated" not in "".join(path.read_text() for path in (tmp_path / "v.zarr").glob("zarr.json"))


# ---- a container is what it holds


@each_version
def test_an_array_at_the_root(tmp_path: Path, zarr_format: Any) -> None:
    container = tmp_path / "raw.zarr"
    zarr.create_array(container, data=VOXELS, zarr_format=zarr_format).attrs["resolution"] = [8, 8, 8]
    np.testing.assert_array_equal(open_volume(container).read(), VOXELS)
    assert array_names(container) == [""]
    assert fingerprint(container).startswith("listing:")
    assert [layer.name for layer in data_layers([container])] == ["raw"]
    with pytest.raises(BadInput, match="has no array 'volumes/raw'"):
        open_volume(container / "volumes/raw")


@pytest.mark.parametrize("gone", [["volumes"], ["."], [".", "volumes", "volumes/labels"]])
def test_groups_without_documents(tmp_path: Path, gone: list[str]) -> None:
    container = tmp_path / "v.zarr"
    put(container, RAW, 2)
    put(container, LABELS, 2)
    for group in gone:
        (container / group / ".zgroup").unlink()
    np.testing.assert_array_equal(open_volume(container / LABELS).read(), VOXELS)
    assert array_names(container) == [LABELS, RAW]
    create_volume(container / "volumes/labels/labels_mask", (2, 2, 2), np.uint8, (8, 8, 8), (0, 0, 0))
    assert open_volume(container / "volumes/labels/labels_mask").shape == (2, 2, 2)
    np.testing.assert_array_equal(open_volume(container / RAW).read(), VOXELS)


def test_links_to_arrays_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    container = tmp_path / "v.zarr"
    put(container, RAW, 2)
    put(tmp_path / "other.zarr", "labels", 2)
    (container / "linked").symlink_to(tmp_path / "other.zarr/labels")
    (container / "volumes/circle").symlink_to(container)
    (container / "itself").symlink_to(container / "itself")
    assert array_names(container) == ["linked", RAW]
    np.testing.assert_array_equal(open_volume(container / "linked").read(), VOXELS)
    with pytest.raises(BadInput):
        open_volume(container / "itself")


# ---- metadata that cannot be

ODD_V2: list[tuple[str, dict[str, Any]]] = [
    ("chunks of 0", {"chunks": [0, 2, 2]}),
    ("negative chunks", {"chunks": [-2, 2, 2]}),
    ("fewer chunks", {"chunks": [2, 2]}),
    ("no list", {"shape": "wide"}),
    ("nested", {"shape": [[4], 6, 5]}),
    ("beyond int64", {"shape": [10**18, 10**18, 10**30]}),
    ("negative", {"shape": [-4, 6, 5]}),
    ("fractions", {"shape": [4.5, 6, 5]}),
    ("objects", {"dtype": "|O"}),
    ("texts", {"dtype": "|S8"}),
    ("unicode", {"dtype": "<U8"}),
    ("structured", {"dtype": [["a", "<i4"], ["b", "<f8"]]}),
    ("dates", {"dtype": "<M8[ns]"}),
    ("complex", {"dtype": "<c8"}),
    ("unknown type", {"dtype": "lorem"}),
    ("a number", {"dtype": 7}),
    ("a filter that is none", {"filters": ["shuffle"]}),
    ("an unknown codec", {"compressor": {"id": "lorem"}}),
    ("a codec of texts", {"filters": [{"id": "vlen-utf8"}]}),
    ("a codec in base 64", {"compressor": {"id": "base64"}}),
    ("no codec", {"compressor": 5}),
    ("a fill value", {"fill_value": {"a": 1}}),
    ("a fill value out of range", {"fill_value": "lorem"}),
    ("an order", {"order": "Z"}),
    ("a version", {"zarr_format": 9}),
    ("a separator", {"dimension_separator": "#"}),
]


@pytest.mark.parametrize("change", [change for _, change in ODD_V2], ids=[name for name, _ in ODD_V2])
def test_odd_metadata_of_version_2(tmp_path: Path, change: dict[str, Any]) -> None:
    put(tmp_path / "v.zarr", "raw", 2)
    document = tmp_path / "v.zarr/raw/.zarray"
    document.write_text(json.dumps(json.loads(document.read_text()) | change))
    with pytest.raises(BadInput) as error:
        open_volume(tmp_path / "v.zarr/raw").read()
    assert str(error.value).startswith(f"{tmp_path}/v.zarr/raw: ")


ODD_V3: list[tuple[str, dict[str, Any]]] = [
    ("chunks of 0", {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 2, 2]}}}),
    ("a grid", {"chunk_grid": {"name": "hexagonal"}}),
    ("beyond int64", {"shape": [2**63, 6, 5]}),
    ("texts", {"data_type": "string"}),
    ("a type", {"data_type": {"name": "r*"}}),
    ("no codecs", {"codecs": []}),
    ("an unknown codec", {"codecs": [{"name": "lorem"}]}),
    ("codecs in the wrong order", {"codecs": [{"name": "gzip", "configuration": {"level": 1}}, {"name": "bytes"}]}),
    ("a codec of texts", {"codecs": [{"name": "vlen-utf8"}]}),
    ("two serializers", {"codecs": [{"name": "bytes"}, {"name": "bytes"}]}),
    ("no object", {"codecs": "bytes"}),
    ("attributes", {"attributes": [1, 2]}),
    ("a node", {"node_type": "leaf"}),
    ("names", {"dimension_names": ["a"]}),
    ("a fill value", {"fill_value": [1, 2]}),
    ("storage", {"storage_transformers": [{"name": "lorem"}]}),
]


@pytest.mark.parametrize("change", [change for _, change in ODD_V3], ids=[name for name, _ in ODD_V3])
def test_odd_metadata_of_version_3(tmp_path: Path, change: dict[str, Any]) -> None:
    put(tmp_path / "v.zarr", "raw", 3)
    document = tmp_path / "v.zarr/raw/zarr.json"
    document.write_text(json.dumps(json.loads(document.read_text()) | change))
    with pytest.raises(BadInput):
        open_volume(tmp_path / "v.zarr/raw").read()


@pytest.mark.parametrize("text", ["[]", "5", "null", '"a"', "", "{", "[" * 10**5, '{"a":' * 10**5, "\x00", "NaN"])
@pytest.mark.parametrize("document", ["raw/.zarray", "raw/.zattrs", ".zattrs"])
def test_documents_that_are_none(tmp_path: Path, document: str, text: str) -> None:
    put(tmp_path / "v.zarr", "raw", 2)
    (tmp_path / "v.zarr" / document).write_text(text)
    with pytest.raises(BadInput) as error:
        open_volume(tmp_path / "v.zarr/raw")
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("document", ["raw/.zarray", "raw/.zattrs", ".zattrs"])
def test_a_pipe_for_a_document_is_refused_at_once(tmp_path: Path, document: str) -> None:
    put(tmp_path / "v.zarr", "raw", 2)
    (tmp_path / "v.zarr" / document).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "v.zarr" / document)
    begin = time.monotonic()
    with pytest.raises(BadInput, match="is a pipe, expected a file"):
        open_volume(tmp_path / "v.zarr/raw")
    assert time.monotonic() - begin < 5


def test_names_that_look_like_addresses(tmp_path: Path) -> None:
    for name in ("a::b.zarr", "a#b?c.zarr", "{a}.zarr", "-x.zarr", "a@b:c,d=e.zarr", "ü x.zarr"):
        volume = create_volume(tmp_path / name / "raw", VOXELS.shape, np.uint8, (8, 8, 8), (0, 0, 0))
        volume.write(volume.roi, VOXELS)
        np.testing.assert_array_equal(open_volume(tmp_path / name / "raw").read(), VOXELS)
        assert array_names(tmp_path / name) == ["raw"]
